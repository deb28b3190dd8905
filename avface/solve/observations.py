"""Observations of one person in a clip, and statistics of them that need no fit: visibility, jitter, key frames."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from avface.arrays import F64, Floats, Int, Ints
from avface.solve.prediction import Prediction

MAX_JITTER_STEP = 0.055
"""Seconds. At longer steps, differences between frames are dominated by motion rather than by tracker jitter."""


class FrameArray(Protocol):
    """An array of frames in memory or on disk."""

    def __getitem__(self, key: Any, /) -> Any:
        """A frame's array by its number, or those of a slice of frames."""


@dataclass(frozen=True)
class LandmarkCorrections:
    """Corrections of tracked landmarks in K frames, estimated from the picture.

    frames (K,) their numbers, ascending; offsets (K, L, 2) pixels from tracked to corrected places; weights (K, L) in
    [0, 1].
    """

    frames: Int
    offsets: Floats
    weights: Floats

    def among(self, frames: Int) -> LandmarkCorrections:
        """The corrections of those frames that are among the given ones."""
        rows = np.isin(self.frames, frames)
        return LandmarkCorrections(self.frames[rows], self.offsets[rows], self.weights[rows])


@dataclass(frozen=True)
class Observations:
    """Tracked landmarks of one person in T frames.

    landmarks (T, L, 2) pixels, nan in frames without a face (an array, or an object that returns arrays for a frame and
    for a slice of frames, such as one on disk: only a few windows are read at a time), confidence (T,) in [0, 1], times
    (T,) seconds, segments (T,) numbers of the segments between shot cuts, visibility (T, L) in [0, 1] the probability
    that each landmark is visible, which weights it (an array or an object like that of the landmarks; None: all 1),
    corrections of some frames' landmarks, from which the shape is estimated, and the distributions of expression
    weights that are read off the picture, each of which counts as far as what its unit moves is visible.
    """

    landmarks: FrameArray
    confidence: Floats
    times: Floats
    segments: Ints
    visibility: FrameArray | None = None
    corrections: LandmarkCorrections | None = None
    units: Prediction | None = None

    def visible_share(self, block: int = 1024) -> F64:
        """Mean visibility (T,) of each frame's landmarks, 0 without a face; `block` frames are read at a time."""
        share = (np.asarray(self.confidence) > 0).astype(np.float64)
        if self.visibility is not None:
            for start in range(0, len(share), block):
                here = slice(start, start + block)
                share[here] *= np.asarray(self.visibility[here]).mean(1)
        return share

    def jitter(self, among: Int, samples: int = 256) -> float:
        """Standard deviation of the tracker's frame-to-frame noise in each coordinate, as a share of the face's size,
        among frames of these numbers.

        Estimated from the median second difference over landmarks and up to `samples` frames, in which motion is small.
        """
        joined = (np.diff(among) == 1) & (np.diff(np.asarray(self.times)[among]) < MAX_JITTER_STEP)
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
        """At most `count` frames that differ most in pose and expression (farthest point sampling), among at most 512
        of these numbers spread over the clip; and the number of those frames that are nearest to each."""
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
