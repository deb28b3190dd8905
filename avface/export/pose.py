"""Poses of a capture in the axes of glTF and USD: x right, y up, the camera at the origin looking along -z."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import F64, Floats
from avface.files.names import readable
from avface.geometry.axes import flip_axes, flip_rotation

if TYPE_CHECKING:
    from avface.capture import Capture


NEAR, FAR = 0.01, 100.0
"""Clipping planes of exported cameras, metres."""


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

    Consecutive ones are in the same hemisphere, so that interpolation takes the shorter arc.
    """
    import torch

    from avface.geometry.rotations import rotmat_to_unitquat

    values = rotmat_to_unitquat(torch.as_tensor(rotations)).numpy()
    flips = np.where((values[1:] * values[:-1]).sum(-1) < 0, -1.0, 1.0)
    values[1:] *= np.cumprod(flips)[:, None]
    return values


def rotating_joints(rotations: Floats) -> list[int]:
    """Indices of the joints that rotate in some frame; rotations (T, J, 3)."""
    return [j for j in range(rotations.shape[1]) if np.any(rotations[:, j])]


def file_name(path: str) -> str:
    """The last part of a path of any system, as text that can be encoded: files that are passed on don't show folders
    of the user's machine."""
    return readable(path.replace("\\", "/").rstrip("/").rpartition("/")[2])


def scene_metadata(capture: Capture) -> dict[str, object]:
    """Metadata of the clip for scene files, as JSON values."""
    return {
        "source": file_name(capture.source),
        "head": file_name(capture.head),
        "frames": len(capture),
        "frame_rate": capture.frame_rate,
        "image_size": [int(size) for size in capture.image_size],
        "focal_length": float(capture.focal_length),
        "principal_point": [float(value) for value in capture.principal_point],
    }
