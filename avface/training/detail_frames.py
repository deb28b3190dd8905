"""Frames of synthetic clips for the training of the fine stage: unwrapped once, with the skin's true displacement.

The coarse surface of a frame is the truth with errors such as a fit to landmarks leaves, and the displacement is where
the picture shows it on that surface: at each texel that of the point of the true face which is seen there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, fields, replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from avface.errors import AvfaceError
from avface.files import write_tensors
from avface.geometry.camera import Camera
from avface.geometry.rasteriser import rasterise
from avface.head.model import HeadModel, load_head
from avface.media import Clip
from avface.networks.detail_maps import DetailAtlas, detail_atlas
from avface.speech import speech_features
from avface.synthetic.clips import TRUTH, VIDEO, scene_of
from avface.synthetic.renderer import SceneRenderer
from avface.synthetic.scene import Scene
from avface.synthetic.truth import ClipTruth

FORMAT = "avface detail frames 1"
_SLIPPED = 0.06
"""Part of the window beyond which another place of the face is seen at a texel than the texel's own."""


@dataclass(frozen=True)
class DetailFramesConfig:
    """What frames are made of."""

    frames: int = 8
    """Frames of a clip, evenly over it."""
    resolution: int = 256
    """Texels R across the window."""
    picture: int | None = None
    """Pixels across pictures that are rendered anew, without occluders and compression, so that fine wrinkles show; by
    default the clip's own frames are taken."""
    shape_error: float = 0.3
    """Standard deviation of the coarse surface's shape weights from the truth, one error a clip."""
    expression_error: float = 0.04
    """The same of its expression weights, one a frame."""
    exact: float = 0.2
    """Share of the clips whose coarse surface is the truth."""
    seed: int = 0
    """Seed of the errors and of which frames."""

    def __post_init__(self) -> None:
        for name in ("frames", "resolution"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be positive")
        if self.picture is not None and self.picture < 64:
            raise AvfaceError(f"picture={self.picture} must be at least 64 pixels")


@dataclass(frozen=True, eq=False)
class DetailFrames:
    """N frames, from any number of clips.

    Shapes: image (N, 3, R, R) uint8, 0 where not seen; normals (N, 3, R, R) int8, of the coarse surface in the axes of
            `DetailMaps`, times 127; visibility (N, R, R) uint8, times 255, as if nothing were before the face, hidden
            (N, R, R) bool where something is; displacement (N, R, R) int16 micrometres; speech (N, 16, D) float16;
            clip (N,) and frame (N,) int32.
    """

    image: Tensor
    normals: Tensor
    visibility: Tensor
    hidden: Tensor
    displacement: Tensor
    speech: Tensor
    clip: Tensor
    frame: Tensor

    def __len__(self) -> int:
        return len(self.clip)

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
    clips: Path,
    cache: Path,
    config: DetailFramesConfig,
    *,
    every: int = 1,
    workers: int = 1,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> DetailFrames:
    """Frames of the clips in a folder that `avface synthesize` wrote; each clip's are kept as a file in `cache`.

    Of the clips every `every`-th is taken, by the numbers in their names. `on_clip` is told how many clips of how many
    are done.

    Raises:
        AvfaceError: if there are no clips, a file is damaged, or the cache holds frames of other clips or settings.
    """
    folders = sorted(path.parent for path in clips.glob(f"clip_[0-9]*/{TRUTH}"))
    folders = [folder for folder in folders if int(folder.name.removeprefix("clip_")) % every == 0]
    if not folders:
        raise AvfaceError(f"{clips}: no synthetic clips; make some with `avface synthesize`")
    try:
        cache.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AvfaceError(f"{cache}: can't be written ({error.strerror}); choose another folder") from None
    jobs = {folder: cache / f"{folder.name}.safetensors" for folder in folders}
    missing = [folder for folder, path in jobs.items() if not path.exists()]
    done = len(folders) - len(missing)
    on_clip(done, len(folders))
    if workers <= 1:
        for folder in missing:
            keep_clip(folder, jobs[folder], config)
            done += 1
            on_clip(done, len(folders))
    else:
        with ProcessPoolExecutor(workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            for job in as_completed([pool.submit(keep_clip, f, jobs[f], config) for f in missing]):
                job.result()
                done += 1
                on_clip(done, len(folders))
    return DetailFrames.joined([_read(path, folder, config) for folder, path in jobs.items()])


def keep_clip(folder: Path, path: Path, config: DetailFramesConfig) -> None:
    """Unwrap a clip's frames and write them.

    Raises:
        AvfaceError: if a file can't be read or written.
    """
    frames = unwrap_clip(folder, config)
    tensors = {entry.name: getattr(frames, entry.name) for entry in fields(DetailFrames)}
    write_tensors(path, tensors, {"format": FORMAT, "made": _made(folder, config)})


def unwrap_clip(folder: Path, config: DetailFramesConfig) -> DetailFrames:
    """Frames of the clip in a folder: its video, its sound and its truth.

    Raises:
        AvfaceError: if a file can't be read.
    """
    truth = ClipTruth.load(folder / TRUTH)
    if config.picture is not None:
        truth = replace(truth, config=json.dumps({**json.loads(truth.config), "size": config.picture}))
    scene = scene_of(truth)
    head = load_head(truth.head)
    atlas = detail_atlas(head, config.resolution)
    capture = truth.capture()
    rng = np.random.default_rng([config.seed, truth.seed, truth.index])
    steps = (np.arange(config.frames) + rng.uniform(size=config.frames)) / config.frames
    chosen = np.unique((steps * len(truth)).astype(int))
    clip = Clip.open(folder / VIDEO)
    if config.picture is None:
        wanted = set(chosen.tolist())
        pictures = {number: frame.image for number, frame in enumerate(clip.frames()) if number in wanted}
        chosen = np.array([number for number in chosen if number in pictures])
        camera = capture.camera
    else:
        pictures, camera = _rendered(scene, head, chosen.tolist()), scene.camera
    heard = speech_features(clip.audio(), truth.times[chosen])
    exact = rng.uniform() < config.exact
    shape_error = 0.0 if exact else config.shape_error * rng.normal(size=len(truth.shape))
    entries: dict[str, list[Tensor]] = {entry.name: [] for entry in fields(DetailFrames)}
    for row, number in enumerate(chosen.tolist()):
        true = torch.as_tensor(np.array(capture.vertices([number])[0]), dtype=torch.float32)
        coarse = true
        if not exact:
            off = config.expression_error * rng.normal(size=truth.expression.shape[1])
            coarse = _with_errors(head, truth, number, shape_error, off, true)
        expressed = head(
            torch.as_tensor(scene.shape)[None],
            torch.as_tensor(scene.performance.expression[number])[None],
        )[0]
        texture = torch.as_tensor(scene.skin.displacement(expressed.numpy()))
        displacement = atlas.from_uv_square(texture)
        if not exact:
            displacement = _where_seen(atlas, true, coarse, camera, displacement)
        maps = atlas.maps(pictures[number], coarse, camera)
        covered = maps.visibility
        if config.picture is None and (hidden := truth.occlusion_mask(number)).any():
            covered = atlas.maps(pictures[number], coarse, camera, hidden).visibility
        made = {
            "image": (255 * maps.image).round().byte(),
            "normals": (127 * maps.normals).round().to(torch.int8),
            "visibility": (255 * maps.visibility).round().byte(),
            "hidden": (covered == 0) & (maps.visibility > 0),
            "displacement": (1e6 * displacement * (atlas.mask > 0)).round().to(torch.int16),
            "speech": torch.as_tensor(heard.values[row]).half(),
            "clip": torch.tensor(truth.index, dtype=torch.int32),
            "frame": torch.tensor(number, dtype=torch.int32),
        }
        for name, value in made.items():
            entries[name].append(value)
    return DetailFrames(**{name: torch.stack(values) for name, values in entries.items()})


def _rendered(scene: Scene, head: HeadModel, chosen: list[int]) -> dict[int, npt.NDArray[np.uint8]]:
    """Pictures (H, W, 3) of frames of a scene, by number."""
    renderer = SceneRenderer(scene, head, supersampling=1)
    generator = torch.Generator().manual_seed(scene.noise_seed)
    return {
        number: scene.sensor.develop(renderer.light(range(number, number + 1)), generator)[0].cpu().numpy()
        for number in chosen
    }


def _with_errors(
    head: HeadModel,
    truth: ClipTruth,
    number: int,
    shape_error: npt.NDArray[np.floating] | float,
    expression_error: npt.NDArray[np.floating],
    true: Tensor,
) -> Tensor:
    """Vertices (V, 3) in the camera of a face that isn't quite the true one, laid over the true one's (V, 3)."""
    shape = torch.as_tensor(truth.shape + shape_error, dtype=torch.float32)
    expression = torch.as_tensor(truth.expression[number] + expression_error, dtype=torch.float32)
    joints = torch.as_tensor(truth.joints[number], dtype=torch.float32)
    with torch.no_grad():
        points = head(shape[None], expression.clamp(0, 1)[None], joints[None])[0]
    face = torch.as_tensor(head.regions["face"])
    middle, there = points[face].mean(0), true[face].mean(0)
    u, _, vh = torch.linalg.svd((points[face] - middle).T @ (true[face] - there))
    turn = vh.T @ torch.diag(torch.tensor([1.0, 1.0, float(torch.det(vh.T @ u.T).sign())])) @ u.T
    return (points - middle) @ turn.T + there


def _where_seen(
    atlas: DetailAtlas, true: Tensor, coarse: Tensor, camera: Camera, displacement: Tensor
) -> Tensor:
    """The displacement (R, R) of the true face as the picture shows it at the texels of a coarse surface.

    Where another part of the face is seen, or none, a texel keeps its own.
    """
    pixels = camera.project(true)
    found = rasterise(pixels, true[:, 2], atlas.faces, camera.height, camera.width)
    uv = found.interpolate(atlas.uv, atlas.uv_faces)
    seen = (found.triangle >= 0).float()[..., None]
    size = torch.tensor([camera.width, camera.height])
    place = (2 * atlas.pixels(coarse, camera) + 1) / size - 1
    looked = grid_sample(
        torch.cat([uv, seen], -1).movedim(-1, 0)[None], place[None], padding_mode="zeros", align_corners=False
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


def _made(folder: Path, config: DetailFramesConfig) -> str:
    """What tells a clip and the settings from others."""
    recipe = folder.parent / "synthesis.json"
    clips = hashlib.sha256(recipe.read_bytes()).hexdigest() if recipe.exists() else ""
    return json.dumps({"clips": clips, "clip": folder.name, **asdict(config)}, sort_keys=True)


def _read(path: Path, folder: Path, config: DetailFramesConfig) -> DetailFrames:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError) as error:
        raise AvfaceError(f"{path}: not readable ({error}); delete it, and it is made again") from None
    if metadata.get("format") != FORMAT or metadata.get("made") != _made(folder, config):
        raise AvfaceError(f"{path}: frames of other clips or settings; delete it, or choose another cache")
    if set(tensors) != {entry.name for entry in fields(DetailFrames)}:
        raise AvfaceError(f"{path}: damaged; delete it, and it is made again")
    return DetailFrames(**tensors)
