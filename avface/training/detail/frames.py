"""Training frames of the detail stage: close-ups of synthetic people with the true folds of their skin.

The coarse surface of a frame is the true one with errors as of a fit to landmarks, and the displacement is given where
the image shows it on that surface: at each texel, that of the point of the true face which is visible there. It has
folds and wrinkles alone: pores, stubble and fine lines are noise at the resolution of a video.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from avface.arrays import F64, U8, Bool
from avface.errors import AvfaceError
from avface.files import write_tensors
from avface.geometry.camera import Camera
from avface.geometry.rasteriser import rasterise
from avface.geometry.shading import sample_texture
from avface.head.asset import load_head
from avface.head.model import HeadModel
from avface.head.skin.atlas import DetailAtlas, detail_atlas
from avface.networks.detail.losses import VALLEY_SHADE, valley_occlusion
from avface.speech import speech_features
from avface.synthetic.occlusion.compositing import occlude
from avface.synthetic.occlusion.plan import OcclusionEvent
from avface.synthetic.rendering.renderer import SceneRenderer
from avface.synthetic.rendering.scene import Scene, SceneConfig, sample_scene
from avface.training.loop.config import check_not_negative, check_positive, check_shares

FORMAT = "avface detail frames 4"
FOLDING: tuple[dict[str, float], ...] = (
    {"browInnerUp": 1.0, "browOuterUp": 0.9},
    {"browInnerUp": 0.5, "browOuterUpLeft": 1.0},
    {"browInnerUp": 0.5, "browOuterUpRight": 1.0},
    {"browDown": 1.0},
    {"browInnerUp": 0.7, "browDown": 0.6},
    {"noseSneer": 1.0, "browDown": 0.4, "mouthUpperUp": 0.3},
    {"eyeSquint": 0.7, "cheekSquint": 1.0},
    {"mouthSmile": 1.0, "cheekSquint": 0.6, "mouthDimple": 0.2},
    {"mouthFrown": 0.9, "mouthShrugLower": 0.4},
    {"mouthStretch": 0.7},
    {"mouthPucker": 1.0},
    {"mouthShrugLower": 0.9},
)
"""Combinations of units that fold the skin; those with a left and a right half are named without the side."""
_SLIPPED = 0.06
"""Distance in the window, as a share of it, beyond which a texel shows another part of the face than its own."""
_SECONDS = 2.0


@dataclass(frozen=True)
class DetailFramesConfig:
    """Content of the frames."""

    people: int = 200
    """Number of people, each with light, camera and speech of their own."""
    frames: int = 10
    """Frames of each."""
    resolution: int = 256
    """Width and height R of the window in texels."""
    picture: int = 640
    """Width and height of the images in pixels; a head fills 0.38 to 0.75 of them."""
    min_scale: float = 0.4
    """Images are downsampled by factors from this to 1: detail beyond the resolution must not be inferred."""
    folded: float = 0.6
    """Share of the frames with a strong expression added to the speech."""
    occluded: float = 0.3
    """Share of the people with an occluder before the face."""
    shape_error: float = 0.4
    """Standard deviation of the error of the coarse shape weights, drawn once per person."""
    expression_error: float = 0.05
    """The same of the expression weights, drawn for each frame."""
    exact: float = 0.15
    """Share of the people without such errors."""
    texture: int = 512
    """Width and height of the skin's maps in texels."""
    seed: int = 61
    """Another seed gives other people."""

    def __post_init__(self) -> None:
        check_positive(self, "people", "frames", "resolution", "texture")
        if self.picture < 64:
            raise AvfaceError(f"picture={self.picture} must be at least 64 pixels")
        check_shares(self, "min_scale", "folded", "occluded", "exact")
        check_not_negative(self, "shape_error", "expression_error", "seed")


