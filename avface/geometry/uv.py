"""Maps over a mesh's uv square: baked attributes, textures unwrapped from pictures, displaced surfaces."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from scipy.ndimage import distance_transform_edt
from torch import Tensor
from torch.nn.functional import normalize

from avface.geometry.rasteriser import Fragments, rasterise
from avface.geometry.shading import sample_image


@dataclass(frozen=True)
class UVAtlas:
    """The point of a mesh under each texel of its uv square, for one mesh and resolution.

    Shapes: faces (F, 3) vertex numbers; triangle (R, R) face number or -1, barycentric (R, R, 3).
    Axes:   row 0 is at v = 1, as in image files; texel (row, column) has its middle at u = (column + 0.5) / R,
            v = 1 - (row + 0.5) / R.
    """

    faces: Tensor
    triangle: Tensor
    barycentric: Tensor

    @classmethod
    def of(cls, faces: Tensor, uv: Tensor, uv_faces: Tensor, resolution: int) -> UVAtlas:
        """The atlas of a mesh: faces (F, 3), uv (N, 2) in [0, 1] with v up, uv_faces (F, 3); R = resolution.

        Where triangles overlap in the uv square, the one with the lower number wins.

        Raises:
            ValueError: if the resolution is below 1.
        """
        if resolution < 1:
            raise ValueError(f"resolution={resolution} must be 1 texel or more")
        uv = torch.as_tensor(uv, device=faces.device)
        pixels = resolution * torch.stack([uv[:, 0], 1 - uv[:, 1]], 1) - 0.5
        corners = torch.as_tensor(uv_faces, device=faces.device)
        found = rasterise(pixels, torch.ones_like(uv[:, 0]), corners, resolution, resolution)
        return cls(faces, found.triangle, found.barycentric)

    @property
    def resolution(self) -> int:
        """Texels along a side, R."""
        return len(self.triangle)

    @property
    def mask(self) -> Tensor:
        """The texels (R, R) that lie on the mesh."""
        return self.triangle >= 0

    def bake(self, attributes: Tensor) -> Tensor:
        """Vertex attributes (..., V, C) at every texel: (..., R, R, C); 0 off the mesh. Differentiable."""
        lead, channels = attributes.shape[:-2], attributes.shape[-1]
        # (V, ... * C): all pictures share triangles and weights
        columns = attributes.movedim(-2, 0).flatten(1)
        baked = self._fragments.interpolate(columns, self.faces)
        return baked.view(*baked.shape[:2], *lead, channels).movedim((0, 1), (-3, -2))

    def extend(self, texture: Tensor) -> Tensor:
        """A texture (..., R, R, C) whose texels off the mesh get the colour of the nearest on it (padding).
        Differentiable.

        So bilinear sampling near a seam does not blend in the background.
        """
        return texture.flatten(-3, -2).index_select(-2, self._nearest).view(texture.shape)

    def displace(self, vertices: Tensor, normals: Tensor, displacement: Tensor) -> Tensor:
        """The surface with its displacement at every texel: V_d = V_c + D N_c, (..., R, R, 3); 0 off the mesh.

        vertices and their unit normals (..., V, 3), displacement (..., R, R) in metres along the normal.
        Differentiable in all three. Source: AVFace, section 3.3.
        """
        points, directions = self.bake(vertices), normalize(self.bake(normals), dim=-1)
        return points + (displacement * self.mask)[..., None] * directions

    def unwrap(
        self, image: Tensor, pixels: Tensor, depth: Tensor, facing: Tensor, tolerance: float = 0.001
    ) -> tuple[Tensor, Tensor]:
        """The texture of the mesh in a picture, and its visibility.

        Args:
            image: (..., H, W, C) pictures.
            pixels: (..., V, 2) positions of the vertices; pixel (0, 0) is the middle of the top-left pixel.
            depth: (..., V) distances along the camera's z axis in metres, as for `rasterise`.
            facing: (..., V) cosine between a vertex's normal and the direction to the camera, as of `facing_cosine`.
            tolerance: largest difference in metres between the depths of a texel and of the pixels around it.

        Returns:
            texture (..., R, R, C), differentiable in `image` and `pixels`, 0 where invisible; and visibility (..., R,
            R): the cosine of the viewing angle, 0 where the texel is outside the picture, turned away, occluded, or
            less than a pixel from the edge of an occluder.
        """
        height, width = image.shape[-3:-1]
        # straight lines in space stay straight in (x z, y z, z), not in (x, y)
        baked = self.bake(torch.cat([pixels * depth[..., None], depth[..., None]], -1))
        z = baked[..., 2]
        ahead = self.mask & (z > 0)
        places = torch.where(ahead[..., None], baked[..., :2] / torch.where(ahead, z, 1.0)[..., None], -1.0)
        with torch.no_grad():
            x, y = places.unbind(-1)
            within = ahead & (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
            shown = rasterise(pixels, depth, self.faces, height, width).depth
            seen = within & self._agrees(shown, places.detach(), z, pixels, depth, tolerance)
            visibility = self.bake(facing[..., None])[..., 0].clamp_min(0) * seen
        texture = sample_image(image, places) * (visibility > 0)[..., None]
        return texture, visibility

    def _agrees(
        self, shown: Tensor, places: Tensor, z: Tensor, pixels: Tensor, depth: Tensor, tolerance: float
    ) -> Tensor:
        """Whether all four pixels around places (..., R, R, 2) show the texel's surface: (..., R, R).

        shown (..., H, W) is the picture's depth map; it is compared with the plane of the texel's triangle at the
        middle of each pixel.
        """
        growth = _nearness_growth(pixels, depth, self.faces)  # (..., F, 2)
        of_texels = growth.index_select(-2, self.triangle.clamp_min(0).flatten()).unflatten(
            -2, self.triangle.shape
        )
        corner = places.floor()
        agrees = torch.ones_like(z, dtype=torch.bool)
        lead, (height, width) = shown.shape[:-2], shown.shape[-2:]
        for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
            pixel = corner + corner.new_tensor(step)
            away = pixel - places
            counts = (away.abs() < 1).all(-1)  # else the pixel has no bilinear weight
            column, row = pixel[..., 0].clamp(0, width - 1).long(), pixel[..., 1].clamp(0, height - 1).long()
            there = (
                shown.flatten(-2).gather(-1, (row * width + column).flatten(-2)).view(*lead, *z.shape[-2:])
            )
            expected = 1 / (1 / z + (of_texels * away).sum(-1))
            agrees &= ~counts | ((there - expected).abs() <= tolerance)
        return agrees

    @cached_property
    def _fragments(self) -> Fragments:
        return Fragments(self.triangle, self.barycentric, torch.where(self.mask, 1.0, torch.inf))

    @cached_property
    def _nearest(self) -> Tensor:
        """For each texel (R * R,) the number of the nearest one on the mesh."""
        rows, columns = distance_transform_edt(
            ~self.mask.cpu().numpy(), return_distances=False, return_indices=True
        )
        return torch.as_tensor(rows * self.resolution + columns, device=self.triangle.device).flatten()


def facing_cosine(points: Tensor, normals: Tensor) -> Tensor:
    """Cosine (..., V) between unit normals and the direction from points, both (..., V, 3), to a camera in the
    origin."""
    return -(normalize(points, dim=-1) * normals).sum(-1)


def _nearness_growth(pixels: Tensor, depth: Tensor, faces: Tensor) -> Tensor:
    """Derivatives of 1 / depth by pixel x and y on each triangle: (..., F, 2); 0 on edge-on triangles."""
    corners, near = pixels.double()[..., faces, :], 1 / depth.double()[..., faces]
    one, other = corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :]
    rise_one, rise_other = near[..., 1] - near[..., 0], near[..., 2] - near[..., 0]
    area = one[..., 0] * other[..., 1] - one[..., 1] * other[..., 0]
    by_x = rise_one * other[..., 1] - rise_other * one[..., 1]
    by_y = rise_other * one[..., 0] - rise_one * other[..., 0]
    growth = torch.stack([by_x, by_y], -1) / torch.where(area == 0, 1.0, area)[..., None]
    return torch.where((area == 0)[..., None], 0.0, growth).to(pixels.dtype)
