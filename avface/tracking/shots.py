"""Shot cuts, from thumbnails of the picture.

A cut is a change that stays: every one of the last three pictures before it differs from every one of the
three after it, so a flash or a black frame is none. Brightness and contrast are taken out before comparing,
so exposure steps are none; a change that a shift of the picture explains is a pan, none either; and where
much of the picture stays as it is, something came before the scene.
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
"""Grey levels (root mean square) below which a picture counts as flat: noise is not blown up into
structure."""
_CERTAIN = 0.25
"""Change (1 - correlation, half for a change to or from a flat picture) that no motion within a shot
explains."""
_POSSIBLE = 0.01
"""Change below which not even a jump of the face makes a cut."""
_ABOVE_RECENT = 6.0
"""A possible cut changes the picture this many times more than the recent past."""
_RECENT = 12
"""Frames of the recent past."""
_LOOK = 3
"""Pictures compared on either side."""
_SCENE_STAYS = 0.2
"""Share of the picture's edges that stay where they are, from which on something came before the scene or went away:
0.3 to 0.7 when large things do so from one frame to the next, 0.11 at most between frames of different real videos."""
_EDGE = 0.5
"""Height of an edge that counts, over the root mean square of a thumbnail's values."""
_SAME_EDGE = 0.35
"""Share of an edge's height by which it may change."""
_GAINS = (0.7, 0.85, 1.0, 1.18, 1.4)
"""Changes of contrast that are tried: a thumbnail's is scaled by all that is in the picture."""
_MAX_SHIFT = 4
"""Largest shift between two pictures that counts as a pan, in cells (of about 18 along the shorter side)."""


class Change(enum.IntEnum):
    """What the picture alone says about a cut just before a frame."""

    NONE = 0
    PARTIAL = 1
    """Of a part of the picture, while the rest stays: something comes before the scene or goes away, unless the face
    jumps and is still the same one."""
    POSSIBLE = 2
    """Less than a change of scene; a cut if the face jumps as well."""
    CERTAIN = 3
    """Another scene; a cut unless the face carries on smoothly (a slide that changes behind a speaker)."""


class HasImage(Protocol):
    """Anything with a picture."""

    @property
    def image(self) -> U8:
        """(H, W, 3) uint8 RGB."""


FrameT = TypeVar("FrameT", bound=HasImage)


def thumbnail(image: U8) -> F32:
    """A small, exposure-free copy of a picture: about 18 cells on the shorter side, zero mean, unit norm.

    Shapes: image (H, W, 3) uint8 -> (h, w, 3) float32. A flat picture comes out near zero.
    """
    step = max(1, min(image.shape[:2]) // _SAMPLES)
    cells = image[::step, ::step].astype(np.float32)
    for axis in (0, 1):  # Adding slices is several times faster than a mean over axes of four.
        count = cells.shape[axis] // 4
        if count:
            quarters = [np.take(cells, range(at, 4 * count, 4), axis) for at in range(4)]
            cells = quarters[0] + quarters[1] + quarters[2] + quarters[3]
    cells -= cells.mean(axis=(0, 1))
    floor = 16 * _MIN_CONTRAST * math.sqrt(cells.size)
    return np.asarray(cells / max(math.sqrt(float(np.vdot(cells, cells))), floor), dtype=np.float32)


def difference(one: F32, other: F32) -> float:
    """Change between two thumbnails: 0 for alike, 0.5 against a flat picture, 1 for unrelated, 2 for
    inverted."""
    if one.shape != other.shape:
        return 1.0
    change = (one - other).ravel()
    return float(np.dot(change, change)) / 2


def shifted_difference(one: F32, other: F32) -> float:
    """The least change over shifts of up to four cells, as 1 - correlation of what overlaps."""
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
            if norm > 0.05:  # Overlaps that hold next to nothing of the picture prove nothing.
                best = min(best, 1 - float(np.sum(a * b)) / norm)
    return best


def unchanged_share(one: F32, other: F32) -> float:
    """Share of the edges in two thumbnails that are the same in both, whatever became of brightness and contrast.

    Of edges between neighbouring cells, those that stand out in one of the two; the largest share over some gains.
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
    """Judges the boundary between pictures before and after it; remembers how much the picture moved
    lately."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=_RECENT)

    def judge(self, before: list[F32], after: list[F32]) -> Change:
        """The change between the last of `before` and the first of `after`, given up to three thumbnails
        each."""
        step = difference(before[-1], after[0])
        least = _CERTAIN
        if len(self._recent) >= _RECENT // 3:
            least = min(least, max(_POSSIBLE, _ABOVE_RECENT * sorted(self._recent)[len(self._recent) // 2]))
        if step <= least:
            self._recent.append(step)
            return Change.NONE
        lasting = min(difference(a, b) for a in before[-_LOOK:] for b in after[:_LOOK])
        result = Change.NONE
        if lasting > least:
            stays = unchanged_share(before[-1], after[0]) >= _SCENE_STAYS
            result = Change.PARTIAL if stays else Change.POSSIBLE
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
    """Pass frames on, each with what the picture says about a cut just before it; runs two frames ahead."""
    detector = ShotDetector()
    before: list[F32] = []
    waiting: deque[tuple[FrameT, F32]] = deque()

    def judged() -> tuple[FrameT, Change]:
        nonlocal before
        change = detector.judge(before, [small for _, small in waiting]) if before else Change.NONE
        frame, small = waiting.popleft()
        before = [small] if change is Change.CERTAIN else [*before[1 - _LOOK :], small]
        return frame, change

    for frame in frames:
        waiting.append((frame, thumbnail(frame.image)))
        if len(waiting) == _LOOK:
            yield judged()
    while waiting:
        yield judged()
