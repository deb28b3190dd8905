"""Texture coordinates of the skin: one island, cut at the back of the head."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import splu
from scipy.spatial import cKDTree

from avface.arrays import F64, Int
from avface.errors import AvfaceError
from avface.geometry.interpolation import smoothstep
from avface.geometry.mesh import open_loops, triangulate
from avface.head.open.deformation import both_ways
from avface.head.open.draft import Draft
from avface.head.open.outside.neck import lower_loop


@dataclass(frozen=True)
class UnwrapConfig:
    """How texels are shared out."""

    crown: float = 0.5
    """Where the cut ends: share of the head's depth, from the back, on top."""
    back_scale: float = 0.45
    """Length on scalp and neck of what is as long as 1 on the face."""
    back_weight: float = 0.12
    """Weight of the distortion of scalp, neck and ears; 1 for the face."""
    hole_weight: float = 0.002
    """The same of what fills the openings of eyes and mouth."""
    fade: float = 0.03
    """Distance from the face over which scale and weight change; metres."""
    steps: int = 30
    """Most steps of the optimisation."""

    def __post_init__(self) -> None:
        for name in ("back_scale", "back_weight", "hole_weight", "fade"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")


def unwrap(draft: Draft, config: UnwrapConfig | None = None) -> Draft:
    """The draft with texture coordinates of the skin anew, upright, in metres of the face: one island without seams but
    for a cut down the middle of the back of the head.

    The island starts as the embedding of the cut skin in a disc with mean-value weights (Tutte's theorem: no polygon
    flips) and minimises the symmetric Dirichlet energy, whose value is infinite where a polygon degenerates.

    Raises:
        AvfaceError: if the skin isn't one piece with a loop at the neck.
    """
    config = config or UnwrapConfig()
    skin = draft.parts == "skin"
    quads = draft.quads[skin]
    corners, owner = _cut(quads, draft.template, config)
    points = draft.template[owner]
    away = cKDTree(draft.template[draft.regions["face"]]).query(points)[0]
    share = smoothstep(0.0, config.fade, away)
    triangles = both_ways(corners)
    scale = (1 + share * (config.back_scale - 1))[triangles].mean(1)
    weight = (config.back_weight**share)[triangles].mean(1)
    rest = _flat(points[triangles]) * scale[:, None, None]
    placed, fans = _disc(points, corners)
    size = np.sqrt(np.linalg.det(rest).sum() / np.linalg.det(_edges(placed, triangles)).sum())
    placed = size * placed
    # Fans keep the borders of eyes and mouth from crossing; any shape of theirs will do.
    rest = np.concatenate([rest, _edges(placed, fans)])
    weight = np.concatenate([weight, np.full(len(fans), config.hole_weight)])
    placed = _relaxed(placed, np.concatenate([triangles, fans]), rest, weight, config.steps)[: len(points)]
    uv = np.concatenate([placed, draft.uv])
    uv_quads = draft.uv_quads + len(placed)
    uv_quads[skin] = corners
    used, renumbered = np.unique(uv_quads, return_inverse=True)
    return replace(draft, uv=uv[used], uv_quads=renumbered.reshape(-1, 4))


def _cut(quads: Int, template: F64, config: UnwrapConfig) -> tuple[Int, Int]:
    """Quads (Q, 4) of the cut mesh, and the vertex (M,) of each of its corners.

    The cut follows the edges nearest to the middle of the back of the head from the neck's loop to the crown.
    """
    loop = lower_loop(quads, template)
    used = np.unique(quads)
    middle = used[(np.abs(template[used, 0]) < 0.001) & (template[used, 1] > template[used, 1].max() / 2)]
    low, high = template[used, 2].min(), template[used, 2].max()
    goal = middle[np.argmin(np.abs(template[middle, 2] - low - config.crown * (high - low)))]
    edges = np.concatenate([quads[:, [k, (k + 1) % 4]] for k in range(4)])
    a, b = edges[edges[:, 0] != edges[:, 1]].T
    length = np.linalg.norm(template[a] - template[b], axis=1)
    aside = np.abs(template[a, 0]) + np.abs(template[b, 0])
    graph = sp.coo_matrix((length * (1 + 1e4 * aside), (a, b)), shape=(len(template),) * 2).tocsr()
    start = loop[np.argmin(template[loop, 2])]
    distance, previous = dijkstra(graph, directed=False, indices=start, return_predecessors=True)
    if not np.isfinite(distance[goal]):
        raise AvfaceError("the skin isn't one piece")
    path = [int(goal)]
    while path[-1] != start:
        path.append(int(previous[path[-1]]))
    number = np.full(len(template), -1)
    number[used] = np.arange(len(used))
    doubled = np.array(path[1:])  # the cut's end is one point
    twin = np.full(len(template), -1)
    twin[doubled] = len(used) + np.arange(len(doubled))
    corners = number[quads]
    right = template[quads, 0].mean(1) < 0
    corners[right] = np.where(twin[quads[right]] >= 0, twin[quads[right]], corners[right])
    return corners, np.concatenate([used, doubled])


def _flat(corners: F64) -> F64:
    """Triangles (T, 3, 3) in their own planes: the edges (T, 2, 2) from the first corner, as columns."""
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    length = np.linalg.norm(first, axis=1)
    along = (first * second).sum(1) / length
    height = np.sqrt(np.maximum((second**2).sum(1) - along**2, 1e-4 * length**2))
    return np.stack([np.stack([length, along], 1), np.stack([np.zeros_like(length), height], 1)], 1)


def _disc(points: F64, quads: Int) -> tuple[F64, Int]:
    """An embedding (M + N, 2) of a mesh of M points in the unit disc, its longest border on the circle, the throat
    below, and fans of triangles around N points that close its holes.

    Mean-value weights, all positive.
    """
    triangles = triangulate(quads)
    loops = sorted(
        open_loops(triangles), key=lambda loop: -np.linalg.norm(np.diff(points[loop], axis=0), axis=1).sum()
    )
    outer, count, faces = loops[0], len(points), len(triangles)
    for number, loop in enumerate(loops[1:]):
        points = np.concatenate([points, points[loop].mean(0, keepdims=True)])
        centre = np.full(len(loop), count + number)
        triangles = np.concatenate([triangles, np.stack([np.roll(loop, -1), loop, centre], 1)])
    rows, columns, weights = [], [], []
    for k in range(3):
        a, b, c = triangles[:, k], triangles[:, (k + 1) % 3], triangles[:, (k + 2) % 3]
        to_b, to_c = points[b] - points[a], points[c] - points[a]
        length_b, length_c = np.linalg.norm(to_b, axis=1), np.linalg.norm(to_c, axis=1)
        cosine = (to_b * to_c).sum(1) / (length_b * length_c)
        half = np.sqrt((1 - cosine) / np.maximum(1 + cosine, 1e-4))
        rows += [a, a]
        columns += [b, c]
        weights += [half / length_b, half / length_c]
    size = len(points)
    matrix = sp.csr_matrix(
        (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns))), shape=(size, size)
    )
    matrix = sp.diags(1 / np.asarray(matrix.sum(1)).ravel()) @ matrix
    steps = np.linalg.norm(np.roll(points[outer], -1, 0) - points[outer], axis=1)
    turn = 2 * np.pi * np.concatenate([[0], np.cumsum(steps)[:-1]]) / steps.sum()
    front = np.argmax(points[outer, 2] - points[outer, 1])
    turn = turn - turn[front] - np.pi / 2
    placed = np.zeros((size, 2))
    placed[outer] = np.stack([np.cos(turn), np.sin(turn)], 1)
    free = np.setdiff1d(np.arange(size), outer)
    system = (sp.eye(size) - matrix).tocsr()[free]
    placed[free] = splu(system[:, free].tocsc()).solve(-system[:, outer] @ placed[outer])
    return placed, triangles[faces:]


