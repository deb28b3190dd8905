"""Pictures of a tracked face, level and of one size, for whoever looks at a face more closely than at its landmarks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from avface.arrays import F32, F64, U8, Floats, Int

SIDE = 192
"""Width and height of a view in pixels."""
FACE = 0.62 * SIDE
"""Size of the face in it, sqrt(w h) of the box of its landmarks."""
MOST = 16
"""Views that are kept of a person."""
_RIGHT_EYE, _LEFT_EYE = [33, 133], [263, 362]
_TOP, _CHIN = 10, 152


@dataclass(frozen=True, eq=False)
class AlignedCrops:
    """K frames of a person, spread over the clip.

    frames (K,) their numbers, pictures (K, SIDE, SIDE) uint8 grey views, landmarks (K, 478, 2) tracked ones that these
    were cut by, in pixels of the frames.
    """

    frames: Int
    pictures: U8
    landmarks: F32

    def __len__(self) -> int:
        return len(self.frames)


def view_matrix(landmarks: Floats) -> F64:
    """(2, 3) affine matrix from the pixels of a picture to those of the view of a face.

    It turns, scales and shifts: eyes and the line from chin to brow lie level on the average, the box of the landmarks
    (478, 2 or more) is in the middle and of the size FACE.
    """
    points = np.asarray(landmarks[:468, :2], np.float64)
    across = points[_LEFT_EYE].mean(0) - points[_RIGHT_EYE].mean(0)
    up = points[_TOP] - points[_CHIN]
    beside = np.array([-up[1], up[0]])
    beside = beside if beside @ across > 0 else -beside
    x = across / max(np.linalg.norm(across), 1e-9) + beside / max(np.linalg.norm(beside), 1e-9)
    length = np.linalg.norm(x)
    x = x / length if length > 1e-9 else np.array([1.0, 0.0])
    turn = np.array([[x[0], x[1]], [-x[1], x[0]]])
    turned = points @ turn.T
    low, high = turned.min(0), turned.max(0)
    scaled = FACE / max(float(np.sqrt((high - low).prod())), 1.0) * turn
    return np.column_stack([scaled, (SIDE - 1) / 2 - scaled @ turn.T @ (low + high) / 2])


def in_view(matrix: F64, landmarks: Floats) -> F32:
    """Landmarks (478, 2 or more) of a picture in the pixels of a view, (478, 2)."""
    return np.asarray(landmarks[:, :2] @ matrix[:, :2].T + matrix[:, 2], np.float32)


def face_view(image: U8, matrix: F64) -> U8:
    """The view (SIDE, SIDE) uint8 of a picture (H, W, 3) uint8 RGB; its edge goes on where the picture ends."""
    height, width = image.shape[:2]
    back = cv2.invertAffineTransform(matrix)
    corners = np.array([[0, 0], [SIDE, 0], [0, SIDE], [SIDE, SIDE]]) @ back[:, :2].T + back[:, 2]
    low = np.clip(np.floor(corners.min(0)).astype(int) - 4, 0, [width - 2, height - 2])
    high = np.clip(np.ceil(corners.max(0)).astype(int) + 5, low + 2, [width, height])
    part = cv2.cvtColor(image[low[1] : high[1], low[0] : high[0]], cv2.COLOR_RGB2GRAY)
    matrix = matrix.copy()
    matrix[:, 2] += matrix[:, :2] @ low
    step = int(1 / np.sqrt(abs(np.linalg.det(matrix[:, :2]))))
    if step > 1 and min(part.shape[:2]) >= step:  # every pixel is to count
        rows, columns = part.shape[0] // step, part.shape[1] // step
        part = cv2.resize(
            part[: rows * step, : columns * step], (columns, rows), interpolation=cv2.INTER_AREA
        )
        matrix[:, 2] += matrix[:, :2] @ np.full(2, (step - 1) / 2)
        matrix[:, :2] *= step
    view = cv2.warpAffine(part, matrix, (SIDE, SIDE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(view, np.uint8)


def next_view(frames: int) -> int:
    """After how many sightings the next view of a person is kept, when one was kept after `frames`.

    Every one at first, then at distances that grow with their number: a long clip has some dozens in all.
    """
    return max(frames + 1, int(1.125 * frames))


def spread_out(times: Floats, most: int = MOST) -> Int:
    """Which of the sorted times (N,) are most evenly spread, `most` of them or fewer."""
    if len(times) <= most:
        return np.arange(len(times))
    wanted = np.linspace(times[0], times[-1], most)
    return np.unique(np.abs(np.asarray(times)[:, None] - wanted).argmin(0))
