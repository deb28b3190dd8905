"""Rotations: axis-angle vectors, matrices, quaternions, Euler angles.

Implemented here because importing a library for them (roma) takes longer than solving a short clip; the tests compare
with scipy.
"""

from __future__ import annotations

import torch
from torch import Tensor

_SMALL = 1e-4
"""Radians. Below it Taylor series replace quotients, with an error far below float64's precision."""


def rotvec_to_rotmat(vectors: Tensor) -> Tensor:
    """Matrices (..., 3, 3) of axis-angle vectors (..., 3) in radians (Rodrigues). Differentiable, at 0 too."""
    square = (vectors * vectors).sum(-1)
    small = square < _SMALL**2
    angle = torch.where(small, torch.ones_like(square), square).sqrt()  # no gradient of sqrt at 0
    sine = torch.where(small, 1 - square / 6, angle.sin() / angle)
    half = (angle / 2).sin() / angle
    versine = torch.where(
        small, 0.5 - square / 24, 2 * half * half
    )  # (1 - cos) / angle^2 without cancellation
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))
    outer = vectors[..., :, None] * vectors[..., None, :]
    identity = torch.eye(3, dtype=vectors.dtype, device=vectors.device)
    spread = outer - square[..., None, None] * identity
    return identity + sine[..., None, None] * cross + versine[..., None, None] * spread


def rotmat_to_unitquat(matrices: Tensor) -> Tensor:
    """Unit quaternions (..., 4) as x, y, z, w of rotation matrices (..., 3, 3); w is 0 or more.

    The formula with the largest divisor of four is used (Shepperd 1978).
    """
    (xx, xy, xz), (yx, yy, yz), (zx, zy, zz) = (row.unbind(-1) for row in matrices.unbind(-2))
    candidates = torch.stack(
        [
            torch.stack([1 + xx - yy - zz, xy + yx, xz + zx, zy - yz], -1),
            torch.stack([xy + yx, 1 - xx + yy - zz, yz + zy, xz - zx], -1),
            torch.stack([xz + zx, yz + zy, 1 - xx - yy + zz, yx - xy], -1),
            torch.stack([zy - yz, xz - zx, yx - xy, 1 + xx + yy + zz], -1),
        ],
        -2,
    )
    best = candidates.diagonal(dim1=-2, dim2=-1).argmax(-1)
    chosen = candidates.gather(-2, best[..., None, None].expand(*best.shape, 1, 4)).squeeze(-2)
    quaternions = chosen / chosen.norm(dim=-1, keepdim=True)
    return torch.where(quaternions[..., 3:] < 0, -quaternions, quaternions)


def rotmat_to_rotvec(matrices: Tensor) -> Tensor:
    """Axis-angle vectors (..., 3) in radians, at most pi long, of rotation matrices (..., 3, 3). Differentiable."""
    quaternions = rotmat_to_unitquat(matrices)
    axis, cosine = quaternions[..., :3], quaternions[..., 3]
    square = (axis * axis).sum(-1)
    small = square < _SMALL**2
    sine = torch.where(small, torch.ones_like(square), square).sqrt()
    scale = torch.where(small, 2 + square / 3, 2 * torch.atan2(sine, cosine) / sine)
    return axis * scale[..., None]


def facing_rotvec(matrices: Tensor) -> Tensor:
    """Axis-angle vectors (..., 3) that are continuous around a head that faces the camera.

    Such a head is rotated by about pi about x, where axis-angle vectors flip their sign. Of the two vectors of a
    rotation the one with x >= 0 is returned, up to 2 pi long; it is continuous within half a turn of facing the camera.
    """
    vectors = rotmat_to_rotvec(matrices)
    angle = vectors.norm(dim=-1, keepdim=True)
    other = vectors * (1 - 2 * torch.pi / angle.clamp_min(1e-12))
    return torch.where(vectors[..., :1] >= 0, vectors, other)


def euler_to_rotmat(convention: str, angles: Tensor) -> Tensor:
    """Matrices (..., 3, 3) of rotations by angles (..., K) in radians about the intrinsic axes named, such as "YXZ"."""
    matrices = torch.eye(3, dtype=angles.dtype, device=angles.device).expand(*angles.shape[:-1], 3, 3)
    for axis, angle in zip(convention, angles.unbind(-1), strict=True):
        direction = torch.zeros(3, dtype=angles.dtype, device=angles.device)
        direction["XYZ".index(axis)] = 1
        matrices = matrices @ rotvec_to_rotmat(angle[..., None] * direction)
    return matrices


def nearest_rotation(matrices: Tensor) -> Tensor:
    """The rotations (..., 3, 3) nearest to matrices (..., 3, 3) in the Frobenius norm (orthogonal Procrustes)."""
    left, _, right = torch.linalg.svd(matrices)
    sign = torch.linalg.det(left @ right).sign()
    return left @ torch.cat([right[..., :2, :], right[..., 2:, :] * sign[..., None, None]], -2)
