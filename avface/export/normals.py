"""Vertex normals of a head at rest and their changes by morph targets; tangents for normal maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from avface.arrays import F32, Floats, Ints
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


def vertex_tangents(points: Floats, normals: Floats, uv: Floats, faces: Ints) -> F32:
    """Unit tangents (N, 4) along u of vertices that are split along UV seams; the last column is 1, or -1 where the
    texture is mirrored: the bitangent, along v, is that times the cross product of normal and tangent.

    points and normals (N, 3), uv (N, 2) with v up, faces (F, 3). Each face counts by its area in the UV square.
    A vertex of faces without an area there has any tangent, since file formats require unit vectors.
    """
    a, b, c = (points[faces[:, k]].astype(np.float64) for k in range(3))
    p, q, r = (uv[faces[:, k]].astype(np.float64) for k in range(3))
    first, second, one, other = b - a, c - a, q - p, r - p
    area = one[:, :1] * other[:, 1:] - one[:, 1:] * other[:, :1]
    # times the area, which is negative where the texture is mirrored
    along_u = np.sign(area) * (first * other[:, 1:] - second * one[:, 1:])
    along_v = np.sign(area) * (second * one[:, :1] - first * other[:, :1])
    sums = np.zeros((2, *points.shape))
    for corner in range(3):
        np.add.at(sums[0], faces[:, corner], along_u)
        np.add.at(sums[1], faces[:, corner], along_v)
    tangent = sums[0] - (sums[0] * normals).sum(1, keepdims=True) * normals
    length = np.linalg.norm(tangent, axis=1, keepdims=True)
    # the axis that is furthest from the normal
    axis = np.eye(3)[np.abs(normals).argmin(1)]
    any_tangent = axis - (axis * normals).sum(1, keepdims=True) * normals
    tangent = np.where(length > 1e-12, tangent, any_tangent)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    sign = np.where((np.cross(normals, tangent) * sums[1]).sum(1) < 0, -1.0, 1.0)
    return np.concatenate([tangent, sign[:, None]], 1).astype(np.float32)


def _unit_normals(vertices: torch.Tensor, faces: torch.Tensor) -> F32:
    normals = vertex_normals(vertices, faces).numpy()
    normals[~normals.any(1)] = (0, 1, 0)
    return normals
