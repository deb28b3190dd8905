"""Loops of vertices around the mouth, and smooth fields over them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.linalg import splu

from avface.arrays import F64, Bool, Int
from avface.errors import AvfaceError
from avface.head.open.draft import Draft

INNER = OUTER = 10
"""Rings of vertices that follow the mouth's rim, into the cavity and outwards on the skin."""
CONTACT = 1
"""Ring on which the lips touch."""


@dataclass(frozen=True, eq=False)
class Rings:
    """Loops of vertices around the mouth.

    loops (INNER + 1 + OUTER, N): row INNER + k is ring k: 0 where cavity and skin meet, positive on the skin, negative
    in the cavity. Column 0 is the right corner; columns then run over the upper lip to the left corner `left` and back
    over the lower lip.
    """

    loops: Int
    left: int

    def __getitem__(self, ring: int) -> Int:
        """(N,) vertices of a ring."""
        vertices: Int = self.loops[INNER + ring]
        return vertices

    @property
    def upper(self) -> Bool:
        """(N,) columns of the upper lip, without the corners."""
        column = np.arange(self.loops.shape[1])
        return (column > 0) & (column < self.left)

    @property
    def lower(self) -> Bool:
        """(N,) columns of the lower lip, without the corners."""
        return np.asarray(np.arange(self.loops.shape[1]) > self.left)


def mouth_rings(draft: Draft) -> Rings:
    """The rings of a draft's mouth.

    Raises:
        AvfaceError: if the mesh around the mouth isn't made of loops of the same number of vertices.
    """
    neighbours: list[set[int]] = [set() for _ in draft.template]
    for k in range(4):
        for a, b in draft.quads[:, [k, (k + 1) % 4]]:
            if a != b:
                neighbours[a].add(int(b))
                neighbours[b].add(int(a))
    cavity = {int(v) for v in draft.rows("mouth_cavity")}
    skin = {int(v) for v in draft.rows("skin")}
    rim = cavity & skin
    x, y = draft.template[:, 0], draft.template[:, 1]
    loop = [min(rim, key=lambda v: x[v])]
    following = min(neighbours[loop[0]] & rim)
    while following != loop[0]:
        loop.append(following)
        (following,) = (neighbours[following] & rim) - {loop[-2]}
    if len(loop) != len(rim):
        raise AvfaceError("the mouth's rim isn't one loop")
    result = {0: loop}
    for side, sign, count in ((cavity, -1, INNER), (skin, 1, OUTER)):
        seen = set(loop)
        for k in range(1, count + 1):
            steps = [(neighbours[v] & side) - seen for v in result[sign * (k - 1)]]
            if any(len(step) != 1 for step in steps):
                raise AvfaceError(f"ring {sign * k} around the mouth isn't a loop")
            result[sign * k] = [next(iter(step)) for step in steps]
            seen |= set(result[sign * k])
    loops = np.array([result[k] for k in range(-INNER, OUTER + 1)])
    if y[loops[-1, 1]] < y[loops[-1, -1]]:  # around the lower lip first
        loops[:, 1:] = loops[:, :0:-1].copy()
    return Rings(loops, int(np.argmax(x[loops[INNER]])))


def lip_orders(rings: Rings) -> tuple[Int, Int]:
    """Columns of the upper and of the lower lip from the right corner to the left."""
    columns = np.arange(rings.loops.shape[1])
    return columns[: rings.left + 1], np.concatenate([[0], columns[: rings.left : -1], [rings.left]])


def harmonic(
    draft: Draft, vertices: Int, fixed: dict[int, F64], zero: Int, power: int = 1
) -> tuple[Int, F64]:
    """Vertices that move and a matrix from sources to them: fixed rows, 0 at `zero`, smooth in between.

    power: 1 harmonic, 2 biharmonic.
    """
    laplacian = _laplacian(draft, np.concatenate([vertices, zero, np.array(sorted(fixed))]))
    operator = laplacian
    for _ in range(power - 1):
        operator = operator @ laplacian
    given = np.array(sorted(fixed))
    free = np.setdiff1d(vertices, np.concatenate([given, zero]))
    rows = np.array([fixed[int(v)] for v in given])
    solved = splu(operator[free][:, free].tocsc()).solve(-(operator[free][:, given] @ rows))
    return np.concatenate([given, free]), np.concatenate([rows, solved])


def _laplacian(draft: Draft, vertices: Int) -> csr_matrix:
    """Graph Laplacian (V, V) of the quads' edges within some vertices."""
    edges = np.concatenate([draft.quads[:, [k, (k + 1) % 4]] for k in range(4)])
    chosen = np.zeros(len(draft.template), bool)
    chosen[vertices] = True
    edges = np.unique(np.sort(edges[chosen[edges].all(1) & (edges[:, 0] != edges[:, 1])], 1), axis=0)
    size = (len(draft.template),) * 2
    links = coo_matrix((np.ones(len(edges)), edges.T), size)
    links = (links + links.T).tocsr()
    return csr_matrix(coo_matrix((np.asarray(links.sum(1)).ravel(), [np.arange(size[0])] * 2), size) - links)


def hops(draft: Draft, start: Int, within: Int) -> Int:
    """Number of edges (V,) from the nearest start vertex over some vertices; a large number elsewhere."""
    edges = np.concatenate([draft.quads[:, [k, (k + 1) % 4]] for k in range(4)])
    allowed = np.zeros(len(draft.template), bool)
    allowed[within] = True
    edges = edges[allowed[edges].all(1)]
    edges = np.concatenate([edges, edges[:, ::-1]])
    result = np.full(len(draft.template), len(draft.template))
    result[start] = 0
    for hop in range(1, 12):
        near = edges[result[edges[:, 0]] == hop - 1, 1]
        result[near] = np.minimum(result[near], hop)
    return result
