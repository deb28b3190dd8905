"""Landmark embeddings of a head from rendered portraits: the surface points that best explain a detector's landmarks.

For any `HeadModel`, such as one without published landmarks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avface.arrays import F64, U8, Floats, Int
from avface.errors import AvfaceError
from avface.geometry.axes import flip_rotation
from avface.geometry.camera import Camera, transform
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import rasterise
from avface.geometry.rotations import euler_to_rotmat
from avface.head.appearance import vertex_colours
from avface.head.model import HeadModel, LandmarkEmbedding
from avface.head.schemes import IRISES, ibug68_from_mediapipe

Detector = Callable[[U8], "Floats | None"]
"""(H, W, 3) RGB picture -> (478, 2) landmarks in pixels, or None where no face is found."""


@dataclass(frozen=True)
class EmbeddingConfig:
    """The rendered portraits from which the embeddings are estimated."""

    portraits: int = 600
    """Number of pictures, each of another person, pose, expression and light."""
    size: int = 448
    """Width and height of a picture in pixels."""
    shape_sigma: float = 0.6
    """Standard deviation of the shape weights."""
    yaw: float = 0.45
    """Largest yaw in radians."""
    pitch: float = 0.3
    """Largest pitch in radians."""
    error_components: int = 40
    """Principal components of the detector's errors that are kept."""
    seed: int = 0
    """Seed of all random draws."""

    def __post_init__(self) -> None:
        for name in ("portraits", "size"):
            if getattr(self, name) < 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be 1 or more")
        for name in ("shape_sigma", "yaw", "pitch", "error_components", "seed"):
            if not getattr(self, name) >= 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be 0 or more")


@dataclass(frozen=True)
class _Portrait:
    """Vertices in pixels (V, 2), metres a pixel at the face, the head's rotation (3, 3), and the detected landmarks
    (478, 2) in pixels."""

    pixels: F64
    metres_per_pixel: float
    rotation: F64
    landmarks: F64


def build_embeddings(
    head: HeadModel,
    detect: Detector,
    config: EmbeddingConfig | None = None,
    on_portrait: Callable[[], None] = lambda: None,
) -> dict[str, LandmarkEmbedding]:
    """The `mediapipe478` and `ibug68` points on a head, by rendering it and running the detector.

    Each landmark is the surface point whose projections have the least sum of absolute distances to the detections over
    all portraits (L1, robust to outliers); `spread` is the median of these distances. `on_portrait` is called after
    every picture.

    Raises:
        ValueError: if the detector finds a face in fewer than half of the portraits.
    """
    config = config or EmbeddingConfig()
    found = [p for p in _portraits(head, detect, config, on_portrait) if p is not None]
    if len(found) < config.portraits / 2:
        raise ValueError(
            f"the detector found {len(found)} faces in {config.portraits} portraits of {head.name}"
        )
    pixels = np.stack([portrait.pixels for portrait in found])
    scale = np.array([portrait.metres_per_pixel for portrait in found])
    landmarks = np.stack([portrait.landmarks for portrait in found])
    parts = np.array(head.part_names)[head.face_parts]
    surface = head.faces.numpy()[parts == "skin"]
    eyes = head.faces.numpy()[np.char.endswith(parts, "_iris") | np.char.endswith(parts, "_pupil")]
    mediapipe = _locate(pixels, scale, landmarks, surface)
    iris = _locate(pixels, scale, landmarks[:, IRISES], eyes)
    for whole, part in zip(mediapipe, iris, strict=True):
        whole[IRISES] = part
    ibug = _locate(pixels, scale, ibug68_from_mediapipe(landmarks), surface)
    rotation = np.stack([portrait.rotation for portrait in found])
    errors = _error_components(pixels, scale, rotation, landmarks, *mediapipe[:2], config.error_components)
    errors[:, IRISES] = 0  # they depend on the gaze
    return {
        "mediapipe478": LandmarkEmbedding(*mediapipe, errors),
        "ibug68": LandmarkEmbedding(*ibug, ibug68_from_mediapipe(errors)),  # both schemes share one bias
    }


def _error_components(
    pixels: F64,
    scale: F64,
    rotation: F64,
    landmarks: F64,
    triangles: Int,
    barycentric: F64,
    count: int,
) -> F64:
    """Principal components (K, L, 3) of the errors of landmarks (N, L, 2) against the embedding's projections; see
    `LandmarkEmbedding`."""
    projected = np.einsum("nlkc,lk->nlc", pixels[:, triangles], barycentric)
    errors = np.einsum("nlc,nck->nlk", (landmarks - projected) * scale[:, None, None], rotation[:, :2])
    limit = 4 * np.median(np.linalg.norm(errors, axis=-1))  # beyond it, the face was found in the wrong place
    errors = errors[np.linalg.norm(errors, axis=-1).mean(1) < limit]
    centred = (errors - errors.mean(0)).reshape(len(errors), -1)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    basis = directions[:count] * (sizes[:count] / np.sqrt(len(errors)))[:, None]
    return basis.reshape(-1, len(triangles), 3)


def _portraits(
    head: HeadModel, detect: Detector, config: EmbeddingConfig, on_portrait: Callable[[], None]
) -> list[_Portrait | None]:
    rng = np.random.default_rng(config.seed)
    colours = torch.as_tensor(vertex_colours(head), dtype=torch.float32)
    results = []
    for _ in range(config.portraits):
        results.append(_portrait(head, detect, config, colours, rng))
        on_portrait()
    return results


