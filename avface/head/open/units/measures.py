"""Measures of a head's skin under expression units: which vertices go into other flesh, and the way out."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Bool, Int
from avface.head.anatomy.surface import face_normals, vertex_normals, winding_numbers


class SkinCheck:
    """Finds where one mesh of skin and the mouth's cavity goes through itself.

    triangles (F, 3) of a surface that is closed in front; watched (V,): the vertices that are tested for penetration,
    those of the lips and round them.
    """

    OUTSIDE = 2e-5
    """Distance from the skin at which it is tested whether that is in flesh, metres."""
    DEEPEST = 0.01
    """Up to which depth is told, metres."""

    def __init__(self, template: F64, triangles: Int, watched: Bool) -> None:
        self._triangles = triangles
        self._watched = np.flatnonzero(watched & np.isin(np.arange(len(template)), triangles))
        self._near = _within_rings(triangles, len(template), self._watched, 2)

    def ways_out(self, vertices: F64) -> F64:
        """(V, 3) from watched vertices that are inside other flesh to the nearest point of its surface; 0 elsewhere.

        A vertex is inside where the winding number just outside its own skin isn't 0. Its own neighbours are left out,
        and so is skin that looks the same way.
        """
        from scipy.spatial import cKDTree

        result = np.zeros_like(vertices)
        normals = vertex_normals(vertices, self._triangles)
        points = vertices[self._watched] + self.OUTSIDE * normals[self._watched]
        inside = np.flatnonzero(winding_numbers(points, vertices, self._triangles) != 0)
        if not len(inside):
            return result
        corners = vertices[self._triangles]
        across = face_normals(vertices, self._triangles)
        centres = cKDTree(corners.mean(1))
        for k, near in zip(inside, centres.query_ball_point(points[inside], self.DEEPEST), strict=True):
            vertex, own = self._watched[k], self._near[k]
            near = np.array(near)[across[near] @ normals[vertex] < 0.3]
            others = [f for f in near.tolist() if own.isdisjoint(self._triangles[f].tolist())]
            if others:
                nearest = nearest_on_triangles(vertices[vertex], corners[others])
                away = nearest - vertices[vertex]
                result[vertex] = away[np.linalg.norm(away, axis=1).argmin()]
        return result


def nearest_on_triangles(point: F64, corners: F64) -> F64:
    """(N, 3) the nearest points to a point (3,) of triangles (N, 3, 3)."""
    a, b, c = (corners[:, k] for k in range(3))
    normal = np.cross(b - a, c - a)
    normal = normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-18)
    result = point - ((point - a) * normal).sum(1, keepdims=True) * normal
    foot = result.copy()
    best = np.full(len(corners), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        along = end - start
        outside = (np.cross(along, foot - start) * normal).sum(1) < 0
        share = ((point - start) * along).sum(1) / np.maximum((along * along).sum(1), 1e-18)
        nearest = start + np.clip(share, 0, 1)[:, None] * along
        distance = np.linalg.norm(point - nearest, axis=1)
        chosen = outside & (distance < best)
        result[chosen], best[chosen] = nearest[chosen], distance[chosen]
    return result


def _within_rings(triangles: Int, count: int, vertices: Int, rings: int) -> list[set[int]]:
    """Of each vertex, those that at most `rings` edges part from it."""
    around: list[set[int]] = [set() for _ in range(count)]
    for triangle in triangles.tolist():
        for vertex in triangle:
            around[vertex].update(triangle)
    result = []
    for vertex in vertices.tolist():
        near = {vertex}
        for _ in range(rings):
            near = set().union(*(around[v] for v in near))
        result.append(near)
    return result
