"""Measures of a face's landmarks in a picture: its size, and the opening of its mouth.

T frames, L landmarks; nan marks a frame without a face and stays nan.
"""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Floats
from avface.head.schemes import LIPS_INNER_LOWER, LIPS_INNER_UPPER, NUM_IBUG, NUM_MEDIAPIPE

_MIDDLE = len(LIPS_INNER_UPPER) // 2
INNER_LIP_CENTRES = int(LIPS_INNER_UPPER[_MIDDLE]), int(LIPS_INNER_LOWER[_MIDDLE])
"""MediaPipe's landmarks in the middle of the inner edge of the upper and of the lower lip."""
_INNER_LIPS = {
    NUM_MEDIAPIPE: INNER_LIP_CENTRES,
    NUM_IBUG: (62, 66),
}
"""By number of landmarks: the middle of the inner edge of the upper and of the lower lip."""


def box_size(points: Floats) -> F64:
    """Size of a face in each frame: sqrt(w h) of the box of its points.

    Shapes: points (T, L, 2) pixels -> (T,) pixels.
    Source: the normaliser of 3DDFA's AFLW2000 protocol (Zhu et al., CVPR 2016; `benchmark_aflw2000.py`).

    Raises:
        ValueError: if the points aren't (T, L, 2), or a frame's lie on one line, so that its box has no area.
    """
    if points.ndim != 3 or points.shape[2] != 2:
        raise ValueError(f"points of shape {points.shape} must be (T, L, 2)")
    extent = np.asarray(points.max(1) - points.min(1), np.float64)
    if (extent == 0).any():
        raise ValueError(f"frame {int((extent == 0).any(1).argmax())}: the points' box has no area")
    return np.sqrt(extent[:, 0] * extent[:, 1])


def mouth_opening(points: Floats, size: Floats) -> F64:
    """Distance between the middles of the inner lips over the face's size, in each frame.

    Shapes: points (T, 478 or 68, D), size (T,) in the same unit -> (T,). MediaPipe's points 13 and 14, iBUG's
            62 and 66.
    Source: the opening of DiffPoseTalk's mouth opening difference (Sun et al., SIGGRAPH 2024).

    Raises:
        ValueError: if there are neither 478 nor 68 points.
    """
    if points.ndim != 3 or points.shape[1] not in _INNER_LIPS:
        raise ValueError(f"points of shape {points.shape} must be (T, 478, D) or (T, 68, D)")
    upper, lower = _INNER_LIPS[points.shape[1]]
    gap = np.linalg.norm(np.asarray(points[:, upper], np.float64) - points[:, lower], axis=-1)
    return gap / np.asarray(size, np.float64)