def _portrait(
    head: HeadModel, detect: Detector, config: EmbeddingConfig, colours: Tensor, rng: np.random.Generator
) -> _Portrait | None:
    """A rendered person with the detector's landmarks; None where it finds no face."""
    shape = torch.as_tensor(rng.normal(0, config.shape_sigma, (1, head.num_shape)), dtype=torch.float32)
    expression = _random_expression(head, rng)
    joints = np.zeros((1, head.num_joints, 3))
    gaze = rng.normal(0, 0.1, 2)
    for eye in ("left_eye", "right_eye"):
        joints[0, head.joint_names.index(eye), :2] = gaze
    yaw, pitch, roll = rng.uniform(-1, 1, 3) * [config.yaw, config.pitch, 0.15]
    size = config.size
    camera = Camera.centred(size * rng.uniform(1.3, 3.0), size, size)
    distance = camera.focal_length * 0.28 / size
    with torch.inference_mode():
        vertices = head(
            shape,
            torch.as_tensor(expression, dtype=torch.float32),
            torch.as_tensor(joints, dtype=torch.float32),
        )[0]
        rotation = _facing(yaw, pitch, roll)
        points = transform(vertices, rotation, torch.tensor([0.0, -0.03, distance]))
        picture = _shade(head, points, camera, colours, rng)
        landmarks = detect(picture)
        if landmarks is None:
            return None
        return _Portrait(
            camera.project(points).double().numpy(),
            distance / camera.focal_length,
            rotation.double().numpy(),
            np.asarray(landmarks, np.float64)[:, :2],
        )


def _random_expression(head: HeadModel, rng: np.random.Generator) -> F64:
    """Random weights (1, E) of a few units, of either sign where their range allows it."""
    reach, signed = head.unit_range.reach, head.unit_range.low < 0
    expression = np.zeros((1, head.num_expression))
    active = rng.random(head.num_expression) < 0.12
    expression[0, active] = reach[active] * rng.uniform(0, 0.7, active.sum())
    if signed.any():
        expression[0, signed] *= rng.choice([-1.0, 1.0], signed.sum())
    for unit in ("jawOpen", "jawPitch"):  # mostly open, to tell upper from lower lip
        if unit in head.expression_names:
            number = head.expression_names.index(unit)
            expression[0, number] = reach[number] * max(0, rng.uniform(-0.15, 0.5))
    return np.clip(expression, head.unit_range.low, head.unit_range.high)


def _facing(yaw: float, pitch: float, roll: float) -> Tensor:
    """Rotation (3, 3), head to camera, by yaw, pitch and roll (radians) from facing the camera."""
    turn = euler_to_rotmat("YXZ", torch.tensor([yaw, pitch, roll], dtype=torch.float32))
    return flip_rotation(turn)


def _shade(head: HeadModel, points: Tensor, camera: Camera, colours: Tensor, rng: np.random.Generator) -> U8:
    """A plain portrait (H, W, 3): coloured skin under one soft light before a plain background."""
    fragments = rasterise(camera.project(points), points[:, 2], head.faces, camera.height, camera.width)
    normals = fragments.interpolate(vertex_normals(points, head.faces), head.faces)
    light = torch.as_tensor([*rng.normal(0, 0.35, 2), -1.0], dtype=torch.float32)
    shade = 0.35 + 0.65 * (normals @ torch.nn.functional.normalize(light, dim=0)).clamp_min(0)
    tone = torch.as_tensor(rng.uniform(0.45, 1.1), dtype=torch.float32)
    picture = tone * fragments.interpolate(colours, head.faces) * shade[..., None]
    background = torch.as_tensor(rng.uniform(0.1, 0.9, 3), dtype=torch.float32)
    picture = torch.where((fragments.triangle < 0)[..., None], background, picture)
    return (picture.clamp(0, 1) * 255).byte().numpy()


def _locate(pixels: F64, scale: F64, landmarks: F64, faces: Int) -> tuple[Int, F64, F64]:
    """The point of the surface nearest to each landmark over all portraits: triangles, barycentric and spread.

    pixels (N, V, 2), scale (N,) metres a pixel, landmarks (N, L, 2), faces (F, 3). First the best vertex, then the
    best of a fine barycentric grid on the triangles around it and around their neighbours.
    """
    vertices = np.unique(faces)
    count = landmarks.shape[1]
    cost = np.empty((count, len(vertices)))
    for column, vertex in enumerate(vertices):
        cost[:, column] = _distance(pixels[:, vertex, None], landmarks, scale).mean(0)
    start = vertices[cost.argsort(1)[:, :3]]
    steps = 8
    grid = np.array([(i, j, steps - i - j) for i in range(steps + 1) for j in range(steps + 1 - i)]) / steps
    triangles, barycentric = np.empty((count, 3), np.int64), np.empty((count, 3))
    spread = np.empty(count)
    for mark in range(count):
        near = faces[np.isin(faces, faces[np.isin(faces, start[mark]).any(1)]).any(1)]
        candidates = np.einsum("gk,nfkc->nfgc", grid, pixels[:, near])
        target = landmarks[:, mark, None, None]
        costs = _distance(candidates, target, scale).mean(0)
        face, point = np.unravel_index(costs.argmin(), costs.shape)
        triangles[mark], barycentric[mark] = near[face], grid[point]
        spread[mark] = np.median(_distance(candidates[:, face, point, None], landmarks[:, mark, None], scale))
    return triangles, barycentric, spread


def _distance(points: F64, target: F64, scale: F64) -> F64:
    """Distances in metres at the face; the first axis of everything is the portrait."""
    return np.linalg.norm(points - target, axis=-1) * scale.reshape(-1, *[1] * (points.ndim - 2))
