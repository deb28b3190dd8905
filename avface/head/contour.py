"""The jaw contour in the picture, whose points slide over the cheek when the head turns (dynamic landmarks)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from avface.arrays import F64, Int
from avface.geometry.axes import flip_rotation

MAX_YAW = 39
"""Degrees. Bins 0 to 39 are yaw 0 to 39 to the subject's left, bins 40 to 78 yaw -1 to -39."""
BINS = 2 * MAX_YAW + 1


@dataclass(frozen=True)
class YawContour:
    """The 17 points of iBUG's contour for each whole degree of yaw.

    Shapes: triangles (79, 17, 3) vertex numbers, barycentric (79, 17, 3).
    Source: FLAME's dynamic landmark embedding (Feng et al. 2021, DECA). smplx reads the bins with the opposite sign,
            for bodies whose root holds a half turn about x. Here the head is upright, so positive yaw is a turn to
            the subject's left (+x), which moves the contour's left half inwards.
    """

    triangles: Int
    barycentric: F64

    def points(self, vertices: Tensor, rotation: Tensor) -> Tensor:
        """The contour (B, 17, 3) on vertices (B, V, 3), for head rotations (B, 3, 3).

        Rotations are from the head to a camera with x right, y down and z forward.
        """
        bins = yaw_bins(rotation).cpu()
        triangles = torch.as_tensor(self.triangles)[bins].to(vertices.device)  # (B, 17, 3)
        weights = torch.as_tensor(self.barycentric)[bins].to(vertices)
        batch = torch.arange(len(triangles), device=vertices.device)[:, None, None]
        return (vertices[batch, triangles] * weights[..., None]).sum(2)


def yaw_bins(rotation: Tensor) -> Tensor:
    """Bins (B,) of head rotations (B, 3, 3), head to camera."""
    upright = flip_rotation(rotation)
    yaw = torch.atan2(-upright[:, 2, 0], torch.hypot(upright[:, 0, 0], upright[:, 1, 0]))
    degrees = torch.rad2deg(yaw).round().clamp(-MAX_YAW, MAX_YAW).long()
    return torch.where(degrees < 0, MAX_YAW - degrees, degrees)
