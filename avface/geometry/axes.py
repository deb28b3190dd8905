"""The axis flip between OpenCV's camera axes (x right, y down, z forward) and those of glTF (y up, z backward).

It is half a turn F about x: y and z change their signs, in either direction. F is also the rotation, head to camera, of
a head (glTF's axes) that faces the camera.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np

from avface.arrays import Floats

if TYPE_CHECKING:
    from torch import Tensor

_DIAGONAL = (1.0, -1.0, -1.0)

Vectors = TypeVar("Vectors", "Floats", "Tensor")


def flip_axes(vectors: Vectors) -> Vectors:
    """Vectors (..., 3) of one convention in the axes of the other."""
    if isinstance(vectors, np.ndarray):
        return np.asarray(vectors * np.array(_DIAGONAL, vectors.dtype))
    return vectors * vectors.new_tensor(_DIAGONAL)


def flip_rotation(rotation: Vectors) -> Vectors:
    """Rotation matrices (..., 3, 3) into the axes of one convention, as rotations into those of the other: F R.

    A head's rotation to the camera becomes its rotation in the scene: the identity where it faces the camera.
    """
    if isinstance(rotation, np.ndarray):
        return np.asarray(rotation * np.array(_DIAGONAL, rotation.dtype)[:, None])
    return rotation * rotation.new_tensor(_DIAGONAL)[:, None]
