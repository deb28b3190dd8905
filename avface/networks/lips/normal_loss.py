"""Normals of the lips against a reference: equation 1 of AVFace.

It compares the Laplacians of normal maps. They remove constant offsets, in which normal estimation networks and meshes
disagree, and keep edges and creases.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, normalize

from avface.geometry.axes import flip_axes
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import Backend, rasterise
from avface.networks.laplacian import laplacian


def render_normals(
    points: Tensor, pixels: Tensor, faces: Tensor, height: int, width: int, *, backend: Backend = "torch"
) -> tuple[Tensor, Tensor]:
    """Rendered unit normals (B, 3, H, W) of meshes, and the mask (B, H, W) bool of surfaces that face the camera.

    points (B, V, 3) in camera axes (x right, y down, z forward), pixels (B, V, 2) their projections, faces (F, 3).
    Normals are in the axes of normal maps: x right, y up, z towards the camera; 0 outside the mask. Differentiable in
    points and pixels.
    """
    fragments = rasterise(pixels, points[..., 2], faces, height, width, backend=backend)
    turned = flip_axes(vertex_normals(points, faces))
    normals = fragments.interpolate(turned, faces)
    mask = (fragments.triangle >= 0) & (normals[..., 2] > 0)
    # the norm has no gradient at the zeros outside the mask
    safe = torch.where(mask[..., None], normals, normals.new_tensor([0.0, 0.0, 1.0]))
    return (normalize(safe, dim=-1) * mask[..., None]).movedim(-1, 1), mask


def lip_normals_loss(predicted: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """Mean over pixels and channels of |lap(predicted) - lap(reference)|; 0 if no pixel counts.

    predicted and reference (B, 3, H, W) unit normals in the same axes, the reference without gradient: synthetic
    truth, or the estimate of a network from the picture. mask (B, H, W) bool of the lips where both are known; a pixel
    counts if its eight neighbours are in the mask, too.
    Source: AVFace, eq. 1. Its norm is a sum; the mean doesn't depend on the size of the picture.
    """
    eroded = -max_pool2d(-mask[:, None].to(predicted), 3, 1)
    difference = (laplacian(predicted) - laplacian(reference.detach())).abs() * eroded
    return difference.sum() / (3 * eroded.sum()).clamp_min(1)
