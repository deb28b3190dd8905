"""Photometric loss and identity loss between the rendered head and the frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity, normalize

from avface.geometry.axes import flip_axes
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import Backend, rasterise
from avface.geometry.shading import sample_texture, sh_shading


@dataclass(frozen=True, eq=False)
class Surface:
    """The parts of a mesh that rendering needs besides its vertices.

    Shapes: faces (F, 3) vertex numbers, uv (N, 2) with v up, uv_faces (F, 3) numbers into uv, skin (V,) from 0 to 1:
            weights of the vertices in the loss, such as `HeadModel.regions["face"]`.
    """

    faces: Tensor
    uv: Tensor
    uv_faces: Tensor
    skin: Tensor


@dataclass(frozen=True, eq=False)
class Rendering:
    """Rendered pictures of heads."""

    image: Tensor
    """(B, H, W, 3) RGB, not clamped; 0 where there is no head."""
    mask: Tensor
    """(B, H, W) from 0 to 1: skin that faces the camera. No gradient."""


def render(
    surface: Surface,
    points: Tensor,
    pixels: Tensor,
    depth: Tensor,
    albedo: Tensor,
    light: Tensor,
    height: int,
    width: int,
    *,
    backend: Backend = "torch",
) -> Rendering:
    """Render Lambertian heads under spherical harmonic light: image = albedo * shading(normal).

    Args:
        surface: the mesh.
        points: (B, V, 3) vertices in camera axes (x right, y down, z forward), for the normals.
        pixels: (B, V, 2) their projections; pixel (0, 0) is the middle of the top-left one.
        depth: (B, V) above 0, increasing with the distance from the camera.
        albedo: (B, R, R, 3) textures, row 0 at v = 1, in the colour space of the pictures to compare with.
        light: (B, 9, 3) as in `CoarseCode.light`.
        height: rows of a picture.
        width: columns of a picture.
        backend: of the rasteriser.

    Differentiable in points and pixels (but for the visibility of triangles), albedo and light.
    Source: DECA (Feng et al. 2021), `renderer`.
    """
    normals = flip_axes(vertex_normals(points, surface.faces))
    found = rasterise(pixels, depth, surface.faces, height, width, backend=backend)
    towards = normalize(found.interpolate(normals, surface.faces), dim=-1)
    places = found.interpolate(surface.uv.to(points), surface.uv_faces)
    image = sample_texture(albedo, places) * sh_shading(towards, light)
    seen = (found.triangle >= 0) & (towards[..., 2] > 0)
    skin = found.interpolate(surface.skin.to(points)[:, None], surface.faces)[..., 0]
    return Rendering(torch.where((found.triangle >= 0)[..., None], image, 0.0), (skin * seen).detach())


def photometric_loss(rendering: Rendering, image: Tensor, mask: Tensor) -> Tensor:
    """Mean over all pixels and channels of M |rendered - image|, M the product of both masks.

    image (B, H, W, 3) RGB from 0 to 1; mask (B, H, W) of unoccluded skin of the face, as `face` in training windows. It
    excludes the eyes, the inside of the mouth and hair, which the model doesn't render.
    Source: DECA, `trainer` (weight 2).
    """
    weight = (rendering.mask * mask.to(rendering.mask))[..., None]
    return (weight * (rendering.image - image).abs()).mean()


def overlay(rendering: Rendering, image: Tensor) -> Tensor:
    """The picture (B, H, W, 3) with the rendered skin composited on it, for the identity loss.

    To train geometry alone, render it with detached albedo and light (DECA).
    """
    weight = rendering.mask[..., None]
    return weight * rendering.image.clamp(0, 1) + (1 - weight) * image


def identity_loss(recognise: Callable[[Tensor], Tensor], rendered: Tensor, image: Tensor) -> Tensor:
    """Mean of 1 - cos(f(rendered), f(image)): distance of face recognition embeddings.

    recognise: a face recognition network: pictures (B, 3, H, W) RGB from 0 to 1 -> (B, D). It
    crops and scales its input itself, and must be differentiable. rendered and image (B, H, W, 3); no gradient
    goes into image.
    Source: DECA (weight 0.2), with a VGGFace2 network.
    """
    with torch.no_grad():
        known = recognise(image.movedim(-1, 1))
    return (1 - cosine_similarity(recognise(rendered.movedim(-1, 1)), known, dim=-1)).mean()
