"""Splits long edges of quads, with vertices of their own only where the mesh is coarse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from avface.arrays import F64, Bool, Int


@dataclass(frozen=True, eq=False)
class Refined:
    """A mesh some of whose edges have been halved.

    matrix (V + N, V): the new vertices, middles of edges and of quads, behind the old ones, which keep their numbers;
    quads (Q', 4), a triangle repeats its last vertex; source (Q',) the old quad of each.
    """

    matrix: sp.csr_matrix
    quads: Int
    source: Int


def halve_edges(count: int, quads: Int, edges: Int, turned: Bool) -> Refined:
    """Halve edges (E, 2) of quads (Q, 4) over `count` vertices.

    A quad with opposite middles falls into two quads, with four into four, around a middle of its own; with one, two
    neighbouring or three, quads and a triangle at most connect to the coarser side: in the mirror image of the pattern
    where turned (Q,). Triangles stay as they are.
    """
    middle = {}
    for number, (a, b) in enumerate(np.unique(np.sort(edges, 1), axis=0).tolist()):
        middle[a, b] = middle[b, a] = count + number
    parents = [list(pair) for pair in dict.fromkeys(tuple(sorted(pair)) for pair in middle)]
    result: list[list[int]] = []
    source: list[int] = []
    for index, quad in enumerate(quads.tolist()):
        pieces = [quad]
        if quad[2] != quad[3]:
            quad = quad[::-1] if turned[index] else quad
            halves = [middle.get((quad[k], quad[(k + 1) % 4])) for k in range(4)]
            centre = count + len(parents)
            pieces = [_turned(piece) if turned[index] else piece for piece in _pieces(quad, halves, centre)]
            if any(centre in piece for piece in pieces):
                parents.append(quad)
        result += pieces
        source += [index] * len(pieces)
    rows = np.repeat(count + np.arange(len(parents)), [len(each) for each in parents])
    columns = np.concatenate([np.array(each) for each in parents]) if parents else np.zeros(0, int)
    shares = np.repeat([1 / len(each) for each in parents], [len(each) for each in parents])
    kept = np.arange(count)
    matrix = sp.csr_matrix(
        (
            np.concatenate([np.ones(count), shares]),
            (np.concatenate([kept, rows]), np.concatenate([kept, columns])),
        ),
        shape=(count + len(parents), count),
    )
    return Refined(matrix, np.array(result), np.array(source))


def _pieces(quad: list[int], halves: list[int | None], centre: int) -> list[list[int]]:
    """The quads that a quad with the given middles of its edges falls into."""
    split = [k for k in range(4) if halves[k] is not None]
    if not split:
        return [quad]
    # Turn the quad so that its pattern starts at corner 0.
    first = next((k for k in split if (k - 1) % 4 not in split), 0)
    v = [quad[(first + k) % 4] for k in range(4)]
    m = [halves[(first + k) % 4] or -1 for k in range(4)]
    if len(split) == 1:
        return [[m[0], v[1], v[2], v[2]], [m[0], v[2], v[3], v[0]]]
    if len(split) == 2 and m[2] >= 0:
        return [[v[0], m[0], m[2], v[3]], [m[0], v[1], v[2], m[2]]]
    if len(split) == 2:
        return [[m[0], v[1], m[1], centre], [centre, m[1], v[2], v[3]], [v[0], m[0], centre, v[3]]]
    if len(split) == 3:
        return [
            [m[0], v[1], m[1], centre],
            [centre, m[1], v[2], m[2]],
            [v[0], m[0], centre, v[3]],
            [centre, m[2], v[3], v[3]],
        ]
    return [[v[k], m[k], centre, m[k - 1]] for k in range(4)]


def _turned(piece: list[int]) -> list[int]:
    """A quad or triangle in the opposite direction."""
    return piece[::-1] if piece[2] != piece[3] else [piece[1], piece[0], piece[2], piece[2]]


def long_edges(vertices: F64, quads: Int, inside: Bool, partner: Int, longest: float) -> Int:
    """Edges (E, 2) of quads (Q, 4) longer than `longest`, both of whose sides lie inside (Q,).

    Lengths are averaged over the edges next to each across quads, so that whole strips of quads are halved, and over
    both sides of the head: partner (V,) is each vertex's mirror image.
    """
    quads = quads[inside]
    sides = np.sort(np.stack([quads, np.roll(quads, -1, 1)], -1), axis=2)
    unique, number, uses = np.unique(sides.reshape(-1, 2), axis=0, return_inverse=True, return_counts=True)
    number = number.reshape(-1, 4)
    opposite = np.concatenate([number[:, [0, 2]], number[:, [1, 3]]])
    opposite = np.concatenate([opposite, opposite[:, ::-1]])
    beside = sp.csr_matrix((np.ones(len(opposite)), opposite.T), shape=(len(unique), len(unique)))
    length = np.linalg.norm(vertices[unique[:, 0]] - vertices[unique[:, 1]], axis=1)
    mean = sp.diags(1 / np.asarray(beside.sum(1)).ravel()) @ beside
    for _ in range(3):
        length = (length + mean @ length) / 2
    # Keys of edges that rise like the rows of `unique`
    keys = unique @ [len(vertices), 1]
    mirrored = np.sort(partner[unique], 1) @ [len(vertices), 1]
    found = np.minimum(np.searchsorted(keys, mirrored), len(keys) - 1)
    length = (length + np.where(keys[found] == mirrored, length[found], length)) / 2
    chosen: Int = unique[(uses == 2) & (length > longest)]
    return chosen
