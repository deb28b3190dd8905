"""Between the axes of OpenCV's cameras (x right, y down, z forward) and those of glTF scenes (y up, z backward).

The change is half a turn about x: y and z change their signs, in either direction. It is also the rotation of a head,
whose axes are glTF's, that looks straight into the camera.
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
    """Vectors (..., 3) of one convention in the other's axes."""
    if isinstance(vectors, np.ndarray):
        return np.asarray(vectors * np.array(_DIAGONAL, vectors.dtype))
    return vectors * vectors.new_tensor(_DIAGONAL)


def flip_rotation(rotation: Vectors) -> Vectors:
    """Rotation matrices (..., 3, 3) into the axes of one convention, as rotations into those of the other: F R.

    The rotation of a head in a camera becomes its rotation in the scene, which is 1 where it looks into the camera.
    """
    if isinstance(rotation, np.ndarray):
        return np.asarray(rotation * np.array(_DIAGONAL, rotation.dtype)[:, None])
    return rotation * rotation.new_tensor(_DIAGONAL)[:, None]
