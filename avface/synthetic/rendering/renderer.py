"""Renderer of scenes: textured skin with wrinkles under ambient light and lamps, in batches on CPU or GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from avface.arrays import U8
from avface.geometry.axes import flip_axes
from avface.geometry.camera import Camera
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import Fragments, rasterise
from avface.geometry.shading import displacement_normals, sample_texture, sh_basis, uv_gradients
from avface.head import HeadModel
from avface.synthetic.person.body import torso_mesh
from avface.synthetic.rendering.scene import Scene

GLOSS = {
    "skin": (0.028, 18.0),
    "eye": (0.05, 220.0),
    "iris": (0.05, 220.0),
    "pupil": (0.05, 220.0),
    "line": (0.05, 220.0),
    "teeth": (0.04, 60.0),
}
"""Reflectance at normal incidence and specular exponent by the last word of a part's name ("left_tear_line" is "line");
others are diffuse."""
GRAZING = 0.12
"""Additional reflectance at grazing angles: far below Fresnel's 1, because skin and hair are rough."""


@dataclass(frozen=True)
class Buffers:
    """Ground-truth buffers of a batch of B frames, at the video's size.

    normals (B, H, W, 3) in camera axes, with wrinkles and pores, 0 on the background; head (B, H, W) bool mask of the
    head's own surface, without hair and clothes.
    """

    normals: Tensor
    head: Tensor


