"""Input of the networks: landmarks, pictures and sound of frames, relative to a square crop around the face."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avface.arrays import F32, Bool, Floats
from avface.head.schemes import ibug68_from_mediapipe

CHUNK_FRAMES = 1024
"""Frames of a clip that networks process together, with one size of the crop and one normalisation of the loudness.
Memory depends on this number, not on the length of the clip. Clips of training are at most a minute long."""


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """The square crop around the face in each frame, and the camera of the frame.

    Shapes: box (..., 3) x and y of the centre and the side, focal_length (...), principal_point (..., 2).
    Units:  pixels of the video's own frames.

    Crop units run from -1 to 1 across the square, x to the right and y down: a pixel p is at (p - centre) * 2 / side.
    Networks predict the pose relative to the crop, so that it doesn't depend on the position in the picture.
    """

    box: Tensor
    focal_length: Tensor
    principal_point: Tensor

    @classmethod
    def of(
        cls, box: Tensor, focal_length: Tensor | float, principal_point: Tensor | tuple[float, float]
    ) -> FaceCrop:
        """Boxes (..., 3) with a camera each; values with fewer axes are broadcast.

        focal_length may be a number, or (...) with all leading axes or the first ones of them: (B,) for (B, T) boxes.
        principal_point likewise.
        """
        lead = box.shape[:-1]

        def spread(value: Tensor | float | tuple[float, float], kept: int) -> Tensor:
            tensor = torch.as_tensor(value, dtype=box.dtype, device=box.device)
            axes = tensor.ndim - kept
            shape = (*tensor.shape[:axes], *[1] * (len(lead) - axes), *tensor.shape[axes:])
            return tensor.reshape(shape).expand(*lead, *tensor.shape[axes:])

        return cls(box, spread(focal_length, 0), spread(principal_point, 1))

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels (..., N, 2) of the video's frames -> crop units."""
        return (pixels - self.box[..., None, :2]) * (2 / self.box[..., None, 2:])

    def to_pixels(self, points: Tensor) -> Tensor:
        """Crop units (..., N, 2) -> pixels of the video's frames."""
        return points * (self.box[..., None, 2:] / 2) + self.box[..., None, :2]

    @property
    def geometry(self) -> Tensor:
        """(..., 3) tangents of the viewing ray of the crop's centre, right and down, and the log of its side over the
        focal length."""
        focal = self.focal_length[..., None]
        centre = (self.box[..., :2] - self.principal_point) / focal
        return torch.cat([centre, (self.box[..., 2:] / focal).log()], -1)

    @property
    def axis_rotation(self) -> Tensor:
        """(..., 3, 3) the smallest rotation from the camera's axis to the viewing ray of the crop's centre.

        Under perspective, the appearance of a head off the axis is that of a rotated one. Relative to the viewing ray
        it is the same everywhere.
        """
        tangents = self.geometry[..., :2]
        ray = torch.nn.functional.normalize(
            torch.cat([tangents, torch.ones_like(tangents[..., :1])], -1), dim=-1
        )
        x, y, z = ray.unbind(-1)
        shared = x * y / (1 + z)
        rows = (1 - x * x / (1 + z), -shared, x, -shared, 1 - y * y / (1 + z), y, -x, -y, z)
        return torch.stack(rows, -1).unflatten(-1, (3, 3))


@dataclass(frozen=True, eq=False)
class Frames:
    """T frames of each of B clips; None for inputs that the networks don't have.

    Values may be nan where `seen` or `heard` is False.
    """

    crop: FaceCrop
    """Leading dimensions (B, T). Defined also in frames without a face."""
    seen: Tensor
    """(B, T) bool: whether a face was found in the frame."""
    heard: Tensor
    """(B, T) bool: whether there is sound; silence is."""
    landmarks: Tensor | None = None
    """(B, T, 478, 2) tracked points in crop units."""
    confidence: Tensor | None = None
    """(B, T) of the tracker, 0 to 1."""
    visibility: Tensor | None = None
    """(B, T, 478) visibility of each point, 0 to 1."""
    depth: Tensor | None = None
    """(B, T, 478) MediaPipe's z in crop units (times 2 / side)."""
    images: Tensor | None = None
    """(B, T, 3, N, N) the crop, RGB, uint8 or float from 0 to 1."""
    speech: Tensor | None = None
    """(B, T, 16, D) speech features around the frame, see `avface.speech.speech_features`."""

    @property
    def count(self) -> int:
        """T."""
        return self.seen.shape[1]

    def part(self, start: int, end: int) -> Frames:
        """Frames start to end - 1."""
        return self._each(lambda tensor: tensor[:, start:end])

    def to(self, device: torch.device | str) -> Frames:
        """Copy to another device."""
        return self._each(lambda tensor: tensor.to(device))

    def _each(self, change: Any) -> Frames:
        changed: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, FaceCrop):
                value = FaceCrop(*(change(getattr(value, inner.name)) for inner in fields(value)))
            elif value is not None:
                value = change(value)
            changed[field.name] = value
        return Frames(**changed)


def face_boxes(
    landmarks: Floats,
    seen: Bool,
    frame_rate: float,
    *,
    margin: float = 1.6,
    smoothing: float = 0.2,
) -> F32:
    """Square boxes (T, 3) around one face in one shot: x and y of the centre and the side, in pixels.

    Args:
        landmarks: (T, 478, 2) pixels of the frames.
        seen: (T,) frames with a face, at least one. The points are interpolated between them and constant outside.
        frame_rate: frames a second.
        margin: side over the mean of width and height of the iBUG points' box (its median over the frames seen).
        smoothing: seconds, standard deviation of the Gaussian over the centre; it follows the head, not the jaw.

    These are the boxes of the training data (`avface.data`), of one size throughout.

    Raises:
        ValueError: if there is no frame with a face.
    """
    from scipy.ndimage import gaussian_filter1d

    rows = np.flatnonzero(seen)
    if not len(rows):
        raise ValueError("there is no frame with a face")
    points = ibug68_from_mediapipe(np.asarray(landmarks, np.float64)[rows])
    low, high = points.min(axis=1), points.max(axis=1)
    # point by point, as in the training data: the centre of a box isn't linear in the points
    between = np.arange(len(seen))
    every = np.stack(
        [np.interp(between, rows, values) for values in points.reshape(len(rows), -1).T], -1
    ).reshape(len(seen), *points.shape[1:])
    centre = (every.max(axis=1) + every.min(axis=1)) / 2
    centre = gaussian_filter1d(centre, smoothing * frame_rate, axis=0, mode="nearest")
    side = margin * np.median((high - low).mean(axis=1))
    return np.column_stack([centre, np.full(len(centre), side)]).astype(np.float32)
