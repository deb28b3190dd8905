"""Poses of a capture in the axes of scenes: x right, y up, the camera at the origin looking along -z."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import F64, Floats
from avface.geometry.axes import flip_axes, flip_rotation

if TYPE_CHECKING:
    from avface.capture import Capture


NEAR, FAR = 0.01, 100.0
"""Metres: the clipping planes of exported cameras."""


def head_motion(capture: Capture) -> tuple[F64, F64]:
    """Rotation matrices (T, 3, 3) and translations (T, 3) in metres of the head in the scene."""
    return flip_rotation(matrices(capture.rotation)), flip_axes(capture.translation.astype(np.float64))


def matrices(rotation_vectors: Floats) -> F64:
    """Rotation matrices (..., 3, 3) of axis-angle vectors (..., 3) in radians."""
    import torch

    from avface.geometry.rotations import rotvec_to_rotmat

    return rotvec_to_rotmat(torch.as_tensor(np.asarray(rotation_vectors, np.float64))).numpy()


def quaternions(rotations: F64) -> F64:
    """Unit quaternions (T, 4) as x, y, z, w of rotation matrices (T, 3, 3).

    Each is on the same side as the one before, so that players that interpolate take the short way round.
    """
    import torch

    from avface.geometry.rotations import rotmat_to_unitquat

    values = rotmat_to_unitquat(torch.as_tensor(rotations)).numpy()
    turned = np.where((values[1:] * values[:-1]).sum(-1) < 0, -1.0, 1.0)
    values[1:] *= np.cumprod(turned)[:, None]
    return values


def turning_joints(rotations: Floats) -> list[int]:
    """The joints that aren't at rest in every frame; rotations (T, J, 3)."""
    return [j for j in range(rotations.shape[1]) if np.any(rotations[:, j])]


def scene_facts(capture: Capture) -> dict[str, object]:
    """What a scene file should tell about its clip, as plain JSON values."""
    return {
        "source": capture.source,
        "head": capture.head,
        "frames": len(capture),
        "frame_rate": capture.frame_rate,
        "image_size": [int(size) for size in capture.image_size],
        "focal_length": float(capture.focal_length),
        "principal_point": [float(value) for value in capture.principal_point],
    }
