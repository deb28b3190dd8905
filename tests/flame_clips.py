"""Clips of a FLAME-shaped head that a code of the paper's explains exactly: it drew them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse
import torch
from flame_files import open_head_fields, write_pickle
from scipy.spatial import Delaunay
from torch import Tensor
from videos import Track, constant_rate, write_video

from avface.geometry.rotations import rotvec_to_rotmat
from avface.head.flame.model import flame_head, read_flame
from avface.head.model import HeadModel, LandmarkEmbedding
from avface.head.schemes import FACE_OVAL, IBUG68_FROM_MEDIAPIPE
from avface.media import Frame
from avface.networks.coarse.codes import FLAME_CODE, CoarseCode, ExpressionCode, project_weakly
from avface.networks.coarse.losses.photometric import Surface, render
from avface.networks.frames import FaceCrop
from avface.tracking import FaceTrack, Segment
from avface.training.coarse.self_supervised import FAR, SKIN, AlbedoSpace

SIDE = 256
"""Pixels across a picture."""
WALLS = torch.tensor([(0.9, 0.9, 0.8), (0.1, 0.2, 0.5), (0.3, 0.7, 0.4), (0.0, 0.0, 0.0)])
"""RGB behind the head, of one clip after the other: people are filmed in different places."""
EARS = (234, 454)
"""Vertices before the ears, between which the jaw turns."""
EYE = 159
"""The vertex that stands for the irises, which this head hasn't."""


def flame_shaped_head(folder: Path) -> HeadModel:
    """A small head in a file of FLAME's form, read as FLAME is: the open head's landmarks as vertices, and a rim.

    It has 504 vertices, FLAME's components and jaw, and MediaPipe's and iBUG's points at its vertices.
    """
    fields, original = open_head_fields()
    embedding = original.embedding("mediapipe478")
    points = np.zeros((478, original.num_vertices))
    np.add.at(points, (np.arange(478)[:, None], embedding.triangles), embedding.barycentric)
    rim = 1.3 * points[FACE_OVAL] - 0.3 * points[FACE_OVAL].mean(0)
    chosen = np.concatenate([points[:468], rim])
    template = chosen @ fields["v_template"]
    flat = np.stack([np.arctan2(template[:, 0], template[:, 2] + 0.05), 8 * template[:, 1]], 1)
    low, high = flat.min(0), flat.max(0)
    faces = Delaunay(flat).simplices
    a, b, c = flat[faces].swapaxes(0, 1)
    away = np.linalg.det(np.stack([b - a, c - a], 1)) < 0
    faces[away] = faces[away][:, ::-1]
    regressor = np.zeros((5, len(chosen)))
    regressor[:, EARS] = 1 / len(EARS)
    count = len(chosen)
    fields |= {
        "v_template": template,
        "f": faces.astype(np.uint32),
        "shapedirs": np.tensordot(chosen, fields["shapedirs"], 1),
        "posedirs": np.zeros((count, 3, 36)),
        "J_regressor": scipy.sparse.csc_matrix(regressor),
        "J": regressor @ template,
        "weights": (chosen @ fields["weights"]).clip(0, 1),
    }
    fields["weights"] /= fields["weights"].sum(1, keepdims=True)
    flame = read_flame(write_pickle(folder / "generic_model.pkl", fields))
    head = flame_head(flame, "flame2020", uv=((flat - low) / (high - low), faces))
    head.regions = {"face": np.arange(count) < 468}
    irises = np.where(np.arange(478) < 468, np.arange(478), EYE)
    head.embeddings = {
        "mediapipe478": _at_vertices(np.stack([irises, irises], 1)),
        "ibug68": _at_vertices(IBUG68_FROM_MEDIAPIPE),
    }
    return head


def _at_vertices(pairs: np.ndarray) -> LandmarkEmbedding:
    """Landmarks halfway between pairs of vertices (L, 2)."""
    count = len(pairs)
    shares = np.broadcast_to([0.5, 0.5, 0.0], (count, 3)).copy()
    return LandmarkEmbedding(
        pairs[:, [0, 1, 1]].astype(np.int64), shares, np.zeros(count), np.zeros((0, count, 3))
    )


