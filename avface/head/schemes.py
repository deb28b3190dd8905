"""Index tables of the landmark schemes of tracking, solver and evaluation.

Two schemes: `mediapipe478`, the points of MediaPipe's attention mesh (468 of the face, then five of each
iris), and `ibug68`, the 68 points of iBUG 300-W. Right and left are always the subject's.

The conversion to 68 points is the table by P. Yan (Mediapipe_2_Dlib_Landmarks, first version); the eye and
lip rings are ordered so that entry n of an upper ring lies over entry n of the lower one.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from avface.arrays import Int

Real = TypeVar("Real", np.float32, np.float64)

NUM_MEDIAPIPE = 478
"""Points of the MediaPipe scheme: 468 of the face and 10 of the irises."""
NUM_IBUG = 68
"""Points of the iBUG scheme."""
MIN_VISIBLE_SHARE = 0.1
"""Least visible share of a face's landmarks for a frame that shows the face."""

# MediaPipe: lips

LIP_CORNERS_OUTER = np.array([61, 291])
"""Corners of the mouth on the outer ring: right, left."""
LIPS_OUTER_UPPER = np.array([185, 40, 39, 37, 0, 267, 269, 270, 409])
"""Upper edge of the upper lip from right to left, without the corners."""
LIPS_OUTER_LOWER = np.array([146, 91, 181, 84, 17, 314, 405, 321, 375])
"""Lower edge of the lower lip from right to left, without the corners."""
LIP_CORNERS_INNER = np.array([78, 308])
"""Corners of the mouth on the inner ring: right, left."""
LIPS_INNER_UPPER = np.array([191, 80, 81, 82, 13, 312, 311, 310, 415])
"""Lower edge of the upper lip from right to left, without the corners."""
LIPS_INNER_LOWER = np.array([95, 88, 178, 87, 14, 317, 402, 318, 324])
"""Upper edge of the lower lip from right to left, without the corners."""


def _ring(corners: Int, upper: Int, lower: Int) -> Int:
    """Closed ring from the first corner over the upper edge to the second and back along the lower edge."""
    return np.concatenate([corners[:1], upper, corners[1:], lower[::-1]])


LIPS_OUTER = _ring(LIP_CORNERS_OUTER, LIPS_OUTER_UPPER, LIPS_OUTER_LOWER)
"""Outer lip ring (20), from the right corner over the upper lip."""
LIPS_INNER = _ring(LIP_CORNERS_INNER, LIPS_INNER_UPPER, LIPS_INNER_LOWER)
"""Inner lip ring (20), from the right corner over the upper lip."""
LIPS = np.concatenate([LIPS_OUTER, LIPS_INNER])
"""Both rings (40)."""

# MediaPipe: eyes, irises, brows, outline

RIGHT_EYE_CORNERS = np.array([33, 133])
"""Outer, inner."""
RIGHT_EYE_UPPER = np.array([246, 161, 160, 159, 158, 157, 173])
"""Edge of the upper lid, outer to inner."""
RIGHT_EYE_LOWER = np.array([7, 163, 144, 145, 153, 154, 155])
"""Edge of the lower lid, outer to inner."""
LEFT_EYE_CORNERS = np.array([362, 263])
"""Inner, outer."""
LEFT_EYE_UPPER = np.array([398, 384, 385, 386, 387, 388, 466])
"""Edge of the upper lid, inner to outer."""
LEFT_EYE_LOWER = np.array([382, 381, 380, 374, 373, 390, 249])
"""Edge of the lower lid, inner to outer."""
RIGHT_EYE = _ring(RIGHT_EYE_CORNERS, RIGHT_EYE_UPPER, RIGHT_EYE_LOWER)
"""Ring of the right eye's lids (16), from the outer corner over the upper lid."""
LEFT_EYE = _ring(LEFT_EYE_CORNERS, LEFT_EYE_UPPER, LEFT_EYE_LOWER)
"""Ring of the left eye's lids (16), from the inner corner over the upper lid."""

RIGHT_IRIS = np.array([468, 469, 470, 471, 472])
"""Centre, then four points on the edge: towards the subject's left, up, right, down in the picture."""
LEFT_IRIS = np.array([473, 474, 475, 476, 477])
"""Centre, then four points on the edge: towards the subject's left, up, right, down in the picture."""
IRISES = np.concatenate([RIGHT_IRIS, LEFT_IRIS])
"""The points of both irises (10)."""

RIGHT_BROW_UPPER = np.array([70, 63, 105, 66, 107])
"""Upper edge, outer to inner."""
RIGHT_BROW_LOWER = np.array([46, 53, 52, 65, 55])
"""Lower edge, outer to inner."""
LEFT_BROW_UPPER = np.array([336, 296, 334, 293, 300])
"""Upper edge, inner to outer."""
LEFT_BROW_LOWER = np.array([285, 295, 282, 283, 276])
"""Lower edge, inner to outer."""

FACE_OVAL = np.array(
    [10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377, 152,
     148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109]
)  # fmt: skip
"""Outline (36), from the top of the forehead down the left side to the chin and up the right side. On the
far side of a turned head these points follow the silhouette instead of one place on the skin."""

# iBUG

IBUG_CONTOUR = np.arange(0, 17)
"""Jaw from the right ear over the chin to the left ear."""
IBUG_RIGHT_BROW = np.arange(17, 22)
"""Outer to inner."""
IBUG_LEFT_BROW = np.arange(22, 27)
"""Inner to outer."""
IBUG_NOSE = np.arange(27, 36)
"""Bridge from the top to the tip (4), then the nostrils from right to left (5)."""
IBUG_RIGHT_EYE = np.arange(36, 42)
"""Ring from the outer corner over the upper lid."""
IBUG_LEFT_EYE = np.arange(42, 48)
"""Ring from the inner corner over the upper lid."""
IBUG_LIPS_OUTER = np.arange(48, 60)
"""Ring from the right corner over the upper lip."""
IBUG_LIPS_INNER = np.arange(60, 68)
"""Ring from the right corner over the upper lip."""

_IBUG_FROM_MEDIAPIPE: tuple[int | tuple[int, int], ...] = (
    127, 234, 93, (132, 58), (58, 172), 136, 150, 176, 152, 400, 379, 365, (397, 288), 361, 323, 454, 356,
    70, 63, 105, 66, 107, 336, 296, 334, 293, 300,
    (168, 6), (197, 195), 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91,
    78, 82, 13, 312, 308, 317, 14, 87,
)  # fmt: skip

IBUG68_FROM_MEDIAPIPE = np.array(
    [entry if isinstance(entry, tuple) else (entry, entry) for entry in _IBUG_FROM_MEDIAPIPE]
)
"""(68, 2): each iBUG point is the mean of these two MediaPipe points, mostly the same one twice."""


def ibug68_from_mediapipe(points: npt.NDArray[Real]) -> npt.NDArray[Real]:
    """The 68 iBUG points that belong to MediaPipe points.

    Shapes: points (..., 478, D) -> (..., 68, D), of the same type; nan stays nan. 468 points without irises
    are accepted. The two schemes mark slightly different places, most on contour and brows, so that converted points
    should only be compared with converted ones.

    Raises:
        ValueError: if the last axis but one is neither 478 nor 468 long.
    """
    if points.ndim < 2 or points.shape[-2] not in (478, 468):
        raise ValueError(f"points of shape {points.shape} must be (..., 478, D) in MediaPipe's scheme")
    first, second = IBUG68_FROM_MEDIAPIPE.T
    mean: npt.NDArray[Real] = points.dtype.type(0.5) * (points[..., first, :] + points[..., second, :])
    return mean
