"""The pinhole camera: projection from metres to pixels."""

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

    def __post_init__(self) -> None:
        if not self.focal_length > 0:
            raise ValueError(f"focal_length={self.focal_length} must be above 0 pixels")
        for name in ("width", "height"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be 1 pixel or more")

    @classmethod
    def centred(cls, focal_length: float, width: int, height: int) -> Camera:
        """A camera with the principal point in the middle of the picture."""
        return cls(float(focal_length), ((width - 1) / 2, (height - 1) / 2), int(width), int(height))

    def project(self, points: Tensor) -> Tensor:
        """Camera points (..., 3) in metres -> pixels (..., 2). Undefined for points at or behind the camera."""
        centre = torch.as_tensor(self.principal_point, dtype=points.dtype, device=points.device)
        return self.focal_length * points[..., :2] / points[..., 2:] + centre


def transform(points: Tensor, rotation: Tensor, translation: Tensor) -> Tensor:
    """Transform points (..., N, 3) by rotation matrices (..., 3, 3) and translations (..., 3): R x + t."""
    return points @ rotation.transpose(-1, -2) + translation[..., None, :]