class SceneRenderer:
    """Renders one scene; constant data are prepared once."""

    def __init__(self, scene: Scene, head: HeadModel, supersampling: int = 2, device: str = "cpu") -> None:
        """`supersampling`: rendered pixels across one of the video's."""
        self.scene, self.head, self.supersampling = scene, head, supersampling
        self.device = torch.device(device)
        shape = torch.as_tensor(scene.shape)
        rim, torso_faces, torso = torso_mesh(head, shape)
        rest = head.neutral(shape)
        self._rim = rim.to(self.device)
        self._torso = (flip_axes(torso) + torch.as_tensor(scene.rest)).to(self.device)
        self._faces = torch.cat([head.faces, torso_faces]).to(self.device)
        self._uv = torch.cat([torch.as_tensor(head.uv), torch.zeros(1, 2)]).to(self.device)
        blank = torch.full((len(torso_faces), 3), len(head.uv))
        self._uv_faces = torch.cat([torch.as_tensor(head.uv_faces), blank]).to(self.device)
        self._rotation, self._translation = (part.to(self.device) for part in scene.motion(head))
        self._hair = (torch.as_tensor(scene.hair)[:, None] * vertex_normals(rest, head.faces)).to(self.device)
        self._albedo = torch.as_tensor(scene.skin.albedo).to(self.device)
        self._clothes = torch.as_tensor(scene.clothes).to(self.device)
        self._backdrop = torch.as_tensor(scene.backdrop).to(self.device)
        gloss = [GLOSS.get(name.split("_")[-1], (0.0, 1.0)) for name in head.part_names]
        of_faces = torch.tensor(gloss)[torch.as_tensor(head.face_parts)]
        self._gloss = torch.cat([of_faces, torch.tensor([[0.0, 1.0]]).expand(len(torso_faces), 2)]).to(
            self.device
        )
        hairy = torch.as_tensor(scene.hair > 0.001)[head.faces].any(1)
        self._own = torch.cat([~hairy, torch.zeros(len(torso_faces), dtype=torch.bool)]).to(self.device)
        self._head_faces = len(head.faces)
        self._rays = _rays_to_eye(scene.camera, supersampling).to(self.device)
        sky_visibility = _sky_visibility(self._posed_at_rest(rest, torso), self._faces.cpu())
        self._sky_visibility = sky_visibility.to(self.device)

    def _posed_at_rest(self, rest: Tensor, torso: Tensor) -> Tensor:
        """The mesh with a slightly open mouth, for ambient occlusion."""
        slightly = torch.zeros(1, self.head.num_expression)
        if "jawOpen" in self.head.expression_names:
            slightly[0, self.head.expression_names.index("jawOpen")] = 0.25
        points = self.head(torch.as_tensor(self.scene.shape)[None], slightly)[0]
        return torch.cat([points + self._hair.cpu(), torso])

    def frames(self, batch: int | None = None) -> Iterator[U8]:
        """The pictures (H, W, 3) of all frames in order, rendered `batch` at a time.

        By default one on a CPU, because of its cache size, and 32 on a GPU.
        """
        batch = batch or (1 if self.device.type == "cpu" else 32)
        generator = torch.Generator(device=self.device).manual_seed(self.scene.noise_seed)
        for start in range(0, len(self.scene), batch):
            rows = range(start, min(start + batch, len(self.scene)))
            yield from self.scene.sensor.develop(self.light(rows), generator).cpu().numpy()

    @torch.inference_mode()
    def light(self, rows: range) -> Tensor:
        """Linear RGB (B, H, W, 3) of the frames numbered `rows`, before the sensor."""
        return self._downsampled(self._render(rows)[2])

    @torch.inference_mode()
    def buffers(self, rows: range) -> Buffers:
        """Ground-truth buffers of the frames numbered `rows`."""
        surface, normal, picture = self._render(rows)
        size = picture.shape[:3]
        own = self._own[surface.triangle].float()[:, None]
        layers = picture.new_zeros((size.numel(), 4)).index_copy(
            0, surface.place, torch.cat([normal, own], 1)
        )
        layers = self._downsampled(layers.view(*size, 4))
        return Buffers(torch.nn.functional.normalize(layers[..., :3], dim=-1), layers[..., 3] > 0.5)

    def _downsampled(self, picture: Tensor) -> Tensor:
        """Means of blocks of rendered pixels: (B, H, W, C) at the video's size."""
        factor = self.supersampling
        for axis in (1, 2):
            blocks = picture.unflatten(axis, (-1, factor))
            picture = blocks.select(axis + 1, 0) / factor
            for k in range(1, factor):
                picture.add_(blocks.select(axis + 1, k), alpha=1 / factor)
        return picture

    def _render(self, rows: range) -> tuple[_Surface, Tensor, Tensor]:
        """The visible surface, its normals (N, 3), and linear RGB (B, H, W, 3) of all rendered pixels."""
        scene, head = self.scene, self.head
        frames = list(rows)
        expression = torch.as_tensor(scene.performance.expression[frames])
        joints = torch.as_tensor(scene.performance.joints[frames])
        shape = torch.as_tensor(scene.shape)[None]
        posed = head(shape, expression, joints)
        displacement = torch.stack(
            [torch.as_tensor(scene.skin.displacement(points.numpy())) for points in head(shape, expression)]
        ).to(self.device)
        rotation, translation = self._rotation[frames], self._translation[frames]
        points = (posed.to(self.device) + self._hair) @ rotation.mT + translation[:, None]
        mesh = torch.cat([points, self._body(points)], 1)
        factor = self.supersampling
        camera = scene.camera
        height, width = factor * camera.height, factor * camera.width
        pixels = factor * (camera.project(mesh) + 0.5) - 0.5
        surface = _Surface.seen(rasterise(pixels, mesh[..., 2], self._faces, height, width), self._faces)
        sky_visibility = self._sky_visibility[:, None].expand(len(frames), -1, -1)
        mixed = surface.interpolate(torch.cat([vertex_normals(mesh, self._faces), sky_visibility], -1))
        normal, sky_visibility = torch.nn.functional.normalize(mixed[:, :3], dim=-1), mixed[:, 3:]
        uv = surface.interpolate_corners(self._uv, self._uv_faces)
        on_head = surface.triangle < self._head_faces
        normal = self._displaced(normal, uv, surface, mesh, displacement, on_head)
        albedo = torch.where(on_head[:, None], sample_texture(self._albedo, uv), self._clothes)
        light = self._lit(
            normal, albedo, sky_visibility, self._rays[surface.place % (height * width)], surface.triangle
        )
        picture = self._backdrop.permute(2, 0, 1)[None].expand(len(frames), -1, -1, -1)
        picture = torch.nn.functional.interpolate(picture, scale_factor=factor, mode="nearest").permute(
            0, 2, 3, 1
        )
        picture = (
            picture.flatten(0, 2).index_copy(0, surface.place, light).view(len(frames), height, width, 3)
        )
        return surface, normal, picture

    def _body(self, points: Tensor) -> Tensor:
        """The torso (B, N, 3) below heads (B, V, 3): it is static, except that the neck follows the head."""
        count = len(self._rim)
        body = self._torso.expand(len(points), -1, -1).clone()
        rim = points[:, self._rim]
        for ring, share in ((0, 1.0), (1, 0.9), (2, 0.75), (3, 0.55), (4, 0.35), (5, 0.15)):
            rows = slice(ring * count, (ring + 1) * count)
            moved = rim - self._torso[:count]
            body[:, rows] = self._torso[rows] + share * moved
        return body

    def _displaced(
        self,
        normal: Tensor,
        uv: Tensor,
        surface: _Surface,
        mesh: Tensor,
        displacement: Tensor,
        on_head: Tensor,
    ) -> Tensor:
        """Normals (N, 3) perturbed by each frame's displacement map (B, R, R)."""
        result = normal.clone()
        count = self._head_faces
        for frame, height_map in enumerate(displacement):
            rows = ((surface.frame == frame) & on_head).nonzero()[:, 0]
            by_u, by_v = uv_gradients(mesh[frame], self._faces[:count], self._uv, self._uv_faces[:count])
            triangle = surface.triangle[rows]
            result[rows] = displacement_normals(
                normal[rows], height_map, uv[rows], by_u[triangle], by_v[triangle]
            )
        return result

    def _lit(
        self, normal: Tensor, albedo: Tensor, sky_visibility: Tensor, eye: Tensor, triangle: Tensor
    ) -> Tensor:
        """Linear RGB (N, 3): diffuse and specular reflection of ambient light, with ambient occlusion, and of lamps."""
        light = self.scene.light
        normal = flip_axes(normal)  # light is in scene axes
        harmonics, directions, colours = (
            torch.as_tensor(part).to(self.device)
            for part in (light.harmonics, light.directions, light.colours)
        )
        diffuse = (sh_basis(normal) @ harmonics).clamp_min_(0).mul_(sky_visibility)
        strength, exponent = self._gloss[triangle].unbind(-1)
        grazing = 1 - (normal * flip_axes(eye)).sum(-1).clamp_(0, 1)
        fresnel = strength + GRAZING * grazing.square().square() * grazing * (strength > 0)
        specular = diffuse * fresnel[:, None]  # approximates the environment's reflection by its irradiance
        sky_visibility = sky_visibility[:, 0].sqrt()
        for direction, colour in zip(directions, colours, strict=True):
            facing = (normal @ direction).clamp_min_(0).mul_(sky_visibility)
            half = torch.nn.functional.normalize(flip_axes(eye) + direction, dim=-1)
            spread = (exponent + 8) / 8 * (normal * half).sum(-1).clamp_min_(1e-3) ** exponent
            diffuse.addcmul_(facing[:, None], colour)
            specular.addcmul_((facing * spread * strength)[:, None], colour)
        return specular.addcmul_(albedo, diffuse)


