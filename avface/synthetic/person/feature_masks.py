"""Facial features in texture space: distances to lips, lids and brows, and soft masks of areas.

Computed from the head's landmarks and regions on its mean shape, once for a head and a resolution. Distances are in
metres on that mean shape.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.spatial import cKDTree

from avface.arrays import F64, Bool, Floats, Int
from avface.geometry.interpolation import smoothstep
from avface.head import schemes as marks
from avface.head.model import HeadModel
from avface.synthetic.person.texture import Texture, TextureAtlas, head_atlas

FAR = 1.0
"""Distance in metres of texels beyond `_REACH`."""
_REACH = 0.05
"""Maximum computed distance to features in metres."""

# indices of MediaPipe landmarks, right side before left side
CHEEKS = np.array([50, 280, 205, 425, 117, 346])
NOSE_TIP = np.array([4, 1, 45, 275])
NOSE_WINGS = np.array([129, 358, 64, 294])
CHIN = np.array([199, 175])
FOREHEAD = np.array([151, 9, 108, 337, 69, 299])
CHEEKBONES = np.array([116, 345, 123, 352, 117, 346])


@dataclass(frozen=True)
class FaceMap:
    """Fields over the texels of the skin, each (N,) unless noted otherwise; N is the number of `texels`."""

    atlas: TextureAtlas
    landmarks: F64
    """(478, 3) on the mean shape, metres."""
    texels: Int
    """Indices of the texels whose triangle is skin, row by row."""
    parts: Int
    """(R * R,) part number of every texel."""
    place: Texture
    """(N, 3) metres on the mean shape."""
    tree: cKDTree
    """Of `place`, for the nearest texels."""
    triangles: F64
    """(F, 3, 3) corners of the skin's triangles on the mean shape."""
    lips: Texture
    """Distance from the lips' outline in metres, negative within."""
    mouth: Texture
    """Distance from the line between the lips, in metres."""
    lids: Texture
    """Distance from the nearer eye's outline in metres, negative within."""
    upper_lid: Texture
    """1 above the eyes' middle line, 0 below it."""
    brow_along: Texture
    """Metres along the nearer brow from its inner end; negative and more than its length beyond its ends."""
    brow_across: Texture
    """Metres above (positive) and below the nearer brow's middle line."""
    brow_length: float
    around: Texture
    """Degrees around the head's upright axis, 0 in front, 180 behind."""
    hairline: Texture
    """Metres above the hairline, negative below it."""
    temple: Texture
    """1 at the corners of the hairline that recede first."""
    beard: Texture
    """1 in the beard area."""
    moustache: Texture
    """1 between nose and upper lip."""
    goatee: Texture
    """1 around mouth and chin, moustache included."""
    ears: Texture
    neck: Texture
    nose: Texture
    cheeks: Texture
    forehead: Texture
    under_eyes: Texture

    def near(self, numbers: Int, radius: float) -> Texture:
        """A soft mask (N,), 1 at landmarks and falling off with the Gaussian of a radius in metres."""
        distance, _ = cKDTree(self.landmarks[numbers]).query(self.place, distance_upper_bound=4 * radius)
        mask: Texture = np.exp(-0.5 * (np.minimum(distance, 9) / radius) ** 2).astype(np.float32)
        return mask


def head_landmarks(head: HeadModel, vertices: Floats) -> F64:
    """The points (478, 3) of MediaPipe's scheme on vertices (V, 3).

    Raises:
        AvfaceError: if the head has no such landmarks.
    """
    return head.embedding("mediapipe478").on(vertices)


