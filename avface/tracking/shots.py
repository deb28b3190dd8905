"""Detection of shot cuts, from thumbnails of the frames.

A cut is a lasting change: each of the last three frames before it differs from each of the three after it, so that
flashes and black frames are none. Thumbnails are normalised for brightness and contrast, so that exposure steps are
none; a change that a shift of the image explains is a pan; and where many edges persist, something moved before the
scene. What is left is compared once more at a higher resolution (`scene_motion`): a camera that was only moved, by a
blow or by walking, shows the same scene.
"""

from __future__ import annotations

import enum
import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

import cv2
import numpy as np

from avface.arrays import F32, F64, U8, Bool

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

_REGISTERED_SIDE = 128
"""Shorter side of the images in which the motion of the camera is estimated, in pixels."""
_BLOCK = 16
"""Side of the blocks of these images that are compared."""
_BLOCK_CONTRAST = 3.0
"""Grey levels (standard deviation) below which a block is flat and no evidence."""
_BLOCK_CORRELATION = 0.7
"""Least correlation of a block that shows the same."""
_SAME_BLOCKS = 0.5
"""Least share of such blocks in two images of one scene: 0.13 at most between frames of nine real clips, 0.33 between a
frame and its mirror image, and 0.6 at least for a camera that moves by up to a fifth of the image from one frame to the
next, 0.75 without blur."""
_MAX_ZOOM, _MAX_ROLL = 1.16, 0.3
"""Largest change of size, and largest rotation in radians, of a camera between two frames. An edited change of the
framing, 1.2 times closer or more, is a cut."""


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


def scene_motion(before: U8, after: U8) -> F32 | None:
    """How the image of one scene moves between two frames; None if they don't show the same scene.

    Corners are tracked there and back (pyramidal Lucas-Kanade, from rest and from the shift by phase correlation), and
    a similarity is fitted to them (RANSAC). The scene is the same if most blocks of the image then show the same.

    Shapes: before, after (H, W, 3) uint8 RGB -> (2, 3) float32; M @ (x, y, 1) is the pixel in `after` of what is at
    pixel (x, y) in `before`.
    """
    if before.shape != after.shape:
        return None
    one, scale = _reduced(before)
    other, _ = _reduced(after)
    corners = cv2.goodFeaturesToTrack(one, 150, 0.01, 5)
    if corners is None:
        return None
    corners = np.asarray(corners, np.float32)
    window = cv2.createHanningWindow((one.shape[1], one.shape[0]), cv2.CV_32F)
    shift, _ = cv2.phaseCorrelate(one.astype(np.float32), other.astype(np.float32), window)
    best, most = None, _SAME_BLOCKS
    for start in (np.zeros(2, np.float32), np.array(shift, np.float32)):
        motion = _similarity(one, other, corners, start)
        if motion is not None and (share := _same_blocks(one, other, motion)) >= most:
            best, most = motion, share
    if best is None:
        return None
    # Pixel (0, 0) is the centre of a pixel in either size of image: there, u = (x + 0.5) scale - 0.5.
    corner = np.full(2, 0.5 * scale - 0.5)
    best[:, 2] = (best[:, :2] @ corner + best[:, 2] - corner) / scale
    return best.astype(np.float32)


def _reduced(image: U8) -> tuple[U8, float]:
    """An image in grey whose shorter side has _REGISTERED_SIDE pixels, and its scale."""
    step = max(1, min(image.shape[:2]) // (2 * _REGISTERED_SIDE))
    grey = cv2.cvtColor(np.ascontiguousarray(image[::step, ::step]), cv2.COLOR_RGB2GRAY)
    scale = _REGISTERED_SIDE / min(grey.shape)
    small = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), scale / step


def _similarity(one: U8, other: U8, corners: F32, start: F32) -> F64 | None:
    """The similarity (2, 3) by which corners (N, 1, 2) move, sought from a shift `start`; None if unclear."""

    def follow(a: U8, b: U8, points: F32, guess: F32) -> tuple[F32, Bool]:
        at, found, _ = cv2.calcOpticalFlowPyrLK(
            a, b, points, guess, winSize=(15, 15), maxLevel=3, flags=cv2.OPTFLOW_USE_INITIAL_FLOW
        )
        return np.asarray(at, np.float32), np.asarray(found[:, 0] == 1)

    there, found = follow(one, other, corners, corners + start)
    back, again = follow(other, one, there, corners.copy())
    good = found & again & (np.linalg.norm((back - corners)[:, 0], axis=1) < 1)
    if good.sum() < 8:
        return None
    motion, _ = cv2.estimateAffinePartial2D(corners[good], there[good], ransacReprojThreshold=1.5)
    if motion is None:
        return None
    zoom, roll = math.hypot(motion[0, 0], motion[1, 0]), math.atan2(motion[1, 0], motion[0, 0])
    if not 1 / _MAX_ZOOM <= zoom <= _MAX_ZOOM or abs(roll) > _MAX_ROLL:
        return None
    return np.asarray(motion, np.float64)


def _same_blocks(one: U8, other: U8, motion: F64) -> float:
    """Share of the blocks with contrast that show the same when the first image is moved onto the second."""
    height, width = one.shape
    size = (width, height)
    moved = cv2.warpAffine(one.astype(np.float32), motion, size)
    inside = cv2.warpAffine(np.ones(one.shape, np.float32), motion, size) > 0.99
    fixed = other.astype(np.float32)
    same = blocks = 0
    for y in range(0, height - _BLOCK + 1, _BLOCK):
        for x in range(0, width - _BLOCK + 1, _BLOCK):
            block = np.s_[y : y + _BLOCK, x : x + _BLOCK]
            shown = inside[block]
            if shown.mean() < 0.6:
                continue
            a, b = moved[block][shown], fixed[block][shown]
            a, b = a - a.mean(), b - b.mean()
            spread_a, spread_b = float(a.std()), float(b.std())
            if max(spread_a, spread_b) < _BLOCK_CONTRAST:
                continue
            blocks += 1
            same += float((a * b).mean()) > _BLOCK_CORRELATION * spread_a * spread_b
    return same / max(blocks, 1)


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
