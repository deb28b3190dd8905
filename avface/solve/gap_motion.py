"""How this person's head moves on where it isn't seen: chosen by the clip's own seen frames.

Between the frames before and after a gap, a head may go on with its velocity (a smooth curve) or wander about (the
straight line is the better guess): speakers differ. Both are minima of the same sum of squared first and second
differences, with other weights. Gaps as long as the clip's own are made in frames in which the face is seen, and the
weights that fill them best are taken.
"""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Bool, Int, Ints, runs
from avface.solve.fit_data import FitData

USUAL_DRIFT = 4.0
"""Standard deviation of the first difference as a multiple of the second's, for clips with too few seen frames: on six
clips with gaps of 0.5 and 1.2 s, its error is 0.98 of the straight line's, that of a curve without drift 1.08."""
DRIFTS = (1.5, 2.5, USUAL_DRIFT, 8.0, 30.0)
"""What is chosen from: the first nearly makes straight lines, the last smooth curves."""
MARGIN = 12
"""Frames before and after a gap that it is filled from."""
LEAST_MARGIN = 4
"""As many are enough."""
LONGEST = 50
"""Frames of the longest gap that is tried; for longer ones the drift is that of this one."""
MOST_TRIALS = 32
"""Most gaps that are made for one length."""
LEAST_TRIALS = 8
"""Fewest gaps for which anything but the usual drift is chosen."""
POINTS = 12
"""One of so many landmarks is used."""
NOISE = 0.3
"""Standard deviation of the landmarks as a multiple of that of their second difference: a seen frame is a little
smoothed, as in the fit."""


def gap_drifts(data: FitData) -> F64:
    """Drift (T - 1,) of the pose from each frame to the next; nan where both are seen."""
    observations = data.observations
    frames = len(observations.times)
    drifts = np.full(max(frames - 1, 0), np.nan)
    seen = np.zeros(frames, bool)
    seen[data.pose_frames] = True
    segments = np.asarray(observations.segments)
    chosen: dict[int, float] = {}
    for start, end in runs(~seen):
        length = min(end - start, LONGEST)
        if length not in chosen:
            chosen[length] = best_drift(data, seen, segments, length)
        drifts[max(start - 1, 0) : end] = chosen[length]
    return drifts


def best_drift(data: FitData, seen: Bool, segments: Ints, length: int) -> float:
    """The drift that fills gaps of `length` frames best, made in frames (T,) that are seen, in one shot."""
    errors: list[F64] = []
    for first, last, margin in _trials(seen, segments, length):
        points = data.landmarks(np.arange(first, last)).cpu().double().numpy()[:, ::POINTS]
        gap = slice(margin, margin + length)
        truth = points[gap]
        filled = fill_gap(points.reshape(last - first, -1), gap)
        size = np.sqrt(np.ptp(points[0], axis=0).prod())
        difference = filled.reshape(len(DRIFTS), length, -1, 2) - truth
        errors.append(np.linalg.norm(difference, axis=-1).mean((1, 2)) / size)
    if len(errors) < LEAST_TRIALS:
        return USUAL_DRIFT
    return DRIFTS[int(np.mean(errors, axis=0).argmin())]


def fill_gap(values: F64, gap: slice) -> F64:
    """Values (N, D) within a gap (L frames) from those around it, for each of `DRIFTS`: (len(DRIFTS), L, D)."""
    frames = len(values)
    first, second = np.diff(np.eye(frames), axis=0), np.diff(np.eye(frames), 2, axis=0)
    known = np.full(frames, NOISE**-2)
    known[gap] = 0
    result = [
        np.linalg.solve(
            np.diag(known) + second.T @ second + first.T @ first / drift**2, known[:, None] * values
        )[gap]
        for drift in DRIFTS
    ]
    return np.stack(result)


def _trials(seen: Bool, segments: Ints, length: int) -> list[tuple[int, int, int]]:
    """First frame, one past the last, and margin of stretches of seen frames for gaps of `length` frames."""
    trials: list[tuple[int, int, int]] = []
    for start, end in runs(seen):
        cuts = start + 1 + np.flatnonzero(np.diff(segments[start:end]))
        for first, last in zip([start, *cuts], [*cuts, end], strict=True):
            margin = min((last - first - length) // 2, MARGIN)
            if margin >= LEAST_MARGIN:
                whole = length + 2 * margin
                trials += [(int(at), int(at) + whole, margin) for at in range(first, last - whole + 1, 2)]
    places: Int = np.linspace(0, len(trials) - 1, min(len(trials), MOST_TRIALS)).round().astype(int)
    return [trials[place] for place in places]
