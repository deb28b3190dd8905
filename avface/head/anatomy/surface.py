"""Measures of triangle meshes: open boundaries, separate bodies, what is inside, spheres, distances."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from avface.arrays import F64, Bool, Int

NEAREST = 24
"""Faces, nearest by the direction of their middle, among which `radii` looks at first."""
RAY = np.array([0.0123, 0.0077])
"""How far the rays of `winding_numbers` lean along x and y, so that they don't hit edges in the plane of symmetry."""


def boundary_loops(faces: Int) -> list[Int]:
    """Vertices of each connected open boundary of faces (F, 3), the longest boundary first."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = boundary_edges(faces)
    vertices, ends = np.unique(edges, return_inverse=True)
    ends = ends.reshape(-1, 2)
    graph = coo_matrix((np.ones(len(ends)), ends.T), (len(vertices),) * 2)
    count, loop = connected_components(graph, directed=False)
    return sorted((vertices[loop == k] for k in range(count)), key=len, reverse=True)


def boundary_edges(faces: Int) -> Int:
    """Edges (N, 2) that belong to one of faces (F, 3) only."""
    edges = np.sort(_edges(faces), 1)
    number = edges[:, 0] * (edges.max(initial=-1) + 1) + edges[:, 1]  # sorts in a tenth of the time of pairs
    _, first, count = np.unique(number, return_index=True, return_counts=True)
    result: Int = edges[first[count == 1]]
    return result


def neck_and_holes(faces: Int, points: F64) -> tuple[list[Int], Int]:
    """Edges of the open boundaries of faces (F, 3): of the neck, the lowest of points (V, 3), as one (N, 2) for each
    loop that meets it, and all others, (M, 2).

    The neck's edge is a clean loop if there is one of it, which no vertex is in more than twice.
    """
    edges = boundary_edges(faces)
    if not len(edges):
        return [], edges
    loops = boundary_loops(faces)
    lowest = min(loops, key=lambda loop: float(points[loop, 1].min()))
    is_neck = np.isin(edges[:, 0], lowest)
    crossings = (
        np.bincount(edges[is_neck].ravel())[lowest] // 2 - 1
    ).sum()  # a vertex with four edges joins two loops
    return [edges[is_neck]] * (1 + int(crossings)), edges[~is_neck]


def off_plane(points: F64) -> float:
    """Largest distance of points (N, 3) from the plane nearest to them."""
    offset = points - points.mean(0)
    return float(np.abs(offset @ np.linalg.svd(offset, full_matrices=False)[2][2]).max())


def inner_edges(faces: Int) -> tuple[Int, Int]:
    """Edges (N, 2) that two of faces (F, 3) share, and the numbers (N, 2) of these faces."""
    edges = np.sort(_edges(faces), 1)
    order = np.lexsort(edges.T)
    edges, face = edges[order], order % len(faces)
    first = np.flatnonzero((edges[1:] == edges[:-1]).all(1))
    return edges[first], np.stack([face[first], face[first + 1]], 1)


def bend(points: F64, faces: Int, pairs: Int) -> F64:
    """Angles (N,) in radians between the normals of pairs (N, 2) of faces (F, 3) of points (V, 3)."""
    normals = face_normals(points, faces)
    cosine = np.einsum("nk,nk->n", normals[pairs[:, 0]], normals[pairs[:, 1]])
    result: F64 = np.arccos(np.clip(cosine, -1, 1))
    return result


def bodies(faces: Int) -> npt.NDArray[np.int32]:
    """Number (F,) of the connected body that each of faces (F, 3) belongs to; bodies are joined by vertices."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    size = int(faces.max(initial=-1)) + 1
    edges = _edges(faces)
    graph = coo_matrix((np.ones(len(edges)), edges.T), (size, size))
    label: npt.NDArray[np.int32] = connected_components(graph, directed=False)[1]
    return np.unique(label[faces[:, 0]], return_inverse=True)[1].astype(np.int32)


