"""Measures of a head's expression units: directions and amplitudes against reference figures, soundness of the skin."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

import numpy as np

from avface.arrays import F64, Bool, Int
from avface.head.anatomy.surface import face_normals, vertex_normals, winding_numbers
from avface.head.open.units.named_points import REFERENCE_POINTS, NamedPoints

REFERENCE_WIDTH = 0.089
"""Distance of the outer eye corners of the head that the reference figures are from, metres."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Figures of another head's units: names, and displacements (U, 24, 3) in mm of `REFERENCE_POINTS`."""

    names: tuple[str, ...]
    displacements: F64

    @classmethod
    def load(cls) -> Reference:
        """The figures of ICT FaceKit (MIT licence; see the file)."""
        path = resources.files("avface.head.anatomy") / "reference_units.csv"
        lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
        values: dict[str, dict[str, list[float]]] = {}
        for row in csv.DictReader(lines):
            values.setdefault(row["unit"], {})[row["point"]] = [float(row[f"{c}_mm"]) for c in "xyz"]
        return cls(
            tuple(values),
            np.array([[moves[point] for point in REFERENCE_POINTS] for moves in values.values()]),
        )

    def of(self, name: str) -> F64:
        """(24, 3) mm of one unit."""
        return self.displacements[self.names.index(name)]


@dataclass(frozen=True)
class UnitFigures:
    """A unit held against the reference's of the same name."""

    name: str
    cosine: float
    amplitude: float
    """Norm of the displacements over that of the reference's."""
    nearest: str
    """The reference's unit with the largest cosine."""
    main_point: str
    """Where the unit moves most."""
    main_movement: tuple[float, float, float]
    """There, in mm of this head's size: to the subject's left, up, out of the face."""


def head_scale(template: F64, points: NamedPoints) -> float:
    """This head's size over that of the reference figures', by the distance of the outer corners of the eyes."""
    left, right = points.at(template, ["lid_outer_corner_left", "lid_outer_corner_right"])
    return float(np.linalg.norm(left - right)) / REFERENCE_WIDTH


def compare_units(
    names: tuple[str, ...], template: F64, expression: F64, points: NamedPoints, reference: Reference
) -> list[UnitFigures]:
    """Figures of every unit that the reference has: names (E,), template (V, 3), expression (E, V, 3), metres."""
    scale = head_scale(template, points)
    theirs = reference.displacements.reshape(len(reference.names), -1)
    unit = theirs / np.linalg.norm(theirs, axis=1, keepdims=True)
    figures = []
    for name in reference.names:
        moves = points.at(expression[names.index(name)], REFERENCE_POINTS) * 1000
        flat = moves.ravel() / scale
        norm = float(np.linalg.norm(flat))
        cosines = unit @ flat / max(norm, 1e-12)
        own = reference.names.index(name)
        most = int(np.linalg.norm(moves, axis=1).argmax())
        figures.append(
            UnitFigures(
                name,
                float(cosines[own]),
                norm / float(np.linalg.norm(theirs[own])),
                reference.names[int(cosines.argmax())],
                REFERENCE_POINTS[most],
                tuple(np.round(moves[most], 1).tolist()),
            )
        )
    return figures


@dataclass(frozen=True)
class Soundness:
    """How a deformed skin bears against its rest."""

    penetration: float
    """Depth in metres of the deepest vertex inside other flesh."""
    stretch: float
    """Largest length of an edge over its length at rest."""
    compression: float
    """Smallest length of an edge over its length at rest."""
    crease: float
    """Largest change of the angle between neighbouring triangles, degrees."""


class SkinCheck:
    """Measures of soundness for one mesh of skin and the mouth's cavity.

    triangles (F, 3) of a surface that is closed in front; watched (V,): the vertices that are tested for penetration,
    those of the lips and round them.
    """

    SHORTEST = 0.0007
    """Edges that are shorter at rest are left out of stretch and crease, metres."""
    OUTSIDE = 2e-5
    """Distance from the skin at which it is tested whether that is in flesh, metres."""
    DEEPEST = 0.01
    """Up to which depth is told, metres."""

    def __init__(self, template: F64, triangles: Int, watched: Bool) -> None:
        self._triangles = triangles
        self._watched = np.flatnonzero(watched & np.isin(np.arange(len(template)), triangles))
        self._edges, self._pairs = _edges_with_two_triangles(triangles)
        self._length = np.linalg.norm(template[self._edges[:, 0]] - template[self._edges[:, 1]], axis=1)
        self._angle = self._dihedral(template)
        self._near = _within_rings(triangles, len(template), self._watched, 2)

    def measure(self, vertices: F64) -> Soundness:
        """Soundness of deformed vertices (V, 3) against the template."""
        long = self._length > self.SHORTEST
        ratio = np.linalg.norm(vertices[self._edges[:, 0]] - vertices[self._edges[:, 1]], axis=1)[long]
        ratio = ratio / self._length[long]
        turn = self._dihedral(vertices) - self._angle
        turn = np.abs((turn + np.pi) % (2 * np.pi) - np.pi)[long]
        depth = np.linalg.norm(self.ways_out(vertices), axis=1)
        return Soundness(
            float(depth.max(initial=0.0)),
            float(ratio.max()),
            float(ratio.min()),
            float(np.degrees(turn.max())),
        )

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

    def _dihedral(self, vertices: F64) -> F64:
        """(E,) signed angle between both triangles of every edge, radians, positive where convex."""
        corners = vertices[self._triangles]
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-15)
        one, other = normals[self._pairs[:, 0]], normals[self._pairs[:, 1]]
        edge = vertices[self._edges[:, 1]] - vertices[self._edges[:, 0]]
        edge /= np.maximum(np.linalg.norm(edge, axis=1, keepdims=True), 1e-15)
        angle: F64 = np.arctan2((np.cross(one, other) * edge).sum(1), (one * other).sum(1))
        return angle


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


def _edges_with_two_triangles(triangles: Int) -> tuple[Int, Int]:
    """Edges (E, 2) and their triangles (E, 2), the first one's in the direction of the edge."""
    directed = np.concatenate([triangles[:, [0, 1]], triangles[:, [1, 2]], triangles[:, [2, 0]]])
    owner = np.tile(np.arange(len(triangles)), 3)
    edges = np.sort(directed, axis=1)
    forward = directed[:, 0] < directed[:, 1]
    _, number, count = np.unique(edges, axis=0, return_inverse=True, return_counts=True)
    number = number.ravel()
    order = np.lexsort([~forward, number])
    kept = order[count[number[order]] == 2].reshape(-1, 2)
    return edges[kept[:, 0]], owner[kept]


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
