"""Textures of a head: the surface point of each texel, and noise with wavelengths in metres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, map_coordinates
from scipy.sparse import csr_matrix

from avface.arrays import F32, Bool, Floats, Int, Ints
from avface.geometry.interpolation import smoothstep
from avface.geometry.rasteriser import rasterise
from avface.head.model import HeadModel

Texture = F32

_LATTICE = 32
"""Period of the noise lattice in cells."""


@dataclass(frozen=True)
class TextureAtlas:
    """The surface under a square texture of R x R texels; row 0 is v = 1, column 0 is u = 0.

    Shapes: triangle (R, R) face number, barycentric (R, R, 3), inside (R, R). Texels outside the UV islands (`inside`
            False) repeat the nearest one inside, so that filtering doesn't bleed at the seams.
    """

    triangle: Int
    barycentric: F32
    inside: Bool
    matrix: csr_matrix
    """(R * R, V): interpolates values at the vertices to the texels, row by row."""

    @property
    def resolution(self) -> int:
        """Texels R across the square."""
        return len(self.triangle)

    def bake(self, values: Floats) -> Texture:
        """Values at the vertices, (V,) or (V, C), as a texture (R, R) or (R, R, C)."""
        texels = self.matrix @ np.asarray(values, np.float32)
        return np.ascontiguousarray(texels.reshape(self.resolution, self.resolution, *values.shape[1:]))


def build_atlas(
    faces: Ints,
    uv: Floats,
    uv_faces: Ints,
    num_vertices: int,
    resolution: int,
) -> TextureAtlas:
    """The atlas of a mesh: faces (F, 3), uv (N, 2) with v up, uv_faces (F, 3) that index it.

    Raises:
        ValueError: if no texel falls on the mesh, because the texture is too coarse or the UVs have no area.
    """
    corner = torch.as_tensor(np.asarray(uv, np.float64))
    pixels = torch.stack([corner[:, 0] * resolution - 0.5, (1 - corner[:, 1]) * resolution - 0.5], 1)
    fragments = rasterise(
        pixels,
        torch.ones(len(pixels), dtype=torch.float64),
        torch.as_tensor(np.asarray(uv_faces, np.int64)),
        resolution,
        resolution,
    )
    triangle = fragments.triangle.numpy()
    inside = triangle >= 0
    if not inside.any():
        raise ValueError(f"no texel of {resolution} x {resolution} falls on the mesh's UV islands")
    rows, columns = distance_transform_edt(~inside, return_distances=False, return_indices=True)
    triangle = triangle[rows, columns]
    barycentric = fragments.barycentric.numpy().astype(np.float32)[rows, columns]
    corners = np.asarray(faces)[triangle.ravel()].astype(np.int32)
    count = resolution * resolution
    matrix = csr_matrix(
        (barycentric.reshape(-1), corners.ravel(), np.arange(0, 3 * count + 1, 3, dtype=np.int32)),
        shape=(count, num_vertices),
    )
    return TextureAtlas(triangle, barycentric, inside, matrix)


@lru_cache(maxsize=4)
def head_atlas(head: HeadModel, resolution: int) -> TextureAtlas:
    """The atlas of a head; cached."""
    return build_atlas(head.faces.cpu().numpy(), head.uv, head.uv_faces, head.num_vertices, resolution)


def value_noise(rng: np.random.Generator, points: Floats, wavelength: float, octaves: int = 1) -> Texture:
    """Value noise (N,) of zero mean and unit standard deviation at points (N, 3) in metres.

    wavelength is that of its coarsest octave in metres; each further octave has half the wavelength and half the
    amplitude. As a function of position, not of texels, it has no seams and is the same at any resolution.
    """
    total = np.zeros(len(points), np.float32)
    axes = np.ascontiguousarray(np.asarray(points, np.float32).T)
    power = 0.0
    for octave in range(octaves):
        strength = 0.5**octave
        lattice = rng.standard_normal((_LATTICE,) * 3).astype(np.float32)
        place = axes * np.float32(2 * 2**octave / wavelength)
        place += rng.uniform(0, _LATTICE, (3, 1)).astype(np.float32)
        cell = np.floor(place)
        part = place - cell
        place = cell + smoothstep(0, 1, part)  # continuous derivatives across lattice planes
        total += strength * map_coordinates(lattice, place, order=1, mode="grid-wrap", prefilter=False)
        power += strength**2
    return total / np.float32(_BLEND_SPREAD * np.sqrt(power))


_BLEND_SPREAD = (26 / 35) ** 1.5
"""Standard deviation of a trilinear blend of unit normal values: (1 - s)^2 + s^2 has the mean 26/35 over a step."""