def write_albedo_space(path: Path) -> Path:
    """A texture space of FLAME's form: SKIN, lighter or darker, redder or paler, and smooth spots."""
    rng = np.random.default_rng(3)
    place = (np.arange(32) + 0.5) * np.pi / 32
    waves = np.stack(
        [np.cos(k * place)[:, None] * np.cos(m * place)[None] for k in range(7) for m in range(7)]
    )
    spots = 0.01 * waves[1:, ..., None] * rng.normal(size=(48, 1, 1, 3))
    even = np.array([[0.1, 0.1, 0.1], [0.06, -0.02, -0.04]])[:, None, None].repeat(32, 1).repeat(32, 2)
    basis = np.moveaxis(np.concatenate([even, spots]), 0, -1)  # (32, 32, 3, 50)
    mean = np.broadcast_to(SKIN, (32, 32, 3))
    np.savez(path, mean=255 * mean[..., ::-1], tex_dir=255 * basis[..., ::-1, :])
    return path


@dataclass(frozen=True, eq=False)
class Performance:
    """What is true of a clip of T frames.

    Shapes: shape (100,), albedo (50,), light (9, 3), rotation (T, 3, 3), camera (T, 3) as of `project_weakly` but in
            pixels, with (0, 0) in the middle of the picture, expression (T, 50), jaw (T, 3), wall (3,).
    """

    shape: Tensor
    albedo: Tensor
    light: Tensor
    rotation: Tensor
    camera: Tensor
    expression: Tensor
    jaw: Tensor
    wall: Tensor

    def codes(self, crop: FaceCrop) -> tuple[CoarseCode, ExpressionCode]:
        """The codes (1, T, ...) that networks should say of the clip in its crops (1, T)."""
        half = crop.box[..., 2] / 2
        middle = (SIDE - 1) / 2
        scale = self.camera[:, 0] / half
        moved = (middle - crop.box[..., :2]) / (half * scale)[..., None] * torch.tensor([1.0, -1.0])
        count = len(self.rotation)
        coarse = CoarseCode(
            self.shape.expand(1, count, -1),
            self.albedo.expand(1, count, -1),
            self.rotation[None],
            torch.cat([scale[..., None], self.camera[None, :, 1:] + moved], -1),
            self.light.expand(1, count, -1, -1),
            torch.zeros(1, count, 3),
        )
        nothing = torch.zeros(1, count, 6)
        return coarse, ExpressionCode(self.expression[None], self.jaw[None], nothing, nothing)


def performance(number: int, frames: int = 16) -> Performance:
    """Somebody who talks, and turns and tilts the head another way than the others."""
    rng = np.random.default_rng(number)

    def drawn(size: int, spread: float, used: int) -> Tensor:
        values = np.zeros(size)
        values[:used] = rng.normal(0, spread, used)
        return torch.from_numpy(values).float()

    time = np.arange(frames) / 25
    opening = 0.5 - 0.5 * np.cos(2 * np.pi * (2.0 + 0.4 * number) * time + number)
    sway = np.sin(2 * np.pi * (0.4 + 0.1 * number) * time + number)
    tilt = (-0.7, 0.7, -0.35, 0.35)[number % 4]
    turns = np.stack([0.05 * sway, 0.25 * np.cos(number) + 0.1 * sway, tilt + 0.05 * sway], 1)
    jaw = np.stack([0.02 + 0.2 * opening, 0 * opening, 0 * opening], 1)
    mood = drawn(FLAME_CODE.expression, 0.5, FLAME_CODE.expression) / 4
    light = torch.zeros(9, 3)
    light[0] = float(rng.uniform(1.2, 2.0))
    light[1:4] = torch.from_numpy(rng.normal(0, 0.12, 3)).float()[:, None]
    facing = torch.tensor([1.0, -1.0, -1.0])[:, None]
    return Performance(
        shape=drawn(FLAME_CODE.shape, 0.5, 12),
        albedo=drawn(FLAME_CODE.albedo, 0.5, 4),
        light=light,
        rotation=facing * rotvec_to_rotmat(torch.from_numpy(turns).float()),
        camera=torch.from_numpy(np.stack([620 + 15 * sway, 0.01 * sway, -0.01 * sway], 1)).float(),
        expression=mood.expand(frames, -1) * torch.from_numpy(1 + 0.5 * sway[:, None]).float(),
        jaw=torch.from_numpy(jaw).float(),
        wall=WALLS[number % len(WALLS)],
    )


