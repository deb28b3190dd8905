"""The face in texture space: maps over a square window of the uv square that contains the face.

A window, as the face has only a third of the uv square's texels. Row 0 is at the forehead, as in image files.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from scipy.ndimage import distance_transform_edt, gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree
from torch import Tensor
from torch.nn.functional import avg_pool2d, grid_sample

from avface.arrays import F32, U8, Bool
from avface.errors import AvfaceError
from avface.geometry.axes import flip_axes
from avface.geometry.camera import Camera
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import rasterise
from avface.geometry.shading import uv_gradients
from avface.geometry.uv import UVAtlas
from avface.head.model import HeadModel

MARGIN = 0.01
"""Margin of the window around the face, in units of the uv square."""
BORDER = 6.0
"""Width of the mask's soft edge around face, eyes and mouth, in texels at resolution 256."""
GRAZING = (0.12, 0.4)
"""Cosines between normal and viewing direction from which visibility rises from 0 to 1."""
BOX_SIZE = 13
"""Texels across the box filter, applied twice, for the local mean brightness."""
_DEPTH_SIZE = 128
"""Pixels across the depth map for self-occlusion."""
_TOLERANCE = 0.003
"""Metres of depth beyond the depth map's up to which a texel counts as visible."""


@dataclass(frozen=True, eq=False)
class DetailMaps:
    """Image, normals and visibility of a frame in the window's R x R texels.

    image (..., 3, R, R) RGB from 0 to 1, 0 where hidden; normals (..., 3, R, R) unit, of the coarse surface, in the
    camera's axes of glTF (x right in the picture, y up, z towards the camera), as the light is; visibility (..., R, R)
    from 0 to 1.
    """

    image: Tensor
    normals: Tensor
    visibility: Tensor

    def stacked(self) -> Tensor:
        """The network's input (..., 7, R, R): 3 channels of the picture, normals, visibility.

        Of the picture: brightness relative to the local mean, which shows folds; relative to the mean of the face,
        which shows the light's direction; and the ratio of red to green, which separates skin from hair. The first two
        are invariant to exposure, the third nearly so.
        """
        visibility = self.visibility[..., None, :, :]
        weight = (visibility > 0).to(self.image)
        bright = self.image.mean(-3, keepdim=True).clamp_min(1e-3)
        mean = (bright * weight).sum((-2, -1), keepdim=True) / weight.sum((-2, -1), keepdim=True).clamp_min(1)
        red = (self.image[..., :1, :, :] + 0.05) / (self.image[..., 1:2, :, :] + 0.05)
        local = _box_mean(bright * weight) / _box_mean(weight).clamp_min(1e-3)
        fine = (6 * (bright / local.clamp_min(1e-3) - 1)).clamp(-3, 3)
        broad = (bright / mean.clamp_min(1e-3) - 1).clamp(-1, 2)
        picture = torch.cat([fine, broad, (2 * (red - 1.4)).clamp(-2, 2)], -3)
        return torch.cat([picture * weight, self.normals, visibility], -3)

    @classmethod
    def stack(cls, frames: Sequence[DetailMaps]) -> DetailMaps:
        """The maps of several frames."""
        return cls(
            torch.stack([maps.image for maps in frames]),
            torch.stack([maps.normals for maps in frames]),
            torch.stack([maps.visibility for maps in frames]),
        )

    def of(self, frame: int) -> DetailMaps:
        """The maps of one of several frames."""
        return DetailMaps(self.image[frame], self.normals[frame], self.visibility[frame])

    def without(self, occluded: Tensor) -> DetailMaps:
        """The same with image and visibility 0 at occluded texels (..., R, R) bool."""
        shown = ~occluded
        return DetailMaps(self.image * shown[..., None, :, :], self.normals, self.visibility * shown)