def face_normals(points: F64, faces: Int) -> F64:
    """Unit normals (F, 3) of faces (F, 3) of points (V, 3); 0 for faces without area."""
    a, b, c = points[faces.T]
    across = np.cross(b - a, c - a)
    result: F64 = across / np.maximum(np.linalg.norm(across, axis=1), 1e-18)[:, None]
    return result


def vertex_normals(points: F64, faces: Int) -> F64:
    """Unit normals (V, 3): area-weighted means of those of the faces; 0 for vertices without faces."""
    a, b, c = points[faces.T]
    across = np.cross(b - a, c - a)
    total = np.stack(
        [np.bincount(faces.ravel(), np.repeat(across[:, k], 3), len(points)) for k in range(3)], 1
    )
    result: F64 = total / np.maximum(np.linalg.norm(total, axis=1), 1e-18)[:, None]
    return result


def fit_sphere(points: F64) -> tuple[F64, float]:
    """Centre (3,) and radius of the sphere nearest to points (N, 3), without the points far off the others' sphere.

    Least squares on the algebraic equation of a sphere, several times; points that are off by more than three times the
    median, such as those of a bulge, are left out the next time.
    """
    kept = np.ones(len(points), bool)
    for _ in range(8):
        rows = np.concatenate([2 * points[kept], np.ones((int(kept.sum()), 1))], 1)
        x = np.linalg.lstsq(rows, (points[kept] ** 2).sum(1), rcond=None)[0]
        radius = float(np.sqrt(max(x[3] + x[:3] @ x[:3], 0.0)))
        off = np.abs(np.linalg.norm(points - x[:3], axis=1) - radius)
        kept = off <= max(3 * float(np.median(off)), 1e-5)
    return np.asarray(x[:3]), radius