@dataclass(frozen=True, eq=False)
class DetailFrames:
    """N frames of any number of people.

    Shapes: image (N, 3, R, R) uint8, 0 where not seen; normals (N, 3, R, R) int8, of the coarse surface in the axes of
            `DetailMaps`, times 127; visibility (N, R, R) uint8, times 255, without occluders, and occluded (N, R, R)
            bool, the mask of occluders; displacement (N, R, R) int16 micrometres; speech (N, 16, D) float16;
            person (N,) and frame (N,) int32.
    """

    image: Tensor
    normals: Tensor
    visibility: Tensor
    occluded: Tensor
    displacement: Tensor
    speech: Tensor
    person: Tensor
    frame: Tensor

    def __len__(self) -> int:
        return len(self.person)

    def select(self, rows: Tensor) -> DetailFrames:
        """Those of some rows: numbers (M,) or bool (N,)."""
        return DetailFrames(**{entry.name: getattr(self, entry.name)[rows] for entry in fields(self)})

    @classmethod
    def joined(cls, parts: list[DetailFrames]) -> DetailFrames:
        """All frames of all parts."""
        return cls(
            **{entry.name: torch.cat([getattr(part, entry.name) for part in parts]) for entry in fields(cls)}
        )


def prepare_detail_frames(
    cache: Path,
    config: DetailFramesConfig,
    *,
    head: str = "open",
    workers: int = 1,
    on_person: Callable[[int, int], None] = lambda done, total: None,
) -> DetailFrames:
    """Frames of all people, one file per person in `cache`; existing files are read.

    `on_person` is called with the number of people that are done and the total.

    Raises:
        AvfaceError: if a file is damaged or can't be written, or the cache holds frames of other settings.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AvfaceError(f"{cache}: can't be written ({error.strerror}); choose another folder") from None
    paths = [cache / f"person_{index:06d}.safetensors" for index in range(config.people)]
    missing = [index for index, path in enumerate(paths) if not path.exists()]
    done = len(paths) - len(missing)
    on_person(done, len(paths))
    if workers <= 1:
        for index in missing:
            make_person(index, paths[index], config, head)
            done += 1
            on_person(done, len(paths))
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            for job in as_completed([pool.submit(make_person, k, paths[k], config, head) for k in missing]):
                job.result()
                done += 1
                on_person(done, len(paths))
    return DetailFrames.joined([_read(path, index, config, head) for index, path in enumerate(paths)])


def make_person(index: int, path: Path, config: DetailFramesConfig, head: str = "open") -> None:
    """Make a person's frames and write them.

    Raises:
        AvfaceError: if they can't be written.
    """
    frames = person_frames(index, config, head)
    tensors = {entry.name: getattr(frames, entry.name) for entry in fields(DetailFrames)}
    write_tensors(path, tensors, {"format": FORMAT, "settings": _settings(index, config, head)})


def person_frames(index: int, config: DetailFramesConfig, head: str = "open") -> DetailFrames:
    """Frames of the person number `index`, always the same for the same arguments."""
    model = load_head(head)
    atlas = detail_atlas(model, config.resolution)
    rng = np.random.default_rng([config.seed, index, 17])
    settings = SceneConfig(head=head, size=config.picture, seconds=_SECONDS, texture=config.texture)
    scene = sample_scene(config.seed, index, settings, model)
    steps = (np.arange(config.frames) + rng.uniform(size=config.frames)) / config.frames
    chosen = (steps * len(scene)).astype(int)
    scene = _with_folds(scene, model, chosen, rng, config.folded)
    speech = speech_features(scene.performance.sound, scene.performance.times[chosen]).values
    capture = scene.capture(model, head)
    exact = rng.uniform() < config.exact
    shape_error = 0.0 if exact else config.shape_error * rng.normal(size=len(scene.shape))
    points = [torch.as_tensor(np.array(capture.vertices([n])[0]), dtype=torch.float32) for n in chosen]
    heights = [true_folds(scene, model, n) for n in chosen]
    places = [seen_places(model, true, scene.camera) for true in points]
    pictures = render_frames(scene, model, chosen, heights, places, rng)
    masks: list[Bool | None] = [None] * len(chosen)
    if rng.uniform() < config.occluded:
        stay = [OcclusionEvent(0, len(chosen), False, False)]
        covered = list(occlude(pictures, capture.landmarks()[chosen], rng, events=stay))
        pictures, masks = [frame.image for frame in covered], [frame.mask > 127 for frame in covered]
    entries: dict[str, list[Tensor]] = {entry.name: [] for entry in fields(DetailFrames)}
    for row, number in enumerate(chosen.tolist()):
        true = coarse = points[row]
        displacement = atlas.from_uv_square(heights[row])
        if not exact:
            off = config.expression_error * rng.normal(size=model.num_expression)
            coarse = _with_errors(model, scene, number, shape_error, off, true)
            displacement = _where_seen(atlas, places[row], coarse, scene.camera, displacement)
        picture, mask, camera = _as_video(pictures[row], masks[row], scene.camera, rng, config.min_scale)
        maps = atlas.maps(picture, coarse, camera)
        visibility = maps.visibility if mask is None else atlas.maps(picture, coarse, camera, mask).visibility
        made = {
            "image": (255 * maps.image).round().byte(),
            "normals": (127 * maps.normals).round().to(torch.int8),
            "visibility": (255 * maps.visibility).round().byte(),
            "occluded": (visibility == 0) & (maps.visibility > 0),
            "displacement": (1e6 * displacement * (atlas.mask > 0)).round().to(torch.int16),
            "speech": torch.as_tensor(speech[row]).half(),
            "person": torch.tensor(index, dtype=torch.int32),
            "frame": torch.tensor(number, dtype=torch.int32),
        }
        for name, value in made.items():
            entries[name].append(value)
    return DetailFrames(**{name: torch.stack(values) for name, values in entries.items()})


def _with_folds(
    scene: Scene, head: HeadModel, chosen: npt.NDArray[np.int_], rng: np.random.Generator, share: float
) -> Scene:
    """The scene with strong expressions in a share of the chosen frames."""
    expression = scene.performance.expression.copy()
    names = head.expression_names
    for number in chosen:
        if rng.uniform() >= share:
            continue
        for which in rng.choice(len(FOLDING), int(rng.integers(1, 4)), replace=False):
            strength = rng.uniform(0.25, 1.0)
            for unit, weight in FOLDING[which].items():
                for name in (unit, f"{unit}Left", f"{unit}Right"):
                    if name in names:
                        side = 1 + 0.15 * rng.normal()
                        expression[number, names.index(name)] += strength * weight * side
    performance = replace(scene.performance, expression=expression.clip(0, 1))
    return replace(scene, performance=performance)


def true_folds(scene: Scene, head: HeadModel, number: int) -> Tensor:
    """Displacement (S, S) metres of the folds and wrinkles in a frame, over the whole uv square."""
    expression = torch.as_tensor(scene.performance.expression[number])
    expressed = head(torch.as_tensor(scene.shape)[None], expression[None])[0]
    wrinkles = scene.skin.wrinkles
    return torch.as_tensor(wrinkles.static + wrinkles.displacement(expressed.numpy()))


def seen_places(head: HeadModel, points: Tensor, camera: Camera) -> tuple[Tensor, Tensor]:
    """The uv (H, W, 2) that each pixel sees of a head (V, 3) in camera axes, and whether it does (H, W)."""
    found = rasterise(camera.project(points), points[:, 2], head.faces.cpu(), camera.height, camera.width)
    return found.interpolate(torch.as_tensor(head.uv), torch.as_tensor(head.uv_faces)), found.triangle >= 0


def render_frames(
    scene: Scene,
    head: HeadModel,
    chosen: npt.NDArray[np.int_],
    heights: list[Tensor],
    places: list[tuple[Tensor, Tensor]],
    rng: np.random.Generator,
) -> list[U8]:
    """Images (H, W, 3) of the chosen frames.

    The renderer shades a displaced surface without cast shadows, but the valleys of real folds are dark. Here they are
    darkened by their depth, with a strength drawn per person.
    """
    renderer = SceneRenderer(scene, head, supersampling=1)
    generator = torch.Generator().manual_seed(scene.noise_seed)
    strength = VALLEY_SHADE / 2 + float(rng.exponential(VALLEY_SHADE / 2))
    pictures = []
    for number, height, (uv, seen) in zip(chosen.tolist(), heights, places, strict=True):
        dark = valley_occlusion(height, 1.0, strength)
        shade = torch.where(seen, sample_texture(dark[..., None], uv)[..., 0], 1.0)
        light = renderer.light(range(number, number + 1)) * shade[None, ..., None]
        pictures.append(scene.sensor.develop(light, generator)[0].numpy())
    return pictures


def _as_video(
    picture: U8,
    occluded: Bool | None,
    camera: Camera,
    rng: np.random.Generator,
    min_scale: float,
) -> tuple[U8, Bool | None, Camera]:
    """An image as in a video, resized and compressed, with the mask of occluders and the camera."""
    size = round(camera.width * rng.uniform(min_scale, 1))
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    _, packed = cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 98))))
    small = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    if occluded is not None:
        occluded = cv2.resize(occluded.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) > 0.2
    return small, occluded, Camera.centred(camera.focal_length * size / camera.width, size, size)


def _with_errors(
    head: HeadModel,
    scene: Scene,
    number: int,
    shape_error: F64 | float,
    expression_error: F64,
    true: Tensor,
) -> Tensor:
    """Vertices (V, 3) in camera axes of a face with wrong weights, aligned rigidly with the true ones (V, 3)."""
    shape = torch.as_tensor(scene.shape + shape_error, dtype=torch.float32)
    expression = torch.as_tensor(scene.performance.expression[number] + expression_error, dtype=torch.float32)
    joints = torch.as_tensor(scene.performance.joints[number], dtype=torch.float32)
    with torch.no_grad():
        points = head(shape[None], expression.clamp(0, 1)[None], joints[None])[0]
    face = torch.as_tensor(head.regions["face"])
    middle, there = points[face].mean(0), true[face].mean(0)
    u, _, vh = torch.linalg.svd((points[face] - middle).T @ (true[face] - there))
    turn = vh.T @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(vh.T @ u.T).sign())])) @ u.T
    return (points - middle) @ turn.T + there


def _where_seen(
    atlas: DetailAtlas, places: tuple[Tensor, Tensor], coarse: Tensor, camera: Camera, displacement: Tensor
) -> Tensor:
    """The displacement (R, R) of the true face as the image shows it at the texels of a coarse surface (V, 3).

    places: of `seen_places` for the true face. A texel keeps its own displacement where the image shows another part of
    the face, or none.
    """
    uv, seen = places
    inside = torch.stack(
        [(uv[..., 0] - atlas.corner[0]) / atlas.side, 1 - (1 - uv[..., 1] - atlas.corner[1]) / atlas.side], -1
    )
    size = torch.tensor([camera.width, camera.height])
    place = (2 * atlas.pixels(coarse, camera) + 1) / size - 1
    looked = grid_sample(
        torch.cat([inside, seen[..., None].float()], -1).movedim(-1, 0)[None],
        place[None],
        padding_mode="zeros",
        align_corners=False,
    )[0]
    steps = (torch.arange(atlas.resolution) + 0.5) / atlas.resolution
    own = torch.stack(
        [steps[None].expand(len(steps), -1), (1 - steps)[:, None].expand(-1, len(steps))]
    )  # (2, R, R), u and v
    there = looked[:2]
    kept = (looked[2] < 0.999) | ((there - own).abs().amax(0) > _SLIPPED)
    there = torch.where(kept, own, there)
    grid = torch.stack([2 * there[0] - 1, 1 - 2 * there[1]], -1)
    return grid_sample(displacement[None, None], grid[None], padding_mode="border", align_corners=False)[0, 0]


def _settings(index: int, config: DetailFramesConfig, head: str) -> str:
    """Person and config, without the number of people, which doesn't matter."""
    return json.dumps({"person": index, "head": head, **asdict(replace(config, people=1))}, sort_keys=True)


def _read(path: Path, index: int, config: DetailFramesConfig, head: str) -> DetailFrames:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise AvfaceError(f"{path}: not readable ({error}); delete it to make it again") from None
    if metadata.get("format") != FORMAT or metadata.get("settings") != _settings(index, config, head):
        raise AvfaceError(f"{path}: frames of other settings; delete it, or choose another cache")
    if set(tensors) != {entry.name for entry in fields(DetailFrames)}:
        raise AvfaceError(f"{path}: damaged; delete it to make it again")
    return DetailFrames(**tensors)
