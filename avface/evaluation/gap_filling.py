"""What to say about landmarks that something hides, without a head model: the baselines of the occlusion protocol.

T frames, L landmarks. Each takes the tracker's points on the occluded video and the frames whose points are good,
leaves those as they are, and fills in the others.
"""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Bool, Floats, Int

FEWEST_ANCHORS = 12
"""Floats that a motion is fitted to, at least; with fewer the last motion goes on."""


def hold(points: Floats, good: Bool) -> F64:
    """The last good frame's points, standing still in the picture; before the first good frame, that one's.

    Shapes: points (T, L, 2) pixels, good (T,) -> (T, L, 2).

    Raises:
        ValueError: if no frame is good.
    """
    return np.asarray(points, np.float64)[_last_good(good)]


def interpolate(points: Floats, good: Bool, times: Floats) -> F64:
    """Straight lines from the last good frame's points to the next one's; it looks into the future.

    Shapes: points (T, L, 2) pixels, good (T,), times (T,) seconds -> (T, L, 2). Before the first and after the last
            good frame the points stay.

    Raises:
        ValueError: if no frame is good.
    """
    rows = _rows(good)
    points = np.asarray(points, np.float64)
    after = np.clip(np.searchsorted(rows, np.arange(len(good))), 0, len(rows) - 1)
    before = np.clip(np.searchsorted(rows, np.arange(len(good)), side="right") - 1, 0, len(rows) - 1)
    first, second = rows[before], rows[after]
    span = np.asarray(times, np.float64)[second] - times[first]
    share = np.where(span > 0, (times - times[first]) / np.where(span > 0, span, 1), 0.0)[:, None, None]
    return (1 - share) * points[first] + share * points[second]


def carry(points: Floats, good: Bool, visible: Bool) -> F64:
    """The last good frame's points, carried along with what is still seen of the face.

    A similarity in the picture (shift, turn, scale) is fitted from the last good frame to the visible points; those
    stay where the tracker sees them, the others move with it.

    Shapes: points (T, L, 2) pixels, nan where the tracker lost the face; good (T,); visible (T, L) the points that are
            believed in the frames that aren't good -> (T, L, 2).

    Raises:
        ValueError: if no frame is good.
    """
    points = np.asarray(points, np.float64)
    source = _last_good(good)
    result = points[source]
    turn, shift, fitted_to = complex(1), complex(0), -1
    for frame in np.flatnonzero(~good):
        if source[frame] != fitted_to:
            turn, shift, fitted_to = complex(1), complex(0), source[frame]
        before, now = points[source[frame]], points[frame]
        seen = visible[frame] & np.isfinite(now).all(-1)
        if seen.sum() >= FEWEST_ANCHORS:
            turn, shift = _similarity(before[seen], now[seen])
        else:
            seen = np.zeros_like(seen)
        moved = turn * (before[:, 0] + 1j * before[:, 1]) + shift
        result[frame] = np.where(seen[:, None], now, np.stack([moved.real, moved.imag], -1))
    return result


def _similarity(source: F64, target: F64) -> tuple[complex, complex]:
    """Factor a and shift b of the least squares z -> a z + b between points (N, 2) taken as complex numbers."""
    one, other = source @ [1, 1j], target @ [1, 1j]
    centred = one - one.mean()
    factor = np.vdot(centred, other - other.mean()) / max(np.vdot(centred, centred).real, 1e-12)
    return complex(factor), complex(other.mean() - factor * one.mean())


def _rows(good: Bool) -> Int:
    rows = np.flatnonzero(good)
    if not len(rows):
        raise ValueError("no frame is good: there is nothing to fill gaps with")
    return rows


def _last_good(good: Bool) -> Int:
    """(T,) the last good frame up to each frame, or the first one there is."""
    rows = _rows(good)
    return np.asarray(rows[np.clip(np.searchsorted(rows, np.arange(len(good)), side="right") - 1, 0, None)])
