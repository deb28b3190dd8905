"""Where lips and the mouth's cavity go through themselves or the teeth, and the ways out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from avface.arrays import F64, Bool, Int
from avface.geometry.mesh import triangulate
from avface.head.anatomy.intersections import ALONG, INSET, front_teeth
from avface.head.anatomy.surface import (
    face_normals,
    nearest_on_triangles,
    vertex_normals,
    winding_numbers,
)
from avface.head.open.draft import Draft
from avface.head.open.mouth.rings import CONTACT, INNER, Rings

DEEPEST = 0.004
"""Metres up to which ways out are looked for."""
BEHIND = 0.0003
"""How far the rim stays behind, and the lower lip's above, the contact of shut lips; metres."""
WATCHED = 7
"""Ring on the skin up to which the flesh is watched; the cavity is as a whole."""


@dataclass(frozen=True, eq=False)
class Ways:
    """Points of the flesh that must move.

    vertices (H, 3) and weights (H, 3): the points, as weighted means; ways (H, 3) out, metres.
    """

    vertices: Int
    weights: F64
    ways: F64

    def chosen(self, rows: Bool) -> Ways:
        """Some of the points."""
        return Ways(self.vertices[rows], self.weights[rows], self.ways[rows])


class MouthContact:
    """Finds by the rule of `avface head check` where the flesh around the mouth isn't sound."""

    def __init__(self, draft: Draft, rings: Rings) -> None:
        flesh = np.isin(draft.parts, ("skin", "mouth_cavity"))
        self._flesh = triangulate(draft.quads[flesh])
        self._teeth = triangulate(draft.quads[np.isin(draft.parts, ("upper_teeth", "lower_teeth"))])
        self._rings = rings
        self._inner = np.zeros(len(draft.template), bool)
        self._inner[rings.loops[: INNER + 1]] = True
        self._front = front_teeth(draft.template, self._teeth)
        watched = np.zeros(len(draft.template), bool)
        watched[rings.loops[: INNER + 1 + WATCHED]] = True
        self._near = self._flesh[watched[self._flesh].all(1)]
        rows = np.flatnonzero(watched)
        self._probes = np.concatenate([np.repeat(rows[:, None], 3, 1), self._near])
        self._single = np.arange(len(self._probes)) < len(rows)

    def ways(self, posed: F64, touch: float) -> Ways:
        """Those of `through_flesh` and `through_teeth` that are longer than touch, metres."""
        both = _joined(self.through_flesh(posed), self.through_teeth(posed))
        return both.chosen(np.linalg.norm(both.ways, axis=1) > touch)

    def behind_lips(self, posed: F64) -> F64:
        """Corrections (V, 3) that bring the rim of posed (V, 3) behind the contact of shut lips, and the lower one's
        above it: one would see it from the front."""
        rim, contact = posed[self._rings[0]], posed[self._rings[CONTACT]]
        result = np.zeros_like(posed)
        result[self._rings[0], 2] = np.minimum(contact[:, 2] - BEHIND - rim[:, 2], 0)
        result[self._rings[0], 1] = np.maximum(contact[:, 1] + BEHIND - rim[:, 1], 0) * self._rings.lower
        return result

    def through_flesh(self, posed: F64) -> Ways:
        """The points of posed (V, 3) that are within other flesh, with the ways to its surface."""
        places = posed[self._probes].mean(1)
        across = face_normals(posed, self._near)
        normals = vertex_normals(posed, self._flesh)[self._probes[:, 0]]
        normals[~self._single] = across
        around = winding_numbers(places - INSET * normals, posed, self._flesh)
        inside = np.flatnonzero((around < 0) | (around > 1))
        corners = posed[self._near]
        lists = cKDTree(corners.mean(1)).query_ball_point(places[inside], 2 * DEEPEST)
        ways = np.zeros((len(inside), 3))
        for number, (probe, faces) in enumerate(zip(inside, lists, strict=True)):
            near = np.array(faces, np.int64)
            own = (self._near[near][:, :, None] == self._probes[probe]).any((1, 2))
            near = near[~own & (across[near] @ normals[probe] < ALONG)]
            if len(near):
                ways[number] = _shortest(places[probe], corners[near])
        inner = self._inner[self._probes[inside]].any(1)
        ways[inner, 2] = np.minimum(ways[inner, 2], 0)  # not out of the lips
        return self._ways(inside, ways)

    def through_teeth(self, posed: F64) -> Ways:
        """The points of posed (V, 3) that are within teeth, or behind the surface of teeth that stand in the flesh."""
        places = posed[self._probes].mean(1)
        corners = posed[self._teeth]
        bitten = np.flatnonzero(places[:, 2] > posed[self._front, 2].min())
        bitten = bitten[winding_numbers(places[bitten], posed, self._teeth) != 0]
        tree = cKDTree(corners.mean(1))
        ways = np.zeros((len(bitten), 3))
        for number, probe in enumerate(bitten):
            near = tree.query_ball_point(places[probe], 2 * DEEPEST)
            if near:
                ways[number] = _shortest(places[probe], corners[near])
        skin = self._ways(bitten, ways)
        rows = self._front
        rows = rows[winding_numbers(posed[rows], posed, self._flesh) != 0]
        if not len(rows):
            return skin
        corners = posed[self._near]
        centres = cKDTree(corners.mean(1))
        faces = centres.query(posed[rows], k=6)[1]
        nearest, vertices, weights = [], [], []
        for row, around in zip(rows, faces, strict=True):
            points = nearest_on_triangles(posed[row], corners[around])
            best = int(np.linalg.norm(points - posed[row], axis=1).argmin())
            face = corners[around[best]]
            nearest.append(posed[row] - points[best])
            vertices.append(self._near[around[best]])
            weights.append(
                np.clip(np.linalg.lstsq(np.vstack([face.T, np.ones(3)]), [*points[best], 1], None)[0], 0, 1)
            )
        standing = Ways(np.stack(vertices), np.stack(weights), np.stack(nearest))
        return _joined(skin, standing.chosen(np.linalg.norm(standing.ways, axis=1) < DEEPEST))

    def _ways(self, probes: Int, ways: F64) -> Ways:
        """Of probes, those that have a way out up to `DEEPEST`."""
        length = np.linalg.norm(ways, axis=1)
        kept = (length > 0) & (length < DEEPEST)
        return Ways(self._probes[probes[kept]], np.full((int(kept.sum()), 3), 1 / 3), ways[kept])


def _joined(one: Ways, other: Ways) -> Ways:
    return Ways(
        np.concatenate([one.vertices, other.vertices]),
        np.concatenate([one.weights, other.weights]),
        np.concatenate([one.ways, other.ways]),
    )


def _shortest(point: F64, corners: F64) -> F64:
    """(3,) from a point to the nearest one of triangles (N, 3, 3)."""
    away = nearest_on_triangles(point, corners) - point
    shortest: F64 = away[np.linalg.norm(away, axis=1).argmin()]
    return shortest
