"""Shading: spherical harmonics lighting, normal and displacement maps, texture sampling."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

SH_NORMS = (
    math.sqrt(1 / (4 * math.pi)),
    *3 * (math.sqrt(3 / (4 * math.pi)),),
    *3 * (3 * math.sqrt(5 / (12 * math.pi)),),
    1.5 * math.sqrt(5 / (12 * math.pi)),
    0.5 * math.sqrt(5 / (4 * math.pi)),
)
"""Factors that make the nine polynomials of `sh_basis` orthonormal on the sphere."""

SH_LAMBERT = (1.0, *3 * (2 * math.pi / 3,), *5 * (math.pi / 4,))
"""Factors of the clamped cosine (Lambertian reflection) on each order, divided by pi in the first one as in DECA."""


def sh_basis(normals: Tensor) -> Tensor:
    """The nine spherical harmonics (..., 9) of a Lambertian surface with unit normals (..., 3).

    1, x, y, z, xy, xz, yz, x^2 - y^2, 3 z^2 - 1, times SH_NORMS and SH_LAMBERT. The axes are the light's own.
    Source: DECA (Feng et al. 2021, sec. 3) after Ramamoorthi and Hanrahan, An efficient representation for irradiance
            environment maps, 2001.
    """
    x, y, z = normals.unbind(-1)
    polynomials = (torch.ones_like(x), x, y, z, x * y, x * z, y * z, x**2 - y**2, 3 * z**2 - 1)
    factors = (norm * kept for norm, kept in zip(SH_NORMS, SH_LAMBERT, strict=True))
    return torch.stack([factor * value for factor, value in zip(factors, polynomials, strict=True)], -1)


def sh_shading(normals: Tensor, light: Tensor) -> Tensor:
    """RGB irradiance factor (*L, ..., 3) of the albedo, under light (*L, 9, 3), for unit normals (*L, ..., 3).

    Not clamped: strong light from one side is slightly negative on the other.
    """
    lead = light.ndim - 2
    basis = (
        sh_basis(normals.flatten(lead, -2)) if normals.ndim > lead + 1 else sh_basis(normals)[..., None, :]
    )
    return (basis @ light).reshape(*normals.shape[:-1], light.shape[-1])


def directional_light(direction: Tensor, colour: Tensor) -> Tensor:
    """Light (..., 9, 3) of a directional light from the unit `direction` (..., 3), of RGB `colour` (..., 3).

    With it `sh_shading` is the second-order approximation of colour * max(0, n . direction), within a tenth of the
    colour.
    """
    lambert = sh_basis(direction) / direction.new_tensor(SH_LAMBERT)
    lambert = torch.cat([math.pi * lambert[..., :1], lambert[..., 1:]], -1)
    return lambert[..., None] * colour[..., None, :]


def sample_texture(texture: Tensor, uv: Tensor) -> Tensor:
    """A texture (*L, R, S, C) at places uv (*L, ..., 2), bilinearly: (*L, ..., C); clamped outside [0, 1].

    v is up: row 0 of the texture is at v = 1, as in image files, and texel (row, column) has its middle at
    u = (column + 0.5) / S, v = 1 - (row + 0.5) / R. Differentiable in both.
    """
    return _bilinear(texture, torch.stack([2 * uv[..., 0] - 1, 1 - 2 * uv[..., 1]], -1))


def sample_image(image: Tensor, pixels: Tensor) -> Tensor:
    """A picture (*L, H, W, C) at places in pixels (*L, ..., 2), bilinearly: (*L, ..., C); clamped outside.

    Pixel (0, 0) is the middle of the top-left pixel. Differentiable in both.
    """
    height, width = image.shape[-3:-1]
    x, y = pixels.unbind(-1)
    return _bilinear(image, torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], -1))


def _bilinear(image: Tensor, places: Tensor) -> Tensor:
    """image (*L, H, W, C) at places (*L, ..., 2) from -1 to 1 across the picture: (*L, ..., C)."""
    lead, size = image.shape[:-3], image.shape[-3:]
    if places.shape[: len(lead)] != lead:
        raise ValueError(
            f"a picture of shape {tuple(image.shape)} can't be sampled at places {tuple(places.shape)}: "
            f"they must begin with {tuple(lead)}"
        )
    planes = image.reshape(lead.numel(), *size).movedim(-1, 1)
    found = grid_sample(
        planes,
        places.reshape(lead.numel(), 1, -1, 2),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )
    return found.movedim(1, -1).reshape(*places.shape[:-1], size[-1])


def uv_gradients(vertices: Tensor, faces: Tensor, uv: Tensor, uv_faces: Tensor) -> tuple[Tensor, Tensor]:
    """Derivatives of the position by u and v on each triangle: two (..., F, 3), in metres per unit of uv.

    vertices (..., V, 3), faces (F, 3), uv (N, 2), uv_faces (F, 3). 0 on triangles without area in the uv square.
    """
    corners, places = vertices[..., faces, :], uv[uv_faces].to(vertices.dtype)
    one, other = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    (u1, v1), (u2, v2) = (places[:, 1] - places[:, 0]).t(), (places[:, 2] - places[:, 0]).t()
    area = u1 * v2 - u2 * v1
    inverse = torch.where(area == 0, 0.0, 1 / torch.where(area == 0, 1.0, area))
    by_u = (v2 * inverse)[:, None] * one - (v1 * inverse)[:, None] * other
    by_v = (u1 * inverse)[:, None] * other - (u2 * inverse)[:, None] * one
    return by_u, by_v


def perturb_normals(normals: Tensor, mapped: Tensor, by_u: Tensor, by_v: Tensor) -> Tensor:
    """Unit normals (..., 3) perturbed by those of a tangent-space normal map.

    normals (..., 3) unit; mapped (..., 3) from the map, in [-1, 1]: x along u, y along v, z out of the surface
    (OpenGL's and glTF's convention); by_u and by_v (..., 3) as of `uv_gradients`. Where these vanish the normal is
    unchanged.
    """
    across_u = by_u - (by_u * normals).sum(-1, keepdim=True) * normals
    along_u = normalize(across_u, dim=-1)
    along_v = torch.linalg.cross(normals, along_u, dim=-1)
    mirrored = (along_v * by_v).sum(-1, keepdim=True) < 0
    along_v = torch.where(mirrored, -along_v, along_v)
    x, y, z = (value[..., None] for value in mapped.unbind(-1))
    return normalize(x * along_u + y * along_v + z * normals, dim=-1)


def displacement_slope(displacement: Tensor) -> Tensor:
    """Derivatives (..., R, S, 2) of a displacement map (..., R, S) along u and v, in metres per unit of uv.

    Central differences, one-sided at the border; row 0 is at v = 1.
    """
    along_v, along_u = torch.gradient(displacement, dim=(-2, -1))
    height, width = displacement.shape[-2:]
    return torch.stack([width * along_u, -height * along_v], -1)


def displacement_normals(
    normals: Tensor, displacement: Tensor, uv: Tensor, by_u: Tensor, by_v: Tensor
) -> Tensor:
    """Unit normals (*L, ..., 3) of a surface displaced along its normals by a map (*L, R, S) in metres.

    normals (*L, ..., 3) unit, of the smooth surface; uv (*L, ..., 2); by_u and by_v (*L, ..., 3), metres per unit of
    uv, as of `uv_gradients`. Where these vanish, as off the head, the normal is unchanged.

    The displacement's surface gradient is subtracted from the normal: exact to first order in displacement over the
    surface's radius of curvature, and the same for stretched, skewed and mirrored uv.
    Source: Mikkelsen, Bump mapping unparametrized surfaces on the GPU, 2010, eq. 2.
    """
    slope = sample_texture(displacement_slope(displacement), uv)
    across_u, across_v = torch.linalg.cross(by_v, normals, dim=-1), torch.linalg.cross(normals, by_u, dim=-1)
    area = (by_u * across_u).sum(-1, keepdim=True)
    usable = area.abs() > 1e-12
    gradient = slope[..., :1] * across_u + slope[..., 1:] * across_v
    gradient = torch.where(usable, gradient / torch.where(usable, area, 1.0), 0.0)
    return normalize(normals - gradient, dim=-1)
