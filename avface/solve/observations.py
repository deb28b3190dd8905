"""What was seen of one person in a clip, and what can be said of it before anything is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from avface.arrays import F64, Floats, Int, Ints

LONGEST_STEP = 0.055
"""Seconds between frames beyond which their differences are motion rather than the tracker's jitter."""


class FrameArray(Protocol):
    """Arrays in memory and on disk."""

    def __getitem__(self, key: Any, /) -> Any:
        """A frame's array by its number, or those of a slice of frames."""


@dataclass(frozen=True)
class LandmarkCorrections:
    """How far landmarks are off in K frames, as somebody says who looked at the picture.

    frames (K,) their numbers, ascending; offsets (K, L, 2) pixels from where landmarks were tracked to where they
    should be; weights (K, L) in [0, 1] as far as each counts.
    """

    frames: Int
    offsets: Floats
    weights: Floats

    def among(self, frames: Int) -> LandmarkCorrections:
        """At those of these frames that were looked at."""
        rows = np.isin(self.frames, frames)
        return LandmarkCorrections(self.frames[rows], self.offsets[rows], self.weights[rows])


@dataclass(frozen=True)
class Observations:
    """What was seen of one person in T frames.

    landmarks (T, L, 2) pixels, nan in frames without a face (an array, or what gives arrays for a frame and for a slice
    of frames, such as one that lies on disk: only a few windows are asked for at a time), confidence (T,) in [0, 1],
    times (T,) seconds, segments (T,) numbers of the stretches between shot cuts, visibility (T, L) in [0, 1] how likely
    each landmark is to be seen (an array or something like it, as for landmarks; None: all are), by which it counts,
    closer what a closer look at some frames said, by which the shape is read.
    """

    landmarks: FrameArray
    confidence: Floats
    times: Floats
    segments: Ints
    visibility: FrameArray | None = None
    closer: LandmarkCorrections | None = None

    def shown(self, block: int = 1024) -> F64:
        """Share (T,) of the landmarks that can be seen in each frame; `block` frames are read at a time."""
        shown = (np.asarray(self.confidence) > 0).astype(np.float64)
        if self.visibility is not None:
            for start in range(0, len(shown), block):
                here = slice(start, start + block)
                shown[here] *= np.asarray(self.visibility[here]).mean(1)
        return shown

    def jitter(self, among: Int, samples: int = 256) -> float:
        """Standard deviation of the tracker's noise from frame to frame in each coordinate, as a share of the face's
        size, among frames of these numbers.

        The median second difference over points and up to `samples` places in the clip: motion has little of it.
        """
        joined = (np.diff(among) == 1) & (np.diff(np.asarray(self.times)[among]) < LONGEST_STEP)
        middle = among[1:-1][joined[1:] & joined[:-1]]
        if not len(middle):
            return 0.0
        chosen = middle[np.linspace(0, len(middle) - 1, min(len(middle), samples)).astype(int)]
        differences = []
        for frame in chosen:
            before, at, after = np.asarray(self.landmarks[frame - 1 : frame + 2], np.float64)
            size = np.sqrt(np.ptp(at, axis=0).prod())
            differences.append(np.median(np.linalg.norm(after - 2 * at + before, axis=1)) / size)
        # Of a second difference the variance is 6 times that of its terms; 1.1774 is the median of a Rayleigh
        # distribution.
        return float(np.median(differences) / (np.sqrt(6) * 1.1774))

    def key_frames(self, among: Int, count: int) -> tuple[Int, Int]:
        """At most `count` frames that differ most in pose and expression, among at most 512 of these numbers spread
        over the clip, and to how many of those each is the most similar one."""
        if len(among) <= count:
            return among, np.ones(len(among), np.int64)
        candidates = among[np.linspace(0, len(among) - 1, min(len(among), 512)).round().astype(int)]
        candidates = np.unique(candidates)
        points = np.stack([self.landmarks[f] for f in candidates]).astype(np.float64)
        points = points - points.mean(1, keepdims=True)
        points = (points / np.linalg.norm(points, axis=(1, 2), keepdims=True)).reshape(len(points), -1)
        weight = np.asarray(self.confidence)[candidates]
        chosen = [int(np.argmin(np.linalg.norm(points - np.median(points, 0), axis=1)))]
        distance = np.full(len(points), np.inf)
        nearest = np.zeros(len(points), np.int64)
        while True:
            to_last = np.linalg.norm(points - points[chosen[-1]], axis=1)
            nearest[to_last < distance] = chosen[-1]
            distance = np.minimum(distance, to_last)
            if len(chosen) == count:
                break
            chosen.append(int(np.argmax(distance * weight)))
        numbers = np.unique(chosen)
        return candidates[numbers], np.maximum((nearest[:, None] == numbers).sum(0), 1)
