"""Square crops around a face: their path over time, points and pictures in them, masks, and takes."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avface.arrays import F32, F64, U8, Bool, Floats, Int
from avface.head.schemes import ibug68_from_mediapipe
from avface.tracking import FaceTrack
from avface.tracking.face_track import StoredArray

SMOOTHING = 0.2
"""Standard deviation in seconds of the Gaussian over the crop's centre, which follows the head, but not the jaw."""
MAX_SIZE_RATIO = 1.5
"""Maximum ratio of face sizes in a take; with a margin of 1.6 faces of both sizes fit the crop."""
MAX_TAKE_SECONDS = 60.0
"""Maximum length of a take in seconds. Its landmarks are in memory at once; few windows are lost by the division."""

FACE, OCCLUDED, OUTSIDE = 1, 2, 4
"""Bits of a mask: within the hull of the landmarks; occluded, as far as is known; beyond the edge of the
picture, where the crop is black."""


@dataclass(frozen=True, eq=False)
class CropPath:
    """A square of constant size that follows a face through T frames.

    A pixel x of the picture is at (x - centre + side / 2) * size / side - 1/2 in the crop; (0, 0) is the middle of the
    top-left pixel in both.
    """

    centre: F64
    """(T, 2) x and y in pixels of the picture."""
    side: float
    """Pixels of the picture."""
    size: int
    """Pixels of the crop."""

    @property
    def boxes(self) -> F32:
        """(T, 3) x and y of the centre, and the side."""
        return np.column_stack([self.centre, np.full(len(self.centre), self.side)]).astype(np.float32)

    def points(self, pixels: Floats) -> F32:
        """Points (T, N, 2) in the picture -> in the crop."""
        corner = self.centre[:, None] - self.side / 2
        return ((pixels - corner) * (self.size / self.side) - 0.5).astype(np.float32)

    def image(self, frame: int, picture: U8) -> U8:
        """Crop the picture (H, W) or (H, W, 3) of a frame -> (size, size) or (size, size, 3), black outside.

        Downsampling averages over areas, against aliasing.
        """
        import cv2

        finer = math.ceil(self.side / self.size)
        scale = self.size * finer / self.side
        shift = (self.side / 2 - self.centre[frame]) * scale - 0.5
        matrix = np.array([[scale, 0, shift[0]], [0, scale, shift[1]]])
        length = self.size * finer
        crop = cv2.warpAffine(picture, matrix, (length, length), flags=cv2.INTER_LINEAR)
        if finer > 1:
            crop = cv2.resize(crop, (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.asarray(crop, np.uint8)

    def mask(self, frame: int, landmarks: F32, picture: tuple[int, int], occluded: U8 | None) -> U8:
        """Make the mask of a frame, (size, size) uint8 of the bits FACE, OCCLUDED and OUTSIDE.

        landmarks: (N, 2) in the crop. picture: width and height. occluded: (H, W), 1 where something occludes the face.
        """
        import cv2

        mask = np.zeros((self.size, self.size), np.uint8)
        fraction = 4  # bits of sub-pixel precision
        hull = cv2.convexHull(landmarks.astype(np.float32))
        corners = np.round(hull * (1 << fraction)).astype(np.int32)
        cv2.fillConvexPoly(mask, corners, (FACE,), shift=fraction)
        pixels = (np.arange(self.size) + 0.5) * (self.side / self.size) - self.side / 2
        across, down = (pixels + self.centre[frame][axis] for axis in (0, 1))
        outside = (across < -0.5) | (across > picture[0] - 0.5), (down < -0.5) | (down > picture[1] - 0.5)
        mask[outside[0][None] | outside[1][:, None]] |= OUTSIDE
        if occluded is not None:
            mask[self.image(frame, occluded * np.uint8(255)) > 127] |= OCCLUDED
        return mask


@dataclass(frozen=True, eq=False)
class Take:
    """A take: consecutive frames of one shot, person and face size, with a crop of constant size.

    Landmarks in gaps are interpolated linearly, or extrapolated by the nearest; the confidence is 0 there.
    """

    start: int
    """Index of its first frame."""
    landmarks: F32
    """(T, 478, 2) in the crop."""
    depth: F32
    """(T, 478) MediaPipe's z in pixels of the crop."""
    confidence: F32
    """(T,) see `avface.tracking.FaceTrack`."""
    outline: F32
    """(T, 478, 2) in the crop: the landmarks that determine it, the tracker's or the true ones."""
    crop: CropPath

    def __len__(self) -> int:
        return len(self.confidence)


def find_takes(
    shots: Iterable[tuple[int, int]],
    usable: Bool,
    sizes: F64,
    shortest: int,
    longest_gap: int,
    frame_rate: float,
) -> list[tuple[int, int]]:
    """Find the takes, as intervals [start, end) of frames.

    Each is within one shot, starts and ends with a usable frame, and its face sizes are within a factor of
    MAX_SIZE_RATIO: a zoom or an approaching head starts a new take. Takes are at most slightly longer than
    MAX_TAKE_SECONDS.

    shots: first frame of each and one past its last. usable: (T,). sizes: (T,) of the face in pixels, where usable.
    shortest: minimum length of a take in frames. longest_gap: maximum number of consecutive unusable frames within one.
    """
    takes: list[tuple[int, int]] = []
    for start, end in shots:
        frames = start + np.flatnonzero(usable[start:end])
        for run in np.split(frames, np.flatnonzero(np.diff(frames) > longest_gap + 1) + 1):
            for part_of_run in _of_one_size(run, sizes[run], frame_rate):
                count = math.ceil(len(part_of_run) / (MAX_TAKE_SECONDS * frame_rate))
                for part in np.array_split(part_of_run, count):
                    if part[-1] + 1 - part[0] >= shortest:
                        takes.append((int(part[0]), int(part[-1]) + 1))
    return takes


def _of_one_size(frames: Int, sizes: F64, frame_rate: float) -> list[Int]:
    """Divide frames where the ratio of maximum and minimum smoothed size since the last cut exceeds MAX_SIZE_RATIO."""
    from scipy.ndimage import gaussian_filter1d

    if not len(frames):
        return []
    cuts = []
    smooth = gaussian_filter1d(sizes, SMOOTHING * frame_rate, mode="nearest")
    least = most = smooth[0]
    for place, size in enumerate(smooth):
        least, most = min(least, size), max(most, size)
        if most > MAX_SIZE_RATIO * least:
            cuts.append(place)
            least = most = size
    return np.split(frames, cuts)


def face_sizes(landmarks: Floats) -> F64:
    """Mean of width and height (T,) in pixels of the box of the iBUG points, for landmarks (T, 478, 2)."""
    points = ibug68_from_mediapipe(np.asarray(landmarks, np.float64))
    return (points.max(axis=1) - points.min(axis=1)).mean(axis=1)


def make_take(
    track: FaceTrack,
    seen: Bool,
    outline: Floats | StoredArray,
    usable: Bool,
    start: int,
    end: int,
    size: int,
    margin: float,
    frame_rate: float,
) -> Take:
    """The take of frames [start, end), with gaps filled and a crop around the face.

    seen: (T,) frames whose landmarks in the track are valid. outline: (T, 478, 2) the landmarks that determine the
    crop, the track's or true ones. usable: (T,) frames in which those are valid; the first and the last are.
    size: pixels of the crop. margin: side of the crop over the mean of width and height of the box of the iBUG points
    (its median over the valid frames); DECA trains with 1.4 to 1.8 and tests with 1.6.
    """
    from scipy.ndimage import gaussian_filter1d

    here = slice(start, end)
    around = _filled(np.asarray(outline[here], np.float64), usable[here])
    landmarks = _filled(np.asarray(track.landmarks[here], np.float64), seen[here])
    depth = _filled(np.asarray(track.depth[here], np.float64), seen[here])
    points = ibug68_from_mediapipe(around)
    centre = (points.max(axis=1) + points.min(axis=1)) / 2
    centre = gaussian_filter1d(centre, SMOOTHING * frame_rate, axis=0, mode="nearest")
    side = float(margin * np.median(face_sizes(around[usable[here]])))
    crop = CropPath(centre, side, size)
    return Take(
        start=start,
        landmarks=crop.points(landmarks),
        depth=(depth * (size / side)).astype(np.float32),
        confidence=np.where(seen[here], track.confidence[here], 0).astype(np.float32),
        outline=crop.points(around),
        crop=crop,
    )


def _filled(values: npt.NDArray[Any], known: Bool) -> npt.NDArray[Any]:
    """Values (T, ...) interpolated linearly between the known rows, of which there is at least one."""
    rows = np.flatnonzero(known)
    frames = np.arange(len(values))
    after = np.searchsorted(rows, frames).clip(1, len(rows) - 1) if len(rows) > 1 else np.zeros_like(frames)
    before = np.maximum(after - 1, 0)
    span = np.maximum(rows[after] - rows[before], 1)
    share = ((frames - rows[before]) / span).clip(0, 1).reshape(-1, *[1] * (values.ndim - 1))
    filled = values[rows[before]] * (1 - share) + values[rows[after]] * share
    filled[known] = values[known]
    return filled