def _box_mean(maps: Tensor) -> Tensor:
    """Maps (..., 1, R, R) after a box filter, twice."""
    planes = maps.reshape(-1, 1, *maps.shape[-2:])
    for _ in range(2):
        planes = avg_pool2d(planes, BOX_SIZE, 1, BOX_SIZE // 2, count_include_pad=False)
    return planes.view(maps.shape)


class DetailAtlas:
    """The window of a head: the point of the face under each texel, and the mask of detail.

    mask (R, R) from 0 to 1: the face's skin; 0 on neck, scalp, ears, eyes and in the mouth, with soft edges. mirror (R,
    R, 2) is the place of each texel's mirror image, x and y from -1 to 1 across the window, from the mirrored pairs of
    the template's vertices.
    """

    def __init__(self, head: HeadModel, resolution: int = 256) -> None:
        """The window of a head, R = resolution.

        Raises:
            AvfaceError: if the head has no region "face" or isn't symmetric, or the resolution is below 2.
        """
        if resolution < 2:
            raise AvfaceError(f"resolution={resolution} must be 2 or more texels")
        if "face" not in head.regions:
            raise AvfaceError(f"the {head.name} head has no region 'face', which detail needs")
        self.head, self.resolution = head, resolution
        uv, faces = torch.as_tensor(head.uv), head.faces.cpu()
        corners = torch.as_tensor(head.uv_faces)
        skin = torch.as_tensor(_largest_island(head))
        region = torch.as_tensor(head.regions["face"])
        self.corner, self.side = _window(uv, corners[skin & region[faces].all(1)])
        """Left and upper edge (2,) of the window, as u and 1 - v; and its side, in units of the uv square."""
        inside = torch.stack([uv[:, 0] - self.corner[0], 1 - uv[:, 1] - self.corner[1]], 1) / self.side
        self.uv = torch.stack([inside[:, 0], 1 - inside[:, 1]], 1)
        self.uv_faces = corners
        self.atlas = UVAtlas.of(faces, self.uv, corners, resolution)
        self.faces = faces
        held = skin[self.atlas.triangle.clamp_min(0)] & self.atlas.mask
        face = (self.atlas.bake(region.float()[:, None])[..., 0] > 0.5) & held
        away = distance_transform_edt(np.pad(face.numpy(), 1))[1:-1, 1:-1]
        fade = np.clip((away - 1) / (BORDER * resolution / 256), 0, 1)
        soft = gaussian_filter(fade, resolution / 256) * face.numpy()
        self.mask = torch.as_tensor(soft, dtype=torch.float32)
        self.mirror = self._mirror()
        self._metric = self._neutral_metric()
        self._used = torch.unique(faces[self.atlas.triangle[self.mask > 0]])

    def maps(
        self,
        image: U8,
        points: Tensor,
        camera: Camera,
        occluded: Bool | None = None,
    ) -> DetailMaps:
        """Image, normals and visibility of the face in a picture.

        Args:
            image: (H, W, 3) RGB.
            points: (V, 3) the coarse vertices in camera axes.
            camera: of the picture.
            occluded: (H, W) occlusion mask of the face; none if not known.

        Visibility rises with the cosine of the viewing angle (GRAZING); it is 0 outside the picture, where the head
        occludes itself, and at `occluded` pixels.
        """
        places, depth, normals = self._texel_geometry(points, camera)
        facing = -(normals * unit(torch.cat([places * depth, depth], -1), dim=-1)).sum(-1)
        pixels = camera.focal_length * places + places.new_tensor(camera.principal_point)
        low, high = GRAZING
        visibility = ((facing - low) / (high - low)).clamp(0, 1) * (self.mask > 0)
        visibility = visibility * self._self_visibility(points, camera, pixels, depth[..., 0], facing)
        height, width = image.shape[:2]
        within = (pixels >= 0).all(-1) & (pixels[..., 0] <= width - 1) & (pixels[..., 1] <= height - 1)
        visibility = visibility * within
        colour, covered = self._sample(image, pixels, occluded)
        visibility = visibility * ~covered
        shown = (visibility > 0)[..., None]
        upright = flip_axes(normals)
        return DetailMaps(
            (torch.from_numpy(colour) / 255 * shown).movedim(-1, 0).contiguous(),
            upright.movedim(-1, 0).contiguous(),
            visibility,
        )

    def pixels(self, points: Tensor, camera: Camera) -> Tensor:
        """Pixel (R, R, 2) of each texel, for vertices (V, 3) in camera axes."""
        places, _, _ = self._texel_geometry(points, camera)
        return camera.focal_length * places + places.new_tensor(camera.principal_point)

    def _texel_geometry(self, points: Tensor, camera: Camera) -> tuple[Tensor, Tensor, Tensor]:
        """x / z and y / z (R, R, 2), z (R, R, 1) and unit normals (R, R, 3) of the texels, in camera axes."""
        baked = self.atlas.bake(torch.cat([points, vertex_normals(points, self.faces)], 1))
        depth = torch.where(self.atlas.mask[..., None], baked[..., 2:3], 1.0).clamp_min(1e-3)
        return baked[..., :2] / depth, depth, unit(baked[..., 3:], dim=-1)

    def _self_visibility(
        self, points: Tensor, camera: Camera, pixels: Tensor, depth: Tensor, facing: Tensor
    ) -> Tensor:
        """1 where no other part of the head occludes a texel (R, R), else 0, from a depth map."""
        vertices = camera.project(points)
        box = vertices[self._used]
        low = box.amin(0) - 2
        scale = (_DEPTH_SIZE - 1) / float((box.amax(0) + 2 - low).max().clamp_min(1))
        shown = rasterise((vertices - low) * scale, points[:, 2], self.faces, _DEPTH_SIZE, _DEPTH_SIZE).depth
        place = (pixels - low) * scale
        corner = place.floor().long()
        nearest = torch.full_like(depth, torch.inf)
        for step in ((0, 0), (1, 0), (0, 1), (1, 1)):
            column, row = (corner + corner.new_tensor(step)).clamp(0, _DEPTH_SIZE - 1).unbind(-1)
            nearest = torch.minimum(nearest, shown[row, column])
        pixel = depth / camera.focal_length / scale
        steep = (1 - facing.square()).clamp_min(0).sqrt() / facing.clamp_min(0.05)
        return (depth <= nearest + _TOLERANCE + 1.5 * pixel * steep).to(depth)

    def _sample(self, image: U8, pixels: Tensor, occluded: Bool | None) -> tuple[F32, Tensor]:
        """Colours (R, R, 3) from 0 to 255 of the picture at pixels (R, R, 2), and where it is occluded (R, R) bool."""
        at = pixels.numpy()
        chosen = at[self.mask.numpy() > 0]
        size = float(np.ptp(chosen, axis=0).max()) / self.resolution
        picture, place = image, at
        if size > 1.5:  # downscaled first, against aliasing
            low = np.floor(np.maximum(chosen.min(0) - 2, 0)).astype(int)
            high = np.ceil(np.minimum(chosen.max(0) + 3, image.shape[1::-1])).astype(int)
            if (high - low).min() >= 2:
                crop = image[low[1] : high[1], low[0] : high[0]]
                wanted = np.maximum(np.round((high - low) / size), 1).astype(int)
                picture = cv2.resize(crop, tuple(int(n) for n in wanted), interpolation=cv2.INTER_AREA)
                place = (at - low + 0.5) * (wanted / (high - low)) - 0.5
        colour = cv2.remap(
            picture.astype(np.float32),
            place.astype(np.float32),
            None,
            cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_REPLICATE,
        )
        if occluded is None:
            return colour, torch.zeros(self.mask.shape, dtype=torch.bool)
        covered = cv2.remap(
            occluded.astype(np.float32), at.astype(np.float32), None, cv2.INTER_LINEAR, borderValue=0
        )
        return colour, torch.from_numpy(covered > 0.05)

    @functools.cached_property
    def nearest_landmark(self) -> Tensor:
        """The nearest of the 478 landmarks to each texel, (R, R), whose visibility the texel shares.

        Raises:
            AvfaceError: if the head has no such landmarks.
        """
        embedding = self.head.embedding("mediapipe478")
        template = self.head.template.cpu().numpy()
        points = embedding.on(template)
        _, nearest = cKDTree(points).query(self.atlas.bake(self.head.template.cpu()).numpy())
        return torch.as_tensor(nearest)

    def displace(self, points: Tensor, displacement: Tensor) -> Tensor:
        """V_d = V_c + D N_c: the detailed surface (..., R, R, 3) of coarse vertices (..., V, 3), in their axes.

        displacement (..., R, R) metres. Differentiable. Source: AVFace, eq. 2.
        """
        return self.atlas.displace(points, vertex_normals(points, self.faces), displacement)

    def normals(self, points: Tensor, displacement: Tensor) -> Tensor:
        """Unit normals (..., R, R, 3) of the detailed surface, in the axes of the coarse vertices (..., V, 3).

        The coarse normals minus the surface gradient of the displacement (..., R, R): exact to first order, and without
        the facets of the coarse triangles that finite differences of `displace` have. Differentiable.
        """
        coarse = unit(self.atlas.bake(vertex_normals(points, self.faces)), dim=-1)
        by_u, by_v = self._tangents(points)
        across_u = torch.linalg.cross(by_v, coarse, dim=-1)
        across_v = torch.linalg.cross(coarse, by_u, dim=-1)
        area = (by_u * across_u).sum(-1, keepdim=True)
        usable = area.abs() > 1e-12
        u, v = self._slope(displacement).unbind(-1)
        gradient = u[..., None] * across_u + v[..., None] * across_v
        gradient = torch.where(usable, gradient / torch.where(usable, area, 1.0), 0.0)
        return unit(coarse - gradient, dim=-1)

    def tangent_normals(self, displacement: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
        """Unit normals (..., 3, H, W) in tangent space, on the neutral head: x along u, y along v, z out of the skin.

        The convention of glTF's normal maps. displacement (..., H, W) metres, a crop of the window at row and column
        `corner`. Differentiable.
        """
        x, y = self.tangent_slopes(displacement, corner).unbind(-3)
        return unit(torch.stack([-x, -y, torch.ones_like(x)], -3), dim=-3)

    def tangent_slopes(self, displacement: Tensor, corner: tuple[int, int] = (0, 0)) -> Tensor:
        """Slope (..., 2, H, W) of displacement (..., H, W) along x and y of `tangent_normals`; linear in it."""
        top, left = corner
        height, width = displacement.shape[-2:]
        metric = self._metric[:, top : top + height, left : left + width].to(displacement)
        u, v = self._slope(displacement).unbind(-1)
        x = u * metric[0]
        y = (v - metric[1] * x) * metric[2]
        return torch.stack([x, y], -3)

    def _neutral_metric(self) -> Tensor:
        """The map (3, R, R) from slopes along u and v to slopes along orthonormal axes on the neutral head."""
        by_u, by_v = self._tangents(self.head.template.cpu())
        long = by_u.norm(dim=-1)
        along_u = unit(by_u, dim=-1)
        skew = (by_v * along_u).sum(-1)
        high = (by_v - skew[..., None] * along_u).norm(dim=-1)
        usable = (long > 1e-6) & (high > 1e-6)
        return torch.stack(
            [
                torch.where(usable, part, 0.0)
                for part in (1 / long.clamp_min(1e-6), skew, 1 / high.clamp_min(1e-6))
            ]
        )

    def _tangents(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """Tangents along the window's u and v, two (..., R, R, 3) in metres; 0 off the mesh."""
        by_u, by_v = uv_gradients(points, self.faces, self.uv, self.uv_faces)
        number, mask = self.atlas.triangle.clamp_min(0).flatten(), self.atlas.mask[..., None]
        shape = (self.resolution, self.resolution)
        return tuple(part.index_select(-2, number).unflatten(-2, shape) * mask for part in (by_u, by_v))

    def _slope(self, displacement: Tensor) -> Tensor:
        """Derivatives (..., R, R, 2) of a map (..., R, R) along the window's u and v."""
        along_v, along_u = torch.gradient(displacement, dim=(-2, -1))
        return self.resolution * torch.stack([along_u, -along_v], -1)

    def flipped(self, maps: Tensor) -> Tensor:
        """Maps (..., C, R, R) of the mirrored face: each texel has the value of its mirror image. Differentiable."""
        planes = maps.reshape(1, -1, *maps.shape[-2:])
        turned = grid_sample(planes, self.mirror.to(maps)[None], padding_mode="border", align_corners=False)
        return turned.view(maps.shape)

    def vertex_places(self) -> Tensor:
        """u and v (V, 2) of the head's vertices in the window, 0 to 1 inside it; off the face's skin 0, its corner."""
        places = np.zeros((self.head.num_vertices, 2), np.float32)
        held = _largest_island(self.head)
        # A vertex on a seam has several: NumPy keeps the last one, torch whichever thread comes last.
        places[self.faces[held].flatten().numpy()] = self.uv[self.uv_faces[held].flatten()].numpy()
        return torch.from_numpy(places)

    def _mirror(self) -> Tensor:
        template = self.head.template.cpu().double().numpy()
        distance, partner = cKDTree(template).query(template * [-1, 1, 1])
        if distance.max() > 0.002:
            raise AvfaceError(f"the {self.head.name} head isn't symmetric, which detail needs")
        own = self.vertex_places()[torch.as_tensor(partner)]
        baked = self.atlas.bake(own)
        grid = torch.stack([2 * baked[..., 0] - 1, 1 - 2 * baked[..., 1]], -1)
        steps = (2 * torch.arange(self.resolution) + 1) / self.resolution - 1
        rows, columns = torch.meshgrid(steps, -steps, indexing="ij")
        return torch.where(self.atlas.mask[..., None], grid, torch.stack([columns, rows], -1))

    def from_uv_square(self, texture: Tensor) -> Tensor:
        """The window (..., R, R) of maps (..., S, S) of the whole uv square, averaged over each texel."""
        ratio = self.side * texture.shape[-1] / self.resolution
        fine = max(1, round(2 * ratio))
        steps = (torch.arange(self.resolution * fine) + 0.5) / (self.resolution * fine)
        x = 2 * (self.corner[0] + steps * self.side) - 1
        y = 2 * (self.corner[1] + steps * self.side) - 1
        grid = torch.stack([x[None].expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)
        planes = texture.reshape(1, -1, *texture.shape[-2:])
        found = grid_sample(planes, grid.to(planes)[None], padding_mode="border", align_corners=False)
        found = avg_pool2d(found, fine)
        return found.view(*texture.shape[:-2], self.resolution, self.resolution)

    def to_uv_square(self, maps: Tensor, resolution: int) -> Tensor:
        """Maps (..., R, R) of the window in the whole uv square (..., S, S), S = resolution; 0 outside the window."""
        steps = (torch.arange(resolution) + 0.5) / resolution
        x = 2 * (steps - self.corner[0]) / self.side - 1
        y = 2 * (steps - self.corner[1]) / self.side - 1
        grid = torch.stack([x[None].expand(len(y), -1), y[:, None].expand(-1, len(x))], -1)
        planes = maps.reshape(1, -1, *maps.shape[-2:])
        found = grid_sample(planes, grid.to(planes)[None], padding_mode="zeros", align_corners=False)
        return found.view(*maps.shape[:-2], resolution, resolution)


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length 1 along an axis; zeros stay. Many times faster on planes than torch's `normalize`."""
    return vectors * vectors.square().sum(dim, keepdim=True).clamp_min(1e-20).rsqrt()


def _largest_island(head: HeadModel) -> Bool:
    """The triangles (F,) of the skin's largest connected piece of the uv square."""
    skin = head.face_parts == head.part_names.index("skin")
    corners = head.uv_faces
    links = coo_matrix(
        (np.ones(2 * len(corners)), (corners[:, [0, 1]].ravel("F"), corners[:, [1, 2]].ravel("F"))),
        shape=(len(head.uv), len(head.uv)),
    )
    _, piece = connected_components(links, directed=False)
    of_faces = piece[corners[:, 0]]
    result: Bool = skin & (of_faces == np.bincount(of_faces[skin]).argmax())
    return result


def _window(uv: Tensor, corners: Tensor) -> tuple[tuple[float, float], float]:
    """The square around the uv of triangles (F, 3), centred at u = 0.5."""
    places = uv[corners].flatten(0, 1)
    low, high = places.amin(0), places.amax(0)
    half = max(float((places[:, 0] - 0.5).abs().max()), float(high[1] - low[1]) / 2) + MARGIN
    middle = 1 - float(low[1] + high[1]) / 2
    return (0.5 - half, middle - half), 2 * half


@functools.lru_cache(maxsize=2)
def detail_atlas(head: HeadModel, resolution: int = 256) -> DetailAtlas:
    """The window of a head, cached."""
    return DetailAtlas(head, resolution)
