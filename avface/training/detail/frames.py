"""Frames for the training of the fine stage: made people, seen from near, with the true folds of their skin.

The coarse surface of a frame is the truth with errors such as a fit to landmarks leaves, and the displacement is where
the picture shows it on that surface: at each texel that of the point of the true face which is seen there. It is that
of folds and wrinkles alone. Pores, stubble and the lattice of fine lines are noise to whoever sees a face in a video.
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
from avface.head.model import HeadModel, load_head
from avface.head.skin.atlas import DetailAtlas, detail_atlas
from avface.networks.detail.losses import VALLEY_SHADE, valley_light
from avface.speech import speech_features
from avface.synthetic.occlusion.occlusion import OcclusionEvent, occlude
from avface.synthetic.rendering.renderer import SceneRenderer
from avface.synthetic.rendering.scene import Scene, SceneConfig, sample_scene

FORMAT = "avface detail frames 3"
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
"""Units that fold the skin together; those with a left and a right half are named without the side."""
_SLIPPED = 0.06
"""Part of the window beyond which another place of the face is seen at a texel than the texel's own."""
_SECONDS = 2.0


@dataclass(frozen=True)
class DetailFramesConfig:
    """What frames are made of."""

    people: int = 200
    """How many, each with light, camera and words of their own."""
    frames: int = 10
    """Frames of each."""
    resolution: int = 256
    """Texels R across the window."""
    picture: int = 640
    """Pixels across the pictures; a head fills 0.38 to 0.75 of them."""
    smallest: float = 0.4
    """Pictures are shrunk to between this and 1 of their size: what can't be seen must not be guessed."""
    folded: float = 0.6
    """Share of the frames with a strong expression beside what is said."""
    occluded: float = 0.3
    """Share of the people with something before the face."""
    shape_error: float = 0.4
    """Standard deviation of the coarse surface's shape weights from the truth, one error a person."""
    expression_error: float = 0.05
    """The same of its expression weights, one a frame."""
    exact: float = 0.15
    """Share of the people whose coarse surface is the truth."""
    texture: int = 512
    """Texels across the skin's maps."""
    seed: int = 61
    """Another seed gives other people."""

    def __post_init__(self) -> None:
        for name in ("people", "frames", "resolution"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be positive")
        if self.picture < 64:
            raise AvfaceError(f"picture={self.picture} must be at least 64 pixels")
        for name in ("smallest", "folded", "occluded", "exact"):
            if not 0 <= getattr(self, name) <= 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be from 0 to 1")


@dataclass(frozen=True, eq=False)
class DetailFrames:
    """N frames, of any number of people.

    Shapes: image (N, 3, R, R) uint8, 0 where not seen; normals (N, 3, R, R) int8, of the coarse surface in the axes of
            `DetailMaps`, times 127; visibility (N, R, R) uint8, times 255, as if nothing were before the face, hidden
            (N, R, R) bool where something is; displacement (N, R, R) int16 micrometres; speech (N, 16, D) float16;
            person (N,) and frame (N,) int32.
    """

    image: Tensor
    normals: Tensor
    visibility: Tensor
    hidden: Tensor
    displacement: Tensor
    speech: Tensor
    person: Tensor
    frame: Tensor

    def __len__(self) -> int:
        return len(self.person)

    def select(self, rows: Tensor) -> DetailFrames:
        """Those of the rows (M,), numbers or bool (N,)."""
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
    """Frames of all people, each person's kept as a file in `cache`; those that are there already are read.

    `on_person` is told how many people of how many are done.

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
            keep_person(index, paths[index], config, head)
            done += 1
            on_person(done, len(paths))
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            for job in as_completed([pool.submit(keep_person, k, paths[k], config, head) for k in missing]):
                job.result()
                done += 1
                on_person(done, len(paths))
    return DetailFrames.joined([_read(path, index, config, head) for index, path in enumerate(paths)])


def keep_person(index: int, path: Path, config: DetailFramesConfig, head: str = "open") -> None:
    """Make a person's frames and write them.

    Raises:
        AvfaceError: if they can't be written.
    """
    frames = person_frames(index, config, head)
    tensors = {entry.name: getattr(frames, entry.name) for entry in fields(DetailFrames)}
    write_tensors(path, tensors, {"format": FORMAT, "made": _made(index, config, head)})


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
    heard = speech_features(scene.performance.sound, scene.performance.times[chosen]).values
    capture = scene.capture(model, head)
    exact = rng.uniform() < config.exact
    shape_error = 0.0 if exact else config.shape_error * rng.normal(size=len(scene.shape))
    points = [torch.as_tensor(np.array(capture.vertices([n])[0]), dtype=torch.float32) for n in chosen]
    heights = [true_folds(scene, model, n) for n in chosen]
    places = [seen_places(model, true, scene.camera) for true in points]
    pictures = film(scene, model, chosen, heights, places, rng)
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
        picture, mask, camera = _filmed(pictures[row], masks[row], scene.camera, rng, config.smallest)
        maps = atlas.maps(picture, coarse, camera)
        covered_too = (
            maps.visibility if mask is None else atlas.maps(picture, coarse, camera, mask).visibility
        )
        made = {
            "image": (255 * maps.image).round().byte(),
            "normals": (127 * maps.normals).round().to(torch.int8),
            "visibility": (255 * maps.visibility).round().byte(),
            "hidden": (covered_too == 0) & (maps.visibility > 0),
            "displacement": (1e6 * displacement * (atlas.mask > 0)).round().to(torch.int16),
            "speech": torch.as_tensor(heard[row]).half(),
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


def film(
    scene: Scene,
    head: HeadModel,
    chosen: npt.NDArray[np.int_],
    heights: list[Tensor],
    places: list[tuple[Tensor, Tensor]],
    rng: np.random.Generator,
) -> list[U8]:
    """Pictures (H, W, 3) of the chosen frames.

    The renderer lights a displaced surface but knows no shadow within a fold, and valleys are what is dark in a real
    one. Here they are darker by their depth, one person's more than another's.
    """
    renderer = SceneRenderer(scene, head, supersampling=1)
    generator = torch.Generator().manual_seed(scene.noise_seed)
    strength = VALLEY_SHADE / 2 + float(rng.exponential(VALLEY_SHADE / 2))
    pictures = []
    for number, height, (uv, seen) in zip(chosen.tolist(), heights, places, strict=True):
        dark = valley_light(height, 1.0, strength)
        shade = torch.where(seen, sample_texture(dark[..., None], uv)[..., 0], 1.0)
        light = renderer.light(range(number, number + 1)) * shade[None, ..., None]
        pictures.append(scene.sensor.develop(light, generator)[0].numpy())
    return pictures


def _filmed(
    picture: U8,
    hidden: Bool | None,
    camera: Camera,
    rng: np.random.Generator,
    smallest: float,
) -> tuple[U8, Bool | None, Camera]:
    """A picture as a video has it: of any size, and compressed; what is hidden and the camera go along."""
    size = round(camera.width * rng.uniform(smallest, 1))
    small = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    _, packed = cv2.imencode(".jpg", small, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(60, 98))))
    small = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    if hidden is not None:
        hidden = cv2.resize(hidden.astype(np.float32), (size, size), interpolation=cv2.INTER_AREA) > 0.2
    return small, hidden, Camera.centred(camera.focal_length * size / camera.width, size, size)


def _with_errors(
    head: HeadModel,
    scene: Scene,
    number: int,
    shape_error: F64 | float,
    expression_error: F64,
    true: Tensor,
) -> Tensor:
    """Vertices (V, 3) in the camera of a face that isn't quite the true one, laid over the true one's (V, 3)."""
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
    """The displacement (R, R) of the true face as the picture shows it at the texels of a coarse surface (V, 3).

    places are what the pixels see of the true face, as of `_places`. Where another part of the face is seen, or none, a
    texel keeps its own.
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


def _made(index: int, config: DetailFramesConfig, head: str) -> str:
    """What tells a person and the settings from others; of how many people it is one doesn't matter."""
    return json.dumps({"person": index, "head": head, **asdict(replace(config, people=1))}, sort_keys=True)


def _read(path: Path, index: int, config: DetailFramesConfig, head: str) -> DetailFrames:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise AvfaceError(f"{path}: not readable ({error}); delete it, and it is made again") from None
    if metadata.get("format") != FORMAT or metadata.get("made") != _made(index, config, head):
        raise AvfaceError(f"{path}: frames of other settings; delete it, or choose another cache")
    if set(tensors) != {entry.name for entry in fields(DetailFrames)}:
        raise AvfaceError(f"{path}: damaged; delete it, and it is made again")
    return DetailFrames(**tensors)
