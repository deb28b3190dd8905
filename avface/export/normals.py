"""Vertex normals of a head at rest, and their changes by morph targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from avface.arrays import F32
from avface.geometry.mesh import vertex_normals

if TYPE_CHECKING:
    from avface.head.model import HeadModel


SAME_NORMAL = 0.005
"""Smaller changes of a normal's component (0.3 degrees) aren't stored."""


def morphed_normals(head: HeadModel, rest: torch.Tensor, offsets: F32) -> tuple[F32, F32]:
    """Normals (V, 3) of vertices at rest (V, 3), and their change (M, V, 3) by each of M offsets (M, V, 3).

    Changes below `SAME_NORMAL` are zero. A vertex of degenerate faces only has normal +y, since file formats
    require unit normals.
    """
    normals = _unit_normals(rest, head.faces)
    changes = np.zeros(offsets.shape, np.float32)
    for number, offset in enumerate(offsets):
        change = _unit_normals(rest + torch.as_tensor(offset), head.faces) - normals
        changes[number] = np.where(np.abs(change) < SAME_NORMAL, 0, change)
    return normals, changes


def _unit_normals(vertices: torch.Tensor, faces: torch.Tensor) -> F32:
    normals = vertex_normals(vertices, faces).numpy()
    normals[~normals.any(1)] = (0, 1, 0)
    return normals
