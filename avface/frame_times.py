"""The nominal frame rate of given frame times."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

SAME_INTERVAL = 2e-3
"""Seconds within which two intervals count as equal; Matroska rounds its time stamps to milliseconds."""

JITTER = 0.15
"""Share by which an interval of the nominal rate may differ from the others: less than between 25 and 30 a second."""


def nominal_frame_rate(times: npt.NDArray[np.floating[Any]]) -> float:
    """Frames per second of the most frequent interval between frames, whatever pauses and lost frames lie between.

    The mode of the intervals is where most of them lie within `SAME_INTERVAL` (the shortest such, if several); the rate
    is that of the mean of all intervals near it, so that rounded and jittering time stamps average out. The mean over
    the whole clip would count a pause of two seconds as slower frames.

    times: (T,) seconds, increasing. 0 if fewer than two frames have different times.
    """
    intervals = np.diff(np.sort(np.asarray(times, np.float64)))
    intervals = np.sort(intervals[intervals > 0])
    if not len(intervals):
        return 0.0
    ends = np.searchsorted(intervals, intervals + SAME_INTERVAL, side="right")
    first = int(np.argmax(ends - np.arange(len(intervals))))
    interval = float(np.median(intervals[first : ends[first]]))
    for _ in range(10):  # to the middle of the intervals near it (mean shift)
        reach = max(JITTER * interval, SAME_INTERVAL / 2)
        interval = float(intervals[np.abs(intervals - interval) <= reach].mean())
    return 1.0 / interval