def _relaxed(placed: F64, triangles: Int, rest: F64, weight: F64, steps: int) -> F64:
    """(M, 2) points of least symmetric Dirichlet energy, from points without flips.

    rest (T, 2, 2): edges of each triangle as they should be; weight (T,). Each step minimises a quadratic proxy
    (Rabinovich et al., Scalable Locally Injective Mappings, 2017) and stays short of any flip.
    """
    count = len(placed)
    inverse = np.linalg.inv(rest)
    area = np.linalg.det(rest) / 2 * weight
    # J = D @ inverse is linear in the points: J[:, :, k] = sum of the points of a triangle times slope[:, :, k].
    slope = np.stack([-inverse.sum(1), inverse[:, 0], inverse[:, 1]], 1)
    value = _energy(placed, triangles, inverse, area)
    number = np.arange(len(triangles))
    for _ in range(steps):
        jacobian = _edges(placed, triangles) @ inverse
        u, s, vt = np.linalg.svd(jacobian)
        target = u @ vt
        near = np.abs(s - 1) < 1e-3
        stretch = np.sqrt(np.where(near, 4.0, (s - s**-3.0) / np.where(near, 1.0, s - 1)))
        root = np.sqrt(area)[:, None, None] * ((u * stretch[:, None]) @ u.transpose(0, 2, 1))
        rows, columns, entries = [], [], []
        for i in range(2):
            for k in range(2):
                for corner in range(3):
                    for axis in range(2):
                        rows.append(4 * number + 2 * i + k)
                        columns.append(2 * triangles[:, corner] + axis)
                        entries.append(root[:, i, axis] * slope[:, corner, k])
        matrix = sp.csr_matrix(
            (np.concatenate(entries), (np.concatenate(rows), np.concatenate(columns))),
            shape=(4 * len(triangles), 2 * count),
        )
        goal = (root @ target).reshape(-1)
        normal = matrix.T @ matrix
        pull = 1e-6 * normal.diagonal().mean()
        system = (normal + pull * sp.eye(2 * count)).tocsc()
        solved = splu(system, permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}).solve(
            matrix.T @ goal + pull * placed.ravel()
        )
        direction = solved.reshape(-1, 2) - placed
        step = min(1.0, 0.8 * _longest_step(placed, direction, triangles))
        while (found := _energy(placed + step * direction, triangles, inverse, area)) > value and step > 1e-8:
            step /= 2
        placed = placed + step * direction
        if value - found < 1e-5 * value:
            break
        value = found
    return placed


