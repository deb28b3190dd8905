"""The pinhole camera, the one owner of the way from metres to pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """Square pixels, no skew, no distortion.

    Units: focal_length and principal_point (x, y) in pixels, width and height in pixels.
    Axes:  camera +x right, +y down, +z forward (OpenCV). Pixel (0, 0) is the middle of the top-left pixel, so the
           middle of the picture is ((width - 1) / 2, (height - 1) / 2).
    """

    focal_length: float
    principal_point: tuple[float, float]
    width: int
    height: int

    @classmethod
    def centred(cls, focal_length: float, width: int, height: int) -> Camera:
        """A camera that looks through the middle of its picture."""
        return cls(float(focal_length), ((width - 1) / 2, (height - 1) / 2), int(width), int(height))

    def project(self, points: Tensor) -> Tensor:
        """Camera points (..., 3) in metres -> pixels (..., 2). Points behind the camera give no sense."""
        centre = torch.as_tensor(self.principal_point, dtype=points.dtype, device=points.device)
        return self.focal_length * points[..., :2] / points[..., 2:] + centre


def transform(points: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Move points (..., N, 3) by rotation matrices (..., 3, 3) and translations (..., 3): R x + t."""
    return points @ rotation.transpose(-1, -2) + translation[..., None, :]