@lru_cache(maxsize=4)
def face_map(head: HeadModel, resolution: int) -> FaceMap:
    """The fields of a head; cached.

    Raises:
        AvfaceError: if the head has no landmarks `mediapipe478`.
    """
    atlas = head_atlas(head, resolution)
    template = head.template.cpu().double().numpy()
    points = head_landmarks(head, template)
    parts = head.face_parts[atlas.triangle.ravel()]
    texels = np.flatnonzero(parts == head.part_names.index("skin"))
    place = atlas.bake(template).reshape(-1, 3)[texels]

    def mask(vertices: Bool) -> Texture:
        return atlas.bake(vertices.astype(np.float32)).ravel()[texels]

    none = np.zeros(head.num_vertices, bool)
    ears = head.regions.get("ears", none)
    shells = (
        ears & (np.abs(template[:, 0]) > np.quantile(np.abs(template[ears, 0]), 0.25)) if ears.any() else none
    )
    lips = _signed_distance(place, points[marks.LIPS_OUTER])
    lids = np.minimum(
        _signed_distance(place, points[marks.RIGHT_EYE]), _signed_distance(place, points[marks.LEFT_EYE])
    )
    eyes = {side: points[ring].mean(0) for side, ring in ((-1, marks.RIGHT_EYE), (1, marks.LEFT_EYE))}
    eye_height = np.where(place[:, 0] > 0, eyes[1][1], eyes[-1][1])
    along, across, length = _brow_coordinates(place, points)
    axis = (template[ears, 2].mean() if ears.any() else template[:, 2].mean()) - 0.01
    around = np.degrees(np.arctan2(np.abs(place[:, 0]), place[:, 2] - axis)).astype(np.float32)
    hairline, temple = _hairline(place, around, points, axis, template[ears] if ears.any() else points)
    hairline = np.where(mask(shells) > 0.5, -FAR, hairline).astype(np.float32)
    beard, moustache, goatee = _beard(place, around, points, axis, lips)
    beard *= 1 - mask(shells)
    frontal = (place[:, 2] > axis + 0.02).astype(np.float32)

    def spot(numbers: Int, radius: float) -> Texture:
        distance, _ = cKDTree(points[numbers]).query(place, distance_upper_bound=5 * radius)
        return np.exp(-0.5 * (np.minimum(distance, 9) / radius) ** 2).astype(np.float32)

    rings = np.concatenate([marks.RIGHT_EYE_LOWER, marks.LEFT_EYE_LOWER])
    bags = points[rings] + np.array([0, -0.011, 0])
    under, _ = cKDTree(bags).query(place, distance_upper_bound=_REACH)
    nose = mask(head.regions["nose"]) if "nose" in head.regions else spot(NOSE_TIP, 0.012)
    return FaceMap(
        atlas=atlas,
        landmarks=points,
        texels=texels,
        parts=parts,
        place=place,
        tree=cKDTree(place),
        triangles=template[head.faces.cpu().numpy()[head.face_parts == head.part_names.index("skin")]],
        lips=lips,
        mouth=_distance(place, _smooth(points[marks.LIPS_INNER], closed=True)),
        lids=lids,
        upper_lid=smoothstep(-0.002, 0.002, place[:, 1] - eye_height),
        brow_along=along,
        brow_across=across,
        brow_length=length,
        around=around,
        hairline=hairline,
        temple=temple,
        beard=beard,
        moustache=moustache,
        goatee=goatee,
        ears=mask(shells),
        neck=mask(head.regions.get("neck", none)),
        nose=0.5 * nose * frontal + 0.5 * spot(np.concatenate([NOSE_TIP, NOSE_WINGS]), 0.009),
        cheeks=spot(CHEEKS, 0.014),
        forehead=spot(FOREHEAD, 0.02),
        under_eyes=np.exp(-0.5 * (np.minimum(under, 9) / 0.007) ** 2).astype(np.float32),
    )


def _smooth(line: F64, closed: bool = False, step: float = 0.0003) -> F64:
    """A smooth line (N, 3) through points (K, 3)."""
    line = np.concatenate([line, line[:1]]) if closed else line
    lengths = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
    spline = CubicSpline(lengths, line, bc_type="periodic" if closed else "natural")
    smooth: F64 = spline(np.arange(0, lengths[-1], step))
    return smooth


def _distance(place: Texture, line: F64) -> Texture:
    distance, _ = cKDTree(line).query(place, distance_upper_bound=_REACH)
    return np.minimum(distance, FAR).astype(np.float32)


def _signed_distance(place: Texture, ring: F64) -> Texture:
    """Distance (N,) from a closed line (K, 3), negative inside it as seen from the front."""
    line = _smooth(ring, closed=True)
    distance = _distance(place, line)
    close = np.flatnonzero((distance < FAR) & (place[:, 2] > line[:, 2].min() - 0.015))
    sign = np.ones(len(place), np.float32)
    sign[close[_inside(place[close, :2].astype(np.float64), line[::3, :2])]] = -1
    return distance * sign


def _inside(points: F64, ring: F64) -> Bool:
    """Whether points (N, 2) are inside a polygon (K, 2), by the parity of crossings."""
    odd = np.zeros(len(points), bool)
    for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, 0), strict=True):
        crosses = (y0 > points[:, 1]) != (y1 > points[:, 1])
        if y0 != y1:
            odd ^= crosses & (points[:, 0] < x0 + (points[:, 1] - y0) * (x1 - x0) / (y1 - y0))
    return odd


