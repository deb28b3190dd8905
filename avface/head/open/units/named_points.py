"""Named points of the open head's skin: where units are steered and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avface.arrays import F64, Bool, Int
from avface.errors import AvfaceError
from avface.geometry.mesh import triangulate
from avface.head.anatomy.surface import vertex_normals
from avface.head.anatomy.units import EYE_CORNERS_APART
from avface.head.open.draft import Draft

MIDDLE: dict[str, tuple[float, float, float]] = {
    "chin": (0, -112, 96),
    "chin_up": (0, -102, 103),
    "under_lip": (0, -92, 103),
    "lower_lip_fold": (0, -88.5, 104.3),
    "lower_lip_mid": (0, -86, 109),
    "lower_lip_red": (0, -79, 112),
    "inner_lower_lip": (0, -74, 110.5),
    "inner_upper_lip": (0, -71.5, 110.5),
    "upper_lip_red": (0, -68, 114),
    "upper_lip_mid": (0, -64, 115),
    "philtrum": (0, -55, 112),
    "nose_base": (0, -50, 116),
    "nose_tip": (0, -42, 126),
    "bridge": (0, -4.5, 105),
    "glabella": (0, 16, 108),
    "forehead_low": (0, 35, 106),
    "forehead_mid": (0, 48, 102),
}
"""Points of the middle: x, y, z in mm on the mean head."""

LEFT: dict[str, tuple[float, float, float]] = {
    "brow_inner": (14, 23, 108),
    "brow_mid": (39, 25, 100),
    "brow_outer": (55, 16, 85.5),
    "brow_peak": (27, 33, 104),
    "forehead_side": (30, 50, 96.5),
    "temple": (62, 28, 68),
    "upper_lid": (37, 2, 93.5),
    "lower_lid": (35.5, -6, 93.5),
    "lid_inner_corner": (17.2, -3.6, 94.2),
    "lid_outer_corner": (43.8, -1.3, 89.2),
    "lid_upper_inner": (27.1, 2.2, 94.5),
    "lid_lower_inner": (26.2, -5.9, 94.8),
    "under_eye": (31.5, -17.5, 94.3),
    "under_eye_inner": (18, -16, 96.5),
    "under_eye_outer": (44, -16, 90),
    "nose_side": (9.5, -18, 106.5),
    "nose_side_low": (12.3, -32, 111.5),
    "ala": (18, -42, 107),
    "ala_back": (19, -46, 101),
    "nostril": (12, -46, 108),
    "cheek_inner": (26, -38, 98.5),
    "cheek_apple": (39, -32, 94),
    "cheekbone": (56, -23, 83),
    "cheek_mid": (48, -52, 87),
    "cheek_low": (46, -71, 82.5),
    "nasolabial_top": (22, -49, 100),
    "nasolabial_mid": (28, -60, 99.5),
    "nasolabial_low": (31.5, -70, 95.5),
    "beside_corner": (30.5, -77, 95),
    "marionette": (29.5, -86, 93.5),
    "jaw_side": (53, -88.5, 53.5),
    "chin_side": (22, -105.5, 92),
    "under_lip_side": (13.5, -91, 101.5),
    "philtrum_side": (11, -58, 110.5),
    "mouth_corner": (23.5, -73.6, 99.7),
    "upper_lip_side": (7, -62.3, 114),
    "upper_lip_outer": (13.7, -65, 111.4),
    "lower_lip_side": (7, -85.3, 108),
    "lower_lip_outer": (17, -81.5, 105),
    "upper_lip_red_side": (11, -68, 111.5),
    "lower_lip_red_side": (11, -78, 110),
    "inner_upper_lip_side": (12, -71.4, 108),
    "inner_lower_lip_side": (12, -73.6, 108),
}
"""Points of the left half: x, y, z in mm on the mean head; the right half mirrors them."""

LID_RING = (
    "lid_inner_corner",
    "lid_upper_inner",
    "upper_lid",
    "lid_outer_corner",
    "lower_lid",
    "lid_lower_inner",
)
"""Points along the margin of the lids, around the eye."""
UPPER_LID = ("lid_inner_corner", "lid_upper_inner", "upper_lid", "lid_outer_corner")
"""Those of the upper lid."""

_FACING = {"inner_upper": -1, "inner_lower": 1}
"""Lips touch at rest: these points are told apart by which way along y the skin faces."""


def point_positions() -> dict[str, F64]:
    """Positions (3,) in metres of all points on the mean head: of the middle, then "_left" and "_right"."""
    positions = {name: np.array(place) / 1000 for name, place in MIDDLE.items()}
    for side, sign in (("left", 1), ("right", -1)):
        for name, place in LEFT.items():
            positions[f"{name}_{side}"] = np.array(place) / 1000 * [sign, 1, 1]
    return positions


@dataclass(frozen=True, eq=False)
class NamedPoints:
    """Points on the skin: P names, vertices (P, 3) of a triangle each and barycentric weights (P, 3)."""

    names: tuple[str, ...]
    vertices: Int
    weights: F64

    def at(self, values: F64, names: Sequence[str] | None = None) -> F64:
        """(P, C) values (V, C) of vertices at the points, or at some of them."""
        chosen = slice(None) if names is None else [self.names.index(name) for name in names]
        result: F64 = np.einsum("pk,pkc->pc", self.weights[chosen], values[self.vertices[chosen]])
        return result


def head_scale(template: F64, points: NamedPoints) -> float:
    """This head's size over that of the reference figures', by the distance of the outer corners of the eyes."""
    left, right = points.at(template, ["lid_outer_corner_left", "lid_outer_corner_right"])
    return float(np.linalg.norm(left - right)) / EYE_CORNERS_APART


def find_points(draft: Draft) -> NamedPoints:
    """The point of the skin nearest to each named place; the right half's are the mirrored left half's."""
    skin = draft.rows("skin")
    mirror = mirrored_vertices(draft)
    facing = vertex_normals(draft.template, draft.triangles)[:, 1]
    triangles = triangulate(draft.quads[draft.parts == "skin"])
    found: dict[str, tuple[Int, F64]] = {}
    for name, place in point_positions().items():
        if name.endswith("_right"):
            continue
        allowed = np.isin(np.arange(len(mirror)), skin)
        for start, sign in _FACING.items():
            if name.startswith(start):
                allowed &= sign * facing > 0
        if name in MIDDLE:
            middle = np.flatnonzero(allowed & (mirror == np.arange(len(mirror))))
            vertex = middle[np.linalg.norm(draft.template[middle] - place, axis=1).argmin()]
            found[name] = np.array([vertex] * 3), np.array([1.0, 0.0, 0.0])
        else:
            near = triangles[allowed[triangles].all(1)]
            found[name] = _nearest_on(draft.template, near, place)
    for name in LEFT:
        vertices, weights = found[f"{name}_left"]
        found[f"{name}_right"] = mirror[vertices], weights
    return NamedPoints(
        tuple(found), np.stack([v for v, _ in found.values()]), np.stack([w for _, w in found.values()])
    )


def _nearest_on(vertices: F64, triangles: Int, place: F64) -> tuple[Int, F64]:
    """Corners and barycentric weights of the point of triangles (F, 3) nearest to a place (3,): that of its triangle's
    plane, or where that is outside, nearly the nearest of its edges."""
    corners = vertices[triangles]
    a, b, c = (corners[:, k] for k in range(3))
    u, v, w = b - a, c - a, place - a
    uu, uv, vv = (u * u).sum(1), (u * v).sum(1), (v * v).sum(1)
    wu, wv = (w * u).sum(1), (w * v).sum(1)
    area = np.maximum(uu * vv - uv * uv, 1e-30)
    second, third = (vv * wu - uv * wv) / area, (uu * wv - uv * wu) / area
    weights = np.clip(np.stack([1 - second - third, second, third], 1), 0, 1)
    weights /= weights.sum(1, keepdims=True)
    best = np.linalg.norm(np.einsum("fk,fkc->fc", weights, corners) - place, axis=1).argmin()
    return triangles[best], weights[best]


def mirrored_vertices(draft: Draft) -> Int:
    """(V,) the vertex at the mirrored place of each of skin and the mouth's cavity; others mirror themselves.

    Found along the quads from an edge in the middle of the face, which a mean face needn't be symmetric for; where the
    mesh isn't the same on both sides, by place.

    Raises:
        AvfaceError: if a vertex has no mirrored one within 5 mm.
    """
    from scipy.optimize import linear_sum_assignment

    rows = draft.rows("skin", "mouth_cavity")
    quads = draft.quads[np.isin(draft.parts, ("skin", "mouth_cavity"))]
    far = draft.template * [-1, 1, 1]
    mirror = _mirrored_along(quads, draft.template)
    known = rows[mirror[rows] >= 0]
    apart = np.linalg.norm(far[known] - draft.template[mirror[known]], axis=1) > 0.005
    mirror[known[apart | (mirror[mirror[known]] != known)]] = -1
    left = rows[mirror[rows] < 0]
    left = np.union1d(left, np.setdiff1d(rows, mirror[rows]))
    cost = np.linalg.norm(far[left][:, None] - draft.template[left][None], axis=2)
    mirror[left] = left[linear_sum_assignment(cost + cost.T)[1]]
    others = np.setdiff1d(np.arange(len(mirror)), rows)
    mirror[others] = others
    distance = np.linalg.norm(far[rows] - draft.template[mirror[rows]], axis=1).max()
    if distance > 0.005:
        raise AvfaceError(f"the head isn't symmetric: a vertex's mirrored one is {distance:.4f} m off")
    return mirror


def _mirrored_along(quads: Int, template: F64) -> Int:
    """(V,) mirrored vertices as far as quads (Q, 4) are the same on both sides of the middle; -1 elsewhere."""
    ring: dict[tuple[int, int], list[int]] = {}
    for quad in quads.tolist():
        face = list(dict.fromkeys(quad))
        for k in range(len(face)):
            ring[face[k], face[(k + 1) % len(face)]] = face[k:] + face[:k]
    front = template[:, 2] > template[:, 2].max() - 0.06
    aside = np.where(front, np.abs(template[:, 0]), 1.0)
    first, second = min(
        ((u, v) for u, v in ring if (v, u) in ring),
        key=lambda edge: (max(aside[edge[0]], aside[edge[1]]) > 0.0015, -template[edge[0], 1]),
    )
    mirror = np.full(len(template), -1)
    mirror[[first, second]] = first, second
    waiting, seen = [(first, second), (second, first)], set()
    while waiting:
        u, v = waiting.pop(0)
        around = ring.get((u, v), [])
        other = ring.get((int(mirror[v]), int(mirror[u])), [])
        if not around or len(around) != len(other) or (u, v) in seen:
            continue
        images = [other[1], other[0], *other[:1:-1]]
        if any(mirror[w] not in (-1, image) for w, image in zip(around, images, strict=True)):
            continue
        mirror[around] = images
        for k in range(len(around)):
            one, two = around[k], around[(k + 1) % len(around)]
            seen.add((one, two))
            waiting.append((two, one))
    return mirror


def distance_to_lids(draft: Draft, points: NamedPoints, ring: tuple[str, ...] = LID_RING) -> F64:
    """(V, 2) metres from the margin of the left and right lids; ring: the part of it to measure from, in order."""
    share = np.linspace(0, 1, 8, endpoint=False)[:, None]
    result = np.empty((len(draft.template), 2))
    for k, side in enumerate(("left", "right")):
        knots = points.at(draft.template, [f"{name}_{side}" for name in ring])
        ends = np.roll(knots, -1, 0) if ring == LID_RING else knots[1:]
        line = np.concatenate([a + share * (b - a) for a, b in zip(knots, ends, strict=False)])
        result[:, k] = np.linalg.norm(draft.template[:, None] - line[None], axis=2).min(1)
    return result


def eye_cavities(draft: Draft, points: NamedPoints) -> Bool:
    """(V,) what lies behind the lids, around the eyeballs."""
    result = np.zeros(len(draft.template), bool)
    for k, side in enumerate(("left", "right")):
        ring = points.at(draft.template, [f"{name}_{side}" for name in LID_RING])
        behind = draft.template[:, 2] < ring[:, 2].min() - 0.004
        near = np.linalg.norm(draft.template - draft.eye_centres[0, k], axis=1) < 0.026
        result |= behind & near
    return result