def _edges(placed: F64, triangles: Int) -> F64:
    """Edges (T, 2, 2) of triangles from their first corners, as columns."""
    corners = placed[triangles]
    return np.stack([corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]], -1)


def _energy(placed: F64, triangles: Int, inverse: F64, area: F64) -> float:
    """The symmetric Dirichlet energy; infinite where a triangle is flipped."""
    jacobian = _edges(placed, triangles) @ inverse
    turned = np.linalg.det(jacobian)
    if turned.min() <= 0:
        return np.inf
    return float((area * (jacobian**2).sum((1, 2)) * (1 + turned**-2.0)).sum())


def _longest_step(placed: F64, direction: F64, triangles: Int) -> float:
    """The step along the direction at which the first triangle degenerates."""
    d, p = _edges(placed, triangles), _edges(direction, triangles)
    c = np.linalg.det(d)
    b = d[:, 0, 0] * p[:, 1, 1] + p[:, 0, 0] * d[:, 1, 1] - d[:, 0, 1] * p[:, 1, 0] - p[:, 0, 1] * d[:, 1, 0]
    a = np.linalg.det(p)
    root = np.sqrt(np.maximum(b * b - 4 * a * c, 0))
    real = b * b - 4 * a * c >= 0
    # The smaller positive root of a t^2 + b t + c with c > 0, in the form that doesn't cancel.
    with np.errstate(divide="ignore", invalid="ignore"):
        q = -(b + np.where(b < 0, -1, 1) * root) / 2
        roots = np.stack([q / a, c / q], 1)
    roots = np.where(real[:, None] & np.isfinite(roots) & (roots > 0), roots, np.inf)
    return float(roots.min())