def drawn_clip(head: HeadModel, albedo: AlbedoSpace, true: Performance) -> tuple[np.ndarray, Tensor]:
    """Pictures (T, SIDE, SIDE, 3) RGB uint8 and MediaPipe's landmarks (T, 478, 2) in their pixels."""
    expression = torch.cat([true.expression, true.jaw], -1)
    shape = torch.nn.functional.pad(true.shape, (0, head.num_shape - len(true.shape)))
    vertices = head(shape.expand(len(expression), -1), expression)
    turned = vertices @ true.rotation.transpose(-1, -2)
    middle = (SIDE - 1) / 2
    pixels = project_weakly(vertices, true.rotation, true.camera) + middle
    surface = Surface(
        head.faces, torch.from_numpy(head.uv), torch.from_numpy(head.uv_faces), torch.ones(head.num_vertices)
    )
    count = len(expression)
    rendering = render(
        surface,
        turned,
        pixels,
        turned[..., 2] + FAR,
        albedo(true.albedo).expand(count, -1, -1, -1),
        true.light.expand(count, -1, -1),
        SIDE,
        SIDE,
    )
    image = torch.where((rendering.image == 0).all(-1, keepdim=True), true.wall, rendering.image)
    embedding = head.embedding("mediapipe478")
    corners = vertices[:, torch.from_numpy(embedding.triangles)]
    points = torch.einsum("tlkc,lk->tlc", corners, torch.from_numpy(embedding.barycentric).float())
    landmarks = project_weakly(points, true.rotation, true.camera) + middle
    return (255 * image.clamp(0, 1)).round().byte().numpy(), landmarks


def write_clips(
    folder: Path, head: HeadModel, albedo: AlbedoSpace, performances: Iterable[Performance]
) -> KnownTracker:
    """A folder of lossless videos whose sound is the louder the wider the mouth, and what a tracker would find."""
    known = []
    for number, true in enumerate(performances):
        pictures, landmarks = drawn_clip(head, albedo, true)
        path = folder / f"person{number}" / "talk.mkv"
        path.parent.mkdir(parents=True)
        level = 0.1 + 0.1 * number + true.jaw[:, 0].numpy()
        tone = np.sin(2 * np.pi * 220 * np.arange(640 * len(level)) / 16_000)
        sound = Track((np.repeat(level, 640) * tone)[None].astype(np.float32), rate=16_000)
        write_video(
            path,
            list(pictures),
            constant_rate(len(pictures), 25.0),
            codec="libx264rgb",
            pix_fmt="rgb24",
            options={"qp": "0"},
            tracks=[sound],
        )
        known.append((pictures[0], landmarks.numpy()))
    return KnownTracker(tuple(known))


@dataclass(frozen=True, eq=False)
class KnownTracker:
    """A tracker that makes no error on clips which it knows by their first picture."""

    clips: tuple[tuple[np.ndarray, np.ndarray], ...]

    def __call__(self, frames: Iterable[Frame]) -> FaceTrack:
        held = [(frame.image, frame.time) for frame in frames]
        landmarks = next(marks for picture, marks in self.clips if np.array_equal(picture, held[0][0]))
        count = len(held)
        return FaceTrack(
            landmarks=landmarks.astype(np.float32),
            depth=np.zeros((count, 478), np.float32),
            confidence=np.ones(count, np.float32),
            box=np.full((count, 4), np.nan, np.float32),
            times=np.array([time for _, time in held]),
            segments=(Segment(0, count, True, 1.0),),
            image_size=(SIDE, SIDE),
        )
