"""Drawing of occluders: textured surfaces under a simple light, as layers with soft edges."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt
import torch

from avface.arrays import F32, F64, Floats, Int
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import rasterise
from avface.synthetic.rendering import sensor

_SRGB_TABLE_SIZE = 4096


@functools.cache
def _srgb_table() -> F32:
    """sRGB values of evenly spaced linear ones."""
    return sensor.srgb(torch.linspace(0, 1, _SRGB_TABLE_SIZE, dtype=torch.float64)).float().numpy()


def srgb(light: F32) -> F32:
    """sRGB values of linear ones, clipped to [0, 1], to 1 / 4095 of linear light."""
    return _srgb_table()[(np.clip(light, 0, 1) * (_SRGB_TABLE_SIZE - 1) + 0.5).astype(np.uint16)]


@dataclass(frozen=True, eq=False)
class Surface:
    """A textured mesh.

    Shapes: vertices (V, 3), faces (F, 3), uv (U, 2) with v up and uv_faces (F, 3), texture (R, C, 3) linear RGB whose
            row 0 is v = 1; gloss and opacity (F,).
    Units:  metres; gloss and opacity in [0, 1].
    Axes:   x to the viewer's right, y up, z towards the viewer; triangles show their outer side anticlockwise.
    """

    vertices: F64
    faces: Int
    uv: F32
    uv_faces: Int
    texture: F32
    gloss: F32
    opacity: F32
    two_sided: bool = False

    @classmethod
    def of(
        cls,
        vertices: F64,
        faces: Int,
        uv: Floats,
        texture: F32,
        *,
        uv_faces: Int | None = None,
        gloss: float = 0.2,
        opacity: float = 1.0,
        two_sided: bool = False,
    ) -> Surface:
        """A surface of one material; without `uv_faces`, uv (V, 2) belongs to the vertices."""
        return cls(
            np.asarray(vertices, np.float64),
            np.asarray(faces, np.int64),
            np.asarray(uv, np.float32),
            np.asarray(faces if uv_faces is None else uv_faces, np.int64),
            np.asarray(texture, np.float32),
            np.full(len(faces), gloss, np.float32),
            np.full(len(faces), opacity, np.float32),
            two_sided,
        )

    def transformed(self, rotation: F64, shift: npt.ArrayLike = (0.0, 0.0, 0.0)) -> Surface:
        """The surface rotated by (3, 3) and translated by (3,) metres."""
        return self.with_vertices(self.vertices @ rotation.T + np.asarray(shift))

    def with_vertices(self, vertices: F64) -> Surface:
        """The same surface with its vertices (V, 3) elsewhere."""
        return Surface(
            vertices,
            self.faces,
            self.uv,
            self.uv_faces,
            self.texture,
            self.gloss,
            self.opacity,
            self.two_sided,
        )


def merged(surfaces: Sequence[Surface]) -> Surface:
    """Several surfaces as one; their textures are stacked vertically in one picture."""
    if len(surfaces) == 1:
        return surfaces[0]
    width = max(surface.texture.shape[1] for surface in surfaces)
    textures = [
        cv2.resize(one.texture, (width, one.texture.shape[0]), interpolation=cv2.INTER_LINEAR)
        for one in surfaces
    ]
    atlas = np.concatenate(textures)
    uvs, below = [], len(atlas)
    for one in surfaces:
        height = one.texture.shape[0]
        below -= height
        v = np.clip(
            one.uv[:, 1], 0.5 / height, 1 - 0.5 / height
        )  # so that nothing of a neighbour is mixed in
        uvs.append(np.stack([one.uv[:, 0], (below + v * height) / len(atlas)], 1))
    first = np.cumsum([0] + [len(one.vertices) for one in surfaces])
    first_uv = np.cumsum([0] + [len(one.uv) for one in surfaces])
    return Surface(
        np.concatenate([one.vertices for one in surfaces]),
        np.concatenate([one.faces + first[k] for k, one in enumerate(surfaces)]),
        np.concatenate(uvs).astype(np.float32),
        np.concatenate([one.uv_faces + first_uv[k] for k, one in enumerate(surfaces)]),
        atlas,
        np.concatenate([one.gloss for one in surfaces]),
        np.concatenate([one.opacity for one in surfaces]),
        any(one.two_sided for one in surfaces),
    )


@dataclass(frozen=True)
class View:
    """A pinhole camera in front of a face, whose origin is `distance` metres away and projected to `centre`."""

    centre: tuple[float, float]
    """Pixels; (0, 0) is the middle of the top-left pixel."""
    scale: float
    """Pixels per metre at the face."""
    distance: float
    """Metres from the camera to the face."""

    def project(self, points: F64) -> tuple[F64, F64]:
        """Pixels (V, 2) and depths (V,) in metres of points (V, 3) in the axes of `Surface`."""
        depth = self.distance - points[:, 2]
        spread = self.scale * self.distance / np.maximum(depth, 1e-6)
        x = self.centre[0] + spread * points[:, 0]
        return np.stack([x, self.centre[1] - spread * points[:, 1]], 1), depth


@dataclass(frozen=True)
class Light:
    """Ambient and directional light, normalised so that the mean over the visible half of a sphere is its albedo."""

    direction: tuple[float, float, float]
    """Unit vector towards the light, in the axes of `Surface`."""
    diffuse: float
    """Share of the light that is directional, 0 to 1."""
    colour: tuple[float, float, float] = (1.0, 1.0, 1.0)
    """Linear RGB factors of all light, exposure included."""

    def shade(self, normals: F32) -> F32:
        """Irradiance (N,) of surfaces with unit normals (3, N)."""
        x, y = np.meshgrid(np.linspace(-0.9, 0.9, 9), np.linspace(-0.9, 0.9, 9))
        sphere = np.stack([x, y, np.sqrt(np.maximum(1 - x**2 - y**2, 0))]).reshape(3, -1)
        sphere = sphere[:, sphere[2] > 0].astype(np.float32)
        return self._unscaled(normals) / np.float32(self._unscaled(sphere).mean())

    def _unscaled(self, normals: F32) -> F32:
        # wrapped diffuse: an area light of the size of a window
        wrapped = 0.5 + 0.5 * (np.asarray(self.direction, np.float32) @ normals)
        sky = (1 + np.float32(0.25) * normals[1]) * (np.float32(0.65) + np.float32(0.35) * normals[2])
        return np.float32(1 - self.diffuse) * sky + np.float32(1.7 * self.diffuse) * wrapped**2.5


@dataclass(frozen=True, eq=False)
class Layer:
    """A picture over part of a frame: colour (h, w, 3) sRGB in [0, 1], alpha (h, w), and its top-left pixel."""

    colour: F32
    alpha: F32
    left: int
    top: int


def draw(
    surface: Surface,
    view: View,
    light: Light,
    size: tuple[int, int],
    *,
    hidden_by: tuple[F64, Int] | None = None,
    resolution: float = 1.0,
    edge: float = 1.0,
) -> Layer | None:
    """Draw a surface as a layer for frames of `size` (width, height); None if it is outside the picture.

    hidden_by: vertices (V, 3) and faces (F, 3) of a mesh that isn't drawn but hides what is behind it.
    resolution: rendered pixels across one of the frame's: above 1 for smooth edges, below 1 for speed.
    edge: standard deviation in pixels of the blur along the outline, after an erosion by one pixel.
    """
    pixels, depth = view.project(surface.vertices)
    margin = 3
    near = depth > 0.02
    if not near.any():
        return None
    low = np.floor(pixels[near].min(0)).astype(int) - margin
    high = np.ceil(pixels[near].max(0)).astype(int) + margin + 1
    left, top = np.maximum(low, -margin)
    right, bottom = np.minimum(high, np.array(size) + margin)
    if right - left <= 2 * margin or bottom - top <= 2 * margin:
        return None
    faces = surface.faces
    width, height = (max(round(float(n) * resolution), 1) for n in (right - left, bottom - top))
    stretch = np.array([width / (right - left), height / (bottom - top)])
    local = (pixels - [left, top] + 0.5) * stretch - 0.5
    if surface.two_sided:
        kept = np.arange(len(faces))
    else:
        a, b, c = local[faces[:, 0]], local[faces[:, 1]], local[faces[:, 2]]
        turn = (b[:, 0] - a[:, 0]) * (c[:, 1] - a[:, 1]) - (b[:, 1] - a[:, 1]) * (c[:, 0] - a[:, 0])
        kept = np.flatnonzero(turn < 0)
    corners = torch.as_tensor(faces[kept])
    points, depths, triangles = torch.as_tensor(local), torch.as_tensor(depth), corners
    if hidden_by is not None:
        behind, behind_depth = view.project(hidden_by[0])
        points = torch.cat([points, torch.as_tensor((behind - [left, top] + 0.5) * stretch - 0.5)])
        depths = torch.cat([depths, torch.as_tensor(behind_depth)])
        triangles = torch.cat([corners, torch.as_tensor(hidden_by[1]) + len(local)])
    with torch.inference_mode():
        found = rasterise(points.float(), depths.float(), triangles, height, width)
        chosen = found.triangle.flatten()
        visible = ((chosen >= 0) & (chosen < len(kept))).nonzero()[:, 0]
        if not len(visible):
            return None
        number = chosen.index_select(0, visible)
        weights = found.barycentric.view(-1, 3).index_select(0, visible).t()
        normals = vertex_normals(torch.as_tensor(surface.vertices).float(), torch.as_tensor(surface.faces))

        def at_pixels(values: torch.Tensor, triangles: torch.Tensor) -> F32:
            """Values (N, C) at the visible pixels as (C, pixels)."""
            where, columns = triangles.index_select(0, number).t(), values.t().contiguous()
            out = columns.index_select(1, where[0]) * weights[0]
            for k in (1, 2):
                out.addcmul_(columns.index_select(1, where[k]), weights[k])
            result: F32 = out.numpy()
            return result

        normal = at_pixels(normals, corners)
        uv = at_pixels(torch.as_tensor(surface.uv), torch.as_tensor(surface.uv_faces[kept]))
        distance = found.depth.numpy()
        place, face = visible.numpy(), kept[number.numpy()]
    normal /= np.maximum(np.sqrt(np.einsum("kn,kn->n", normal, normal)), 1e-6)
    if surface.two_sided:
        normal *= np.where(normal[2] < 0, np.float32(-1), np.float32(1))
    texture = surface.texture
    x = uv[0] * texture.shape[1] - 0.5
    y = (1 - uv[1]) * texture.shape[0] - 0.5
    albedo = cv2.remap(texture, *_as_maps(x, y), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    albedo = albedo.reshape(-1, 3)[: len(x)]
    gloss, opacity = surface.gloss[face], surface.opacity[face]
    seen = np.zeros(height * width, np.float32)
    seen[place] = 1
    clear = _depth_occlusion(distance, seen.reshape(height, width), view.scale * stretch[0]).ravel()[place]
    light_on = light.shade(normal) * clear
    shaded = albedo * light_on[:, None]
    if gloss.max() > 0.05:
        half = np.asarray(light.direction, np.float32) + np.array([0, 0, 1], np.float32)
        half /= np.linalg.norm(half)
        towards = np.maximum(half @ normal, 1e-3)
        highlight = np.exp(np.log(towards) * (8 + 120 * gloss**2)) * gloss * (0.05 + 0.6 * gloss**2)
        highlight += gloss**2 * 0.12 * (1 - np.clip(normal[2], 0, 1)) ** 3
        shaded += (highlight * clear)[:, None]
    shaded *= np.asarray(light.colour, np.float32)
    picture = np.zeros((height * width, 4), np.float32)
    picture[place, :3] = shaded * opacity[:, None]
    picture[place, 3] = opacity
    picture = picture.reshape(height, width, 4)
    if resolution != 1:
        whole = (int(right - left), int(bottom - top))
        picture = cv2.resize(
            picture, whole, interpolation=cv2.INTER_AREA if resolution > 1 else cv2.INTER_LINEAR
        )
    alpha = np.ascontiguousarray(picture[..., 3])
    colour = srgb(picture[..., :3] / np.maximum(alpha, 1e-6)[..., None])
    alpha, colour = _feathered(alpha, colour, edge)
    return Layer(colour, alpha, int(left), int(top))


def _as_maps(x: F32, y: F32) -> tuple[F32, F32]:
    """Coordinates as pictures of width 1024: `cv2.remap` takes at most 32767 pixels on a side."""
    rows = -(-len(x) // 1024)
    maps = np.zeros((2, rows * 1024), np.float32)
    maps[0, : len(x)], maps[1, : len(x)] = x, y
    return maps[0].reshape(rows, 1024), maps[1].reshape(rows, 1024)


def _depth_occlusion(depth: F32, seen: F32, scale: float) -> F32:
    """Ambient occlusion (h, w) from depth alone: a factor below 1 for pixels deeper than the mean around them.

    scale in pixels per metre.
    """
    side = 2 * max(round(0.006 * scale), 1) + 1
    both = np.stack([np.where(seen > 0, depth, 0).astype(np.float32), seen], -1)
    around = cv2.blur(cv2.blur(both, (side, side)), (side, side))
    deeper = both[..., 0] - around[..., 0] / np.maximum(around[..., 1], 1e-3)
    result: F32 = 1 - 0.45 * np.clip(deeper * np.float32(1 / 0.012), 0, 1)
    return result


def _feathered(alpha: F32, colour: F32, edge: float) -> tuple[F32, F32]:
    """Erode and blur alpha; colours are dilated first, so that the background of the drawing doesn't show."""
    if edge <= 0:
        return alpha, colour
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    known = (alpha > 0.02).astype(np.uint8)
    grown = cv2.dilate(colour, np.ones((5, 5), np.uint8))
    cv2.copyTo(colour, known, grown)
    return cv2.GaussianBlur(cv2.erode(alpha, disc), (0, 0), edge), grown