def _brow_coordinates(place: Texture, points: F64) -> tuple[Texture, Texture, float]:
    """Along and across the nearer brow, each (N,), and the mean length; see `FaceMap`."""
    along = np.full(len(place), -FAR, np.float32)
    across = np.full(len(place), FAR, np.float32)
    lengths = []
    for side, upper, lower in (
        (-1, marks.RIGHT_BROW_UPPER[::-1], marks.RIGHT_BROW_LOWER[::-1]),
        (1, marks.LEFT_BROW_UPPER, marks.LEFT_BROW_LOWER),
    ):
        middle = (points[upper] + points[lower]) / 2
        line = _smooth(middle)
        at = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(line, axis=0), axis=1))])
        lengths.append(at[-1])
        distance, nearest = cKDTree(line).query(place, distance_upper_bound=0.025)
        near = np.flatnonzero((distance < 1) & (np.sign(place[:, 0]) == side))
        offset = place[near] - line[nearest[near]]
        tangent = np.gradient(line, axis=0)[nearest[near]]
        tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
        beyond = (offset * tangent).sum(1)
        along[near] = at[nearest[near]] + beyond
        across[near] = np.sign(offset[:, 1]) * np.sqrt(np.maximum(distance[near] ** 2 - beyond**2, 0))
    return along, across, float(np.mean(lengths))


def _turn(points: F64, axis: float) -> F64:
    turn: F64 = np.degrees(np.arctan2(np.abs(points[..., 0]), points[..., 2] - axis))
    return turn


def _hairline(
    place: Texture, around: Texture, points: F64, axis: float, ears: F64
) -> tuple[Texture, Texture]:
    """Metres (N,) above a hairline from the forehead past the ears to the nape, and its corners (N,)."""
    brow_top, temple, side, front = (points[[low, high]].mean(0) for low, high in
                                     ((10, 10), (54, 284), (162, 389), (234, 454)))  # fmt: skip
    temple[0], side[0], front[0] = (abs(points[n, 0]) for n in (284, 389, 454))
    forehead = brow_top[1] - points[9, 1]
    corner, edge, burn = (float(_turn(p, axis)) for p in (temple, side, front))
    ear_top, ear_low = ears[:, 1].max(), ears[:, 1].min()
    degrees = [0, 0.6 * corner, corner, edge, edge + 6, burn + 8, burn + 14, 84, 106, 116, 140, 180]
    heights = [
        brow_top[1] + 0.75 * forehead,
        brow_top[1] + 0.8 * forehead,
        temple[1] + 0.62 * forehead,
        side[1] + 0.35 * forehead,
        side[1] - 0.1 * forehead,
        front[1],
        front[1] - 0.008,
        ear_top,
        ear_top - 0.01,
        ear_low + 0.01,
        ear_low - 0.008,
        ear_low - 0.012,
    ]
    over = place[:, 1] - np.interp(around, degrees, heights)
    recess = np.exp(-0.5 * ((around - 0.85 * corner) / 9) ** 2)
    return over.astype(np.float32), recess.astype(np.float32)


def _beard(
    place: Texture, around: Texture, points: F64, axis: float, lips: Texture
) -> tuple[Texture, Texture, Texture]:
    """Soft masks (N,) of beard, moustache and goatee."""
    marks_up = points[[2, 423, 426, 427, 411, 401, 447]]
    lifts = np.array([-0.001, -0.004, -0.006, -0.012, -0.014, -0.006, -0.004])
    jaw = points[[152, 377, 378, 365, 397, 288, 361]]
    drops = np.array([0.032, 0.032, 0.032, 0.03, 0.026, 0.02, 0.02])
    burn = float(_turn(points[454], axis))
    up_turn, low_turn = _turn(marks_up, axis), _turn(jaw, axis)
    upper = np.interp(around, [*up_turn, burn + 6], [*(marks_up[:, 1] + lifts), points[454, 1]])
    order = np.argsort(low_turn)
    lower = np.interp(around, low_turn[order], (jaw[:, 1] - drops)[order])
    edge = 0.006
    beard = smoothstep(-edge, edge, upper - place[:, 1]) * smoothstep(-2 * edge, edge, place[:, 1] - lower)
    beard *= smoothstep(burn + 16, burn + 10, around) * smoothstep(0.0, 0.0025, lips)
    mouth = points[marks.LIP_CORNERS_OUTER]
    wide = np.abs(mouth[:, 0]).mean()
    beside = np.abs(place[:, 0])
    front = around < 40
    height = float(mouth[:, 1].mean())
    moustache = (
        beard * smoothstep(-0.004, 0.002, place[:, 1] - height) * smoothstep(wide + 0.008, wide, beside)
    )
    goatee = (
        beard
        * smoothstep(wide + 0.013, wide + 0.005, beside)
        * smoothstep(-0.006, 0.004, place[:, 1] - points[152, 1])
    )
    return beard, (moustache * front).astype(np.float32), (goatee * front).astype(np.float32)
