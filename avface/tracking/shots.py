"""Detection of shot cuts, from thumbnails of the frames.

A cut is a lasting change: each of the last three frames before it differs from each of the three after it, so that
flashes and black frames are none. Thumbnails are normalised for brightness and contrast, so that exposure steps are
none; a change that a shift of the image explains is a pan; and where many edges persist, something moved before the
scene.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import numpy as np

from avface.arrays import F32, U8

_SAMPLES = 72
"""Pixels sampled along the shorter side; four by four of them make one cell of the thumbnail."""
_MIN_CONTRAST = 3.0
"""Grey levels (root mean square) below which an image counts as flat, so that noise is not amplified."""
_CERTAIN = 0.25
"""Change (1 - correlation, half for a change to or from a flat image) above all motion within a shot."""
_POSSIBLE = 0.01
"""Change below which not even a jump of the face makes a cut."""
_ABOVE_RECENT = 6.0
"""A possible cut changes the image by this multiple of the recent median."""
_RECENT = 12
"""Frames of the recent past."""
_CONTEXT = 3
"""Frames compared on either side."""
_SAME_SCENE = 0.2
"""Share of persisting edges from which on the scene is the same, with something coming before it or going away: 0.3 to
0.7 when large things do so from one frame to the next, 0.11 at most between frames of different real videos."""
_EDGE = 0.5
"""Least height of an edge, over the root mean square of a thumbnail's values."""
_SAME_EDGE = 0.35
"""Largest change of a persisting edge, as a share of its height."""
_GAINS = (0.7, 0.85, 1.0, 1.18, 1.4)
"""Changes of contrast that are tried: normalisation depends on everything in the image."""
_MAX_SHIFT = 4
"""Largest shift between two frames that counts as a pan, in cells (of about 18 along the shorter side)."""


class Change(enum.IntEnum):
    """Evidence of the images alone for a cut just before a frame."""

    NONE = 0
    PARTIAL = 1
    """Of a part of the image: something comes before the scene or goes away, unless the face jumps and is still the
    same person's."""
    POSSIBLE = 2
    """Less than a change of scene; a cut if the face jumps as well."""
    CERTAIN = 3
    """Another scene; a cut unless the face moves on smoothly (a slide that changes behind a speaker)."""


class HasImage(Protocol):
    """Anything with an image."""

    @property
    def image(self) -> U8:
        """(H, W, 3) uint8 RGB."""


FrameT = TypeVar("FrameT", bound=HasImage)


def thumbnail(image: U8) -> F32:
    """A small copy of an image, normalised for exposure: about 18 cells on the shorter side, zero mean, unit norm.

    Shapes: image (H, W, 3) uint8 -> (h, w, 3) float32. A flat image becomes nearly zero.
    """
    step = max(1, min(image.shape[:2]) // _SAMPLES)
    cells = image[::step, ::step].astype(np.float32)
    for axis in (0, 1):  # adding slices is several times faster than a mean over axes of four
        count = cells.shape[axis] // 4
        if count:
            quarters = [np.take(cells, range(at, 4 * count, 4), axis) for at in range(4)]
            cells = quarters[0] + quarters[1] + quarters[2] + quarters[3]
    cells -= cells.mean(axis=(0, 1))
    floor = 16 * _MIN_CONTRAST * math.sqrt(cells.size)
    return np.asarray(cells / max(math.sqrt(float(np.vdot(cells, cells))), floor), dtype=np.float32)


def difference(one: F32, other: F32) -> float:
    """Change between two thumbnails: 0 for equal, 0.5 against a flat one, 1 for unrelated, 2 for inverted ones."""
    if one.shape != other.shape:
        return 1.0
    change = (one - other).ravel()
    return float(np.dot(change, change)) / 2


def shifted_difference(one: F32, other: F32) -> float:
    """The least change over shifts of up to four cells, as 1 - correlation of the overlap."""
    if one.shape != other.shape:
        return 1.0
    height, width = one.shape[:2]
    reach_y, reach_x = min(_MAX_SHIFT, height // 3), min(_MAX_SHIFT, width // 3)
    best = difference(one, other)
    for dy in range(-reach_y, reach_y + 1):
        for dx in range(-reach_x, reach_x + 1):
            a = one[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)]
            b = other[max(-dy, 0) : height + min(-dy, 0), max(-dx, 0) : width + min(-dx, 0)]
            a, b = a - a.mean(axis=(0, 1)), b - b.mean(axis=(0, 1))
            norm = float(np.linalg.norm(a) * np.linalg.norm(b))
            if norm > 0.05:  # overlaps without structure are no evidence
                best = min(best, 1 - float(np.sum(a * b)) / norm)
    return best


def unchanged_share(one: F32, other: F32) -> float:
    """Share of the edges of two thumbnails that persist, invariant to brightness and contrast.

    Edges are differences of neighbouring cells that are strong in one of the two; the largest share over `_GAINS`.
    """
    if one.shape != other.shape:
        return 0.0
    steps = [
        np.concatenate([np.diff(cells, axis=axis).reshape(-1, 3) for axis in (0, 1)])
        for cells in (one, other)
    ]
    heights = [np.linalg.norm(step, axis=1) for step in steps]
    strong = np.maximum(*heights) > _EDGE / math.sqrt(one.size)
    if not strong.any():
        return 0.0
    (a, b), (size_a, size_b) = ([each[strong] for each in both] for both in (steps, heights))
    alike = [
        np.linalg.norm(gain * a - b, axis=1) < _SAME_EDGE * np.maximum(gain * size_a, size_b)
        for gain in _GAINS
    ]
    return float(np.mean(alike, axis=1).max())


class ShotDetector:
    """Classifies the boundary between frames, relative to the recent changes."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def classify(self, before: list[F32], after: list[F32]) -> Change:
        """The change between the last of `before` and the first of `after`, given up to three thumbnails each."""
        step = difference(before[-1], after[0])
        least = _CERTAIN
        if len(self._recent) >= _RECENT // 3:
            least = min(least, max(_POSSIBLE, _ABOVE_RECENT * sorted(self._recent)[len(self._recent) // 2]))
        if step <= least:
            self._recent.append(step)
            return Change.NONE
        lasting = min(difference(a, b) for a in before[-_CONTEXT:] for b in after[:_CONTEXT])
        result = Change.NONE
        if lasting > least:
            same_scene = unchanged_share(before[-1], after[0]) >= _SAME_SCENE
            result = Change.PARTIAL if same_scene else Change.POSSIBLE
        if (
            result is Change.POSSIBLE
            and lasting > _CERTAIN
            and shifted_difference(before[-1], after[0]) > _CERTAIN
        ):
            result = Change.CERTAIN
        if result is Change.CERTAIN:
            self._recent.clear()
        else:
            self._recent.append(step)
        return result


def with_changes(frames: Iterable[FrameT]) -> Iterator[tuple[FrameT, Change]]:
    """Yield frames, each with the evidence for a cut just before it; reads two frames ahead."""
    detector = ShotDetector()
    before: list[F32] = []
    waiting: deque[tuple[FrameT, F32]] = deque()

    def classified() -> tuple[FrameT, Change]:
        nonlocal before
        change = detector.classify(before, [small for _, small in waiting]) if before else Change.NONE
        frame, small = waiting.popleft()
        before = [small] if change is Change.CERTAIN else [*before[1 - _CONTEXT :], small]
        return frame, change

    for frame in frames:
        waiting.append((frame, thumbnail(frame.image)))
        if len(waiting) == _CONTEXT:
            yield classified()
    while waiting:
        yield classified()
