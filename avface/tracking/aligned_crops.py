"""Aligned crops of a tracked face: level, of one size; for networks that need more of it than its landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from avface.arrays import F32, F64, U8, Floats, Int

SIDE = 192
"""Width and height of a crop in pixels."""
FACE_SIZE = 0.62 * SIDE
"""Size of the face in it: sqrt(w h) of the box of its landmarks."""
MAX_CROPS = 16
"""Crops of a person, at most."""
_RIGHT_EYE, _LEFT_EYE = [33, 133], [263, 362]
_TOP, _CHIN = 10, 152


@dataclass(frozen=True, eq=False)
class AlignedCrops:
    """K frames of a person, spread over the clip.

    frames (K,) their numbers, pictures (K, SIDE, SIDE) uint8 grey crops, landmarks (K, 478, 2) the detector's, which
    the crops are aligned by, in pixels of the frames.
    """

    frames: Int
    pictures: U8
    landmarks: F32

    def __len__(self) -> int:
        return len(self.frames)


def crop_matrix(landmarks: Floats) -> F64:
    """(2, 3) affine matrix from the pixels of an image to those of the aligned crop of a face.

    A similarity: the mean direction of the eyes and of the normal of the line from chin to brow is horizontal, the box
    of the landmarks (478, 2 or more) is in the middle and of the size FACE_SIZE.
    """
    points = np.asarray(landmarks[:468, :2], np.float64)
    across = points[_LEFT_EYE].mean(0) - points[_RIGHT_EYE].mean(0)
    up = points[_TOP] - points[_CHIN]
    normal = np.array([-up[1], up[0]])
    normal = normal if normal @ across > 0 else -normal
    x = across / max(np.linalg.norm(across), 1e-9) + normal / max(np.linalg.norm(normal), 1e-9)
    length = np.linalg.norm(x)
    x = x / length if length > 1e-9 else np.array([1.0, 0.0])
    rotation = np.array([[x[0], x[1]], [-x[1], x[0]]])
    rotated = points @ rotation.T
    low, high = rotated.min(0), rotated.max(0)
    scaled = FACE_SIZE / max(float(np.sqrt((high - low).prod())), 1.0) * rotation
    return np.column_stack([scaled, (SIDE - 1) / 2 - scaled @ rotation.T @ (low + high) / 2])


def to_crop(matrix: F64, landmarks: Floats) -> F32:
    """Landmarks (478, 2 or more) of an image in the pixels of a crop, (478, 2)."""
    return np.asarray(landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2], np.float32)


def aligned_crop(image: U8, matrix: F64) -> U8:
    """The crop (SIDE, SIDE) uint8 grey of an image (H, W, 3) uint8 RGB; its border is replicated beyond its edge."""
    height, width = image.shape[:2]
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([[0, 0], [SIDE, 0], [0, SIDE], [SIDE, SIDE]]) @ back[:, :2].T + back[:, 2]
    low = np.clip(np.floor(corners.min(0)).astype(int) - 4, 0, [width - 2, height - 2])
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 5, low + 2, [width, height])
    part = cv2.cvtColor(image[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY)
    matrix = matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ low
    step = int(1 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if step > 1 and min(part.shape[:2]) >= step:  # against aliasing
        rows, columns = part.shape[0] // step, part.shape[1] // step
        part = cv2.resize(
            part[: rows * step, : columns * step], (columns, rows), interpolation=cv2.INTER_AREA
        )
        matrix[:, 2] += matrix[:, :2] @ np.full(2, (step - 1) / 2)
        matrix[:, :2] *= step
    crop = cv2.warpAffine(part, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(crop, np.uint8)


def next_crop(frames: int) -> int:
    """Number of a person's frames at which the next crop is stored, when the last was stored at `frames`.

    Every one at first, then at distances that grow with their number: a long clip has some dozens in all.
    """
    return max(frames + 1, int(1.125 * frames))


def evenly_spread(times: Floats, most: int = MAX_CROPS) -> Int:
    """Which of the sorted times (N,) are most evenly spread, `most` of them or fewer."""
    if len(times) <= most:
        return np.arange(len(times))
    wanted = np.linspace(times[0], times[-1], most)
    return np.unique(np.abs(np.asarray(times)[:, None] - wanted).argmin(0))