def _rays_to_eye(camera: Camera, factor: int) -> Tensor:
    """Unit vectors (H * W, 3), in camera axes, to the camera from what the rendered pixels see."""
    height, width = factor * camera.height, factor * camera.width
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    x, y = (
        (x + 0.5) / factor - 0.5 - camera.principal_point[0],
        (y + 0.5) / factor - 0.5 - camera.principal_point[1],
    )
    rays = torch.stack([-x, -y, torch.full_like(x, -camera.focal_length)], -1)
    return torch.nn.functional.normalize(rays.flatten(0, 1), dim=-1)


@dataclass(frozen=True)
class _Surface:
    """The N pixels of a batch that see something: their place (N,) in the flattened batch of pictures, frame (N,),
    triangle (N,), its vertices (N, 3) and barycentrics (N, 3)."""

    place: Tensor
    frame: Tensor
    triangle: Tensor
    vertices: Tensor
    barycentric: Tensor

    @classmethod
    def seen(cls, fragments: Fragments, faces: Tensor) -> _Surface:
        pixels = fragments.triangle[0].numel()
        triangle = fragments.triangle.flatten()
        place = (triangle >= 0).nonzero()[:, 0]
        triangle = triangle[place]
        frame = torch.div(place, pixels, rounding_mode="floor")
        return cls(place, frame, triangle, faces[triangle], fragments.barycentric.flatten(0, -2)[place])

    def interpolate(self, attributes: Tensor) -> Tensor:
        """Vertex attributes (B, V, C) interpolated at the pixels, (N, C)."""
        rows = self.vertices + (self.frame * attributes.shape[1])[:, None]
        return self._interpolate(attributes.flatten(0, 1), rows)

    def interpolate_corners(self, attributes: Tensor, corners: Tensor) -> Tensor:
        """Attributes (M, C), indexed by faces' corners (F, 3), interpolated at the pixels, (N, C)."""
        return self._interpolate(attributes, corners[self.triangle])

    def _interpolate(self, attributes: Tensor, rows: Tensor) -> Tensor:
        first, second, third = (attributes[rows[:, k]] * self.barycentric[:, k : k + 1] for k in range(3))
        return first + second + third


def _sky_visibility(points: Tensor, faces: Tensor, directions: int = 40, size: int = 96) -> Tensor:
    """Ambient occlusion: cosine-weighted share (V,) of the sphere visible from each vertex (V, 3), by shadow maps."""
    normals = vertex_normals(points, faces)
    golden = torch.arange(directions) * torch.pi * (3 - 5**0.5)
    up = 1 - 2 * (torch.arange(directions) + 0.5) / directions
    sky = torch.stack([golden.cos() * (1 - up**2).sqrt(), up, golden.sin() * (1 - up**2).sqrt()], -1)
    centre = points.mean(0)
    reach = float((points - centre).norm(dim=1).max())
    seen, total = torch.zeros(len(points)), torch.zeros(len(points))
    for direction in sky:
        side = torch.nn.functional.normalize(
            torch.linalg.cross(direction, torch.tensor([0.31, 0.2, 0.93])), dim=0
        )
        frame = torch.stack([side, torch.linalg.cross(direction, side), -direction])
        local = (points - centre) @ frame.T
        pixels = (local[:, :2] / reach + 1) * (size - 1) / 2
        depth = local[:, 2] + 2 * reach
        far = 1000.0  # nearly orthographic
        front = rasterise(pixels, depth + far, faces, size, size).depth - far
        x, y = pixels.round().long().clamp(0, size - 1).unbind(-1)
        weight = (normals @ direction).clamp_min(0)
        seen += weight * (depth < front[y, x] + 0.012)
        total += weight
    return (seen / total.clamp_min(1e-6)).clamp(0.05, 1)
