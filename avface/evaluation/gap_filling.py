"""Baselines of the occlusion protocol: occluded landmarks filled in without a head model.

T frames, L landmarks. Each baseline takes the landmarks tracked on the occluded video and a mask of the frames in which
they are valid; valid frames stay unchanged, the others are filled in.
"""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Bool, Floats, Int

MIN_ANCHORS = 12
"""Minimum number of visible points that a motion is fitted to; with fewer the last motion is kept."""


def hold(points: Floats, valid: Bool) -> F64:
    """Zero-order hold: the points of the last valid frame; before the first valid frame, the points of that one.

    Shapes: points (T, L, 2) pixels, valid (T,) -> (T, L, 2).

    Raises:
        ValueError: if no frame is valid.
    """
    return np.asarray(points, np.float64)[_last_valid(valid)]


def interpolate(points: Floats, valid: Bool, times: Floats) -> F64:
    """Linear interpolation between the last and the next valid frame; not causal.

    Shapes: points (T, L, 2) pixels, valid (T,), times (T,) seconds -> (T, L, 2). Before the first and after the last
            valid frame the points are constant.

    Raises:
        ValueError: if no frame is valid.
    """
    rows = _rows(valid)
    points = np.asarray(points, np.float64)
    after = np.clip(np.searchsorted(rows, np.arange(len(valid))), 0, len(rows) - 1)
    before = np.clip(np.searchsorted(rows, np.arange(len(valid)), side="right") - 1, 0, len(rows) - 1)
    first, second = rows[before], rows[after]
    span = np.asarray(times, np.float64)[second] - times[first]
    share = np.where(span > 0, (times - times[first]) / np.where(span > 0, span, 1), 0.0)[:, None, None]
    return (1 - share) * points[first] + share * points[second]


def carry(points: Floats, valid: Bool, visible: Bool) -> F64:
    """The points of the last valid frame, moved with the visible part of the face.

    A 2D similarity transform (translation, rotation, scale) is fitted from the last valid frame to the visible points.
    Visible points keep their tracked positions, the others are transformed.

    Shapes: points (T, L, 2) pixels, nan where the tracker lost the face; valid (T,); visible (T, L) the points whose
            tracked positions are used in the frames that aren't valid -> (T, L, 2).

    Raises:
        ValueError: if no frame is valid.
    """
    points = np.asarray(points, np.float64)
    source = _last_valid(valid)
    result = points[source]
    turn, shift, fitted_to = complex(1), complex(0), -1
    for frame in np.flatnonzero(~valid):
        if source[frame] != fitted_to:
            turn, shift, fitted_to = complex(1), complex(0), source[frame]
        before, now = points[source[frame]], points[frame]
        seen = visible[frame] & np.isfinite(now).all(-1)
        if seen.sum() >= MIN_ANCHORS:
            turn, shift = _similarity(before[seen], now[seen])
        else:
            seen = np.zeros_like(seen)
        moved = turn * (before[:, 0] + 1j * before[:, 1]) + shift
        result[frame] = np.where(seen[:, None], now, np.stack([moved.real, moved.imag], -1))
    return result


def _similarity(source: F64, target: F64) -> tuple[complex, complex]:
    """Least-squares similarity z -> a z + b between points (N, 2) as complex numbers: factor a and shift b."""
    one, other = source @ [1, 1j], target @ [1, 1j]
    centred = one - one.mean()
    factor = np.vdot(centred, other - other.mean()) / max(np.vdot(centred, centred).real, 1e-12)
    return complex(factor), complex(other.mean() - factor * one.mean())


def _rows(valid: Bool) -> Int:
    rows = np.flatnonzero(valid)
    if not len(rows):
        raise ValueError("no valid frame to fill gaps from")
    return rows


def _last_valid(valid: Bool) -> Int:
    """(T,) the last valid frame up to each frame; the first valid one before it."""
    rows = _rows(valid)
    return np.asarray(rows[np.clip(np.searchsorted(rows, np.arange(len(valid)), side="right") - 1, 0, None)])