def winding_numbers(queries: F64, points: F64, faces: Int, cell: float = 0.0015) -> npt.NDArray[np.int64]:
    """How often a surface surrounds each query (N, 3): 0 outside, 1 inside, other values where it overlaps itself.

    points (V, 3), faces (F, 3), seen counter-clockwise from outside. Counted along a ray nearly in the direction of +z,
    so that openings elsewhere, such as the neck's, don't matter. cell: metres, the width of the grid in which faces
    are looked up.
    """
    flat = points[:, :2] - points[:, 2:] * RAY
    q = queries[:, :2] - queries[:, 2:] * RAY
    result = np.zeros(len(queries), np.int64)
    if not len(queries) or not len(faces):
        return result
    ends = flat[faces.T]
    low = np.minimum(np.minimum(ends[0], ends[1]), ends[2])
    high = np.maximum(np.maximum(ends[0], ends[1]), ends[2])
    floor, ceiling = q.min(0), q.max(0)
    reach = (high[:, 0] >= floor[0]) & (low[:, 0] <= ceiling[0])
    reach &= (high[:, 1] >= floor[1]) & (low[:, 1] <= ceiling[1])
    kept = np.flatnonzero(reach)
    faces, low, high, ends = faces[kept], low[kept], high[kept], ends[:, kept]
    origin = floor
    size = np.floor((ceiling - origin) / cell).astype(np.int64) + 1
    first = np.clip(np.floor((low - origin) / cell).astype(np.int64), 0, size - 1)
    last = np.clip(np.floor((high - origin) / cell).astype(np.int64), 0, size - 1)
    span = last - first + 1
    counts = span[:, 0] * span[:, 1]
    face = np.repeat(np.arange(len(faces)), counts)
    place = np.arange(len(face)) - np.repeat(np.cumsum(counts) - counts, counts)
    cells = (first[face, 0] + place // span[face, 1]) * size[1] + first[face, 1] + place % span[face, 1]
    order = np.argsort(cells, kind="stable")
    face, cells = face[order], cells[order]
    at = np.floor((q - origin) / cell).astype(np.int64)
    at = at[:, 0] * size[1] + at[:, 1]
    start, end = np.searchsorted(cells, at), np.searchsorted(cells, at, side="right")
    query = np.repeat(np.arange(len(q)), end - start)
    chosen = face[
        np.arange(len(query)) - np.repeat(np.cumsum(end - start) - (end - start), end - start) + start[query]
    ]
    x, y = q[query].T
    (ax, ay), (bx, by), (cx, cy) = (end[chosen].T for end in ends)
    one = (bx - ax) * (y - ay) - (by - ay) * (x - ax)
    two = (cx - bx) * (y - by) - (cy - by) * (x - bx)
    three = (ax - cx) * (y - cy) - (ay - cy) * (x - cx)
    hit = np.flatnonzero(((one > 0) & (two > 0) & (three > 0)) | ((one < 0) & (two < 0) & (three < 0)))
    query, chosen, one, two, three = query[hit], chosen[hit], one[hit], two[hit], three[hit]
    area = one + two + three
    z = points[:, 2][faces[chosen]]
    depth = (z[:, 2] * one + z[:, 0] * two + z[:, 1] * three) / area
    above = depth > queries[query, 2]
    np.add.at(result, query[above], np.sign(area[above]).astype(np.int64))
    return result


def distance_to_triangles(queries: F64, corners: F64) -> F64:
    """Distances (N,) of queries (N, 3) from one triangle each, or of a point (3,) from all; corners (N, 3, 3)."""
    result: F64 = np.linalg.norm(queries - nearest_on_triangles(queries, corners), axis=1)
    return result


def nearest_on_triangles(queries: F64, corners: F64) -> F64:
    """(N, 3) the points of triangles, corners (N, 3, 3), nearest to queries (N, 3), one each, or to a point (3,)."""
    a, b, c = (corners[:, k] for k in range(3))
    normal = np.cross(b - a, c - a)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-18)
    result: F64 = queries - ((queries - a) * normal).sum(1, keepdims=True) * normal
    foot = result.copy()
    best = np.full(len(corners), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        along = end - start
        outside = (np.cross(along, foot - start) * normal).sum(1) < 0
        share = ((queries - start) * along).sum(1) / np.maximum((along * along).sum(1), 1e-18)
        nearest = start + np.clip(share, 0, 1)[:, None] * along
        distance = np.linalg.norm(queries - nearest, axis=1)
        chosen = outside & (distance < best)
        result[chosen], best[chosen] = nearest[chosen], distance[chosen]
    return result


def radii(directions: F64, points: F64, faces: Int) -> F64:
    """How far a star-shaped surface around the origin reaches in each direction (N, 3); 0 where it has a hole.

    points (V, 3), faces (F, 3). The outermost face counts.
    """
    from scipy.spatial import cKDTree

    corners = points[faces]
    centres = corners.sum(1)
    centres /= np.linalg.norm(centres, axis=1)[:, None]
    unit = directions / np.linalg.norm(directions, axis=1)[:, None]
    near = cKDTree(centres).query(unit, min(NEAREST, len(faces)))[1].reshape(len(unit), -1)
    result = _along(unit, corners[near])
    missed = np.flatnonzero(result == 0)  # long faces, whose middle is far
    for rows in np.array_split(missed, len(missed) // 100 + 1):
        result[rows] = _along(unit[rows], np.broadcast_to(corners, (len(rows), *corners.shape)))
    return result


def _along(unit: F64, corners: F64) -> F64:
    """Farthest (N,) distance from the origin along unit (N, 3) to K triangles, corners (N, K, 3, 3); 0 without."""
    a, b, c = np.moveaxis(corners, 2, 0)
    normal = np.cross(b - a, c - a)
    d = unit[:, None]
    facing = (normal * d).sum(2)
    distance = (normal * a).sum(2) / np.where(np.abs(facing) < 1e-15, np.inf, facing)
    hit = distance[..., None] * d
    inside: Bool = distance > 0
    square = (normal**2).sum(2)
    for start, end in ((a, b), (b, c), (c, a)):
        inside &= (np.cross(end - start, hit - start) * normal).sum(2) > -1e-6 * square
    result: F64 = np.where(inside, distance, 0.0).max(1, initial=0.0)
    return result


def _edges(faces: Int) -> Int:
    return np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
