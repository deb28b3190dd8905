"""Synthetic clips on disk: OUT/clip_000000/clip.mp4 and truth.npz, and so on.

A clip depends only on the seed and its number, so a series can be made in parts and by several processes, and is
resumed after an interruption.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch

from avface.arrays import F32, U8, Bool, Floats
from avface.errors import AvfaceError
from avface.files import replacing, replacing_folder
from avface.head import load_head
from avface.media import Clip, EncodingConfig, VideoWriter
from avface.speech.spectrum import SAMPLE_RATE
from avface.synthetic.rendering.renderer import SceneRenderer
from avface.synthetic.rendering.scene import Scene, SceneConfig, sample_scene
from avface.synthetic.rendering.sensor import srgb
from avface.synthetic.truth import VERSION, ClipTruth

VIDEO, TRUTH, RECIPE = "clip.mp4", "truth.npz", "synthesis.json"


@dataclass(frozen=True)
class SynthesisConfig:
    """Options of a series of clips."""

    seed: int = 0
    """Seed of people, speech and scenes."""
    scene: SceneConfig = field(default_factory=SceneConfig)
    """Distribution of scenes."""
    supersampling: int = 2
    """Rendered pixels across one of the video's."""
    occluded: float = 0.0
    """Share of the clips with occluders in front of the face."""

    def __post_init__(self) -> None:
        scene = self.scene
        if self.seed < 0:
            raise AvfaceError(f"seed {self.seed}: must not be negative")
        if scene.size < 64:
            raise AvfaceError(f"size {scene.size}: must be at least 64 pixels")
        if scene.size % 2 == 1:
            raise AvfaceError(f"size {scene.size}: must be even, because of the video encoding")
        if not scene.seconds >= 0.5:
            raise AvfaceError(f"{scene.seconds:g} seconds: clips must be at least half a second long")
        if not 5 <= scene.frame_rate <= 120:
            raise AvfaceError(f"frame rate {scene.frame_rate:g}: must be from 5 to 120 frames a second")
        if not 0 <= self.occluded <= 1:
            raise AvfaceError(f"occluded {self.occluded:g}: must be a share from 0 to 1")
        if not 1 <= self.supersampling <= 4:
            raise AvfaceError(f"supersampling {self.supersampling}: must be from 1 to 4")


@dataclass(frozen=True)
class SyntheticClip:
    """A finished clip: its folder, number of frames, and number of frames in which the tracker found the face."""

    folder: Path
    frames: int
    tracked: int


def synthesize(
    out: Path,
    clips: int,
    config: SynthesisConfig | None = None,
    *,
    workers: int | None = None,
    device: str = "cpu",
    on_clip: Callable[[int], None] = lambda done: None,
) -> list[SyntheticClip]:
    """Make the clips numbered 0 to `clips` - 1 in the folder `out`; existing ones are kept.

    `workers` processes share the work, by default one per core (a single one with a GPU); the files don't depend on
    their number. `on_clip` is called with the number of finished clips.

    Raises:
        AvfaceError: if the folder holds another series or can't be written, espeakng-loader is missing, or a worker
            dies.
    """
    config = config or SynthesisConfig()
    if clips < 1:
        raise AvfaceError(f"{clips} clips: make at least one")
    _claim(out, config)
    for unfinished in out.glob(".clip_*"):  # of a killed run
        shutil.rmtree(unfinished, ignore_errors=True)
    folders = [out / f"clip_{index:06d}" for index in range(clips)]
    missing = [index for index, folder in enumerate(folders) if not (folder / TRUTH).exists()]
    done = clips - len(missing)
    on_clip(done)
    for _ in _make_all(missing, folders, config, workers, device):
        done += 1
        on_clip(done)
    return [_summary(folder) for folder in folders]


def scene_of(truth: ClipTruth) -> Scene:
    """The scene of a clip, reproduced from its seed."""
    config = json.loads(truth.config)
    config["shape_sigma"] = tuple(config["shape_sigma"])
    return sample_scene(truth.seed, truth.index, SceneConfig(**config))


def make_clip(folder: Path, index: int, config: SynthesisConfig, device: str = "cpu") -> SyntheticClip:
    """Make one clip in a folder, which is written atomically."""
    head = load_head(config.scene.head)
    scene = sample_scene(config.seed, index, config.scene, head)
    renderer = SceneRenderer(scene, head, config.supersampling, device)
    capture = scene.capture(head, config.scene.head)
    landmarks = capture.landmarks()
    with replacing_folder(folder) as partial:
        masks = []
        encoding = EncodingConfig(crf=scene.sensor.quality, preset="veryfast")
        sound = (scene.performance.sound, SAMPLE_RATE)
        with VideoWriter(partial / VIDEO, sound=sound, encoding=encoding) as writer:
            pictures = _occluded(renderer.frames(), landmarks, index, config)
            for (picture, mask), time in zip(pictures, capture.times, strict=True):
                writer.write(picture, float(time))
                if mask is not None:
                    masks.append(np.packbits(mask, axis=-1))
        tracked, confidence = _track(partial / VIDEO, len(scene), landmarks.shape[1])
        performance = scene.performance
        ClipTruth(
            seed=config.seed,
            index=index,
            config=json.dumps(asdict(config.scene)),
            head=config.scene.head,
            shape=scene.shape,
            expression=performance.expression,
            expression_names=head.expression_names,
            rotation=capture.rotation,
            translation=capture.translation,
            joints=performance.joints,
            joint_names=head.joint_names,
            focal_length=scene.camera.focal_length,
            principal_point=scene.camera.principal_point,
            image_size=(scene.camera.width, scene.camera.height),
            times=capture.times,
            landmarks=landmarks.astype(np.float32),
            tracked=tracked,
            tracked_confidence=confidence,
            occlusion=np.stack(masks) if masks else np.zeros((0, 0, 0), np.uint8),
            light_harmonics=scene.light.harmonics,
            light_directions=scene.light.directions,
            light_colours=scene.light.colours,
            albedo=(srgb(torch.as_tensor(scene.skin.albedo).clamp(0, 1)) * 255).round().byte().numpy(),
            relief=(scene.skin.relief * 1e6).astype(np.float16),
            phoneme_symbols=tuple(phoneme.symbol for phoneme in performance.phonemes),
            phoneme_starts=np.array([phoneme.start for phoneme in performance.phonemes], np.float64),
            kind=performance.kind,
            language=performance.language,
            voice=performance.voice,
            emotion=performance.emotion,
        ).save(partial / TRUTH)
    return SyntheticClip(folder, len(scene), int((confidence > 0).sum()))


def _track(video: Path, frames: int, points: int) -> tuple[F32, F32]:
    """The tracker's landmarks (T, L, 2) and confidence (T,) in the video; nan and 0 in frames without a detection."""
    from avface.tracking import track

    try:
        found = track(Clip.open(video).frames())
    except AvfaceError:
        return np.full((frames, points, 2), np.nan, np.float32), np.zeros(frames, np.float32)
    return np.asarray(found.landmarks[:], np.float32), np.asarray(found.confidence, np.float32)


def _occluded(
    pictures: Iterator[U8],
    landmarks: Floats,
    index: int,
    config: SynthesisConfig,
) -> Iterator[tuple[U8, Bool | None]]:
    """Pictures with the mask (H, W) of their occluder; None in clips without occluders."""
    rng = np.random.default_rng([config.seed, index, 100])
    if rng.uniform() >= config.occluded:
        for picture in pictures:
            yield picture, None
        return
    from avface.synthetic.occlusion.compositing import occlude

    for frame in occlude(pictures, landmarks, rng):
        yield frame.image, frame.mask > 127


def _make_all(
    missing: list[int], folders: list[Path], config: SynthesisConfig, workers: int | None, device: str
) -> Iterator[SyntheticClip]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers or (cores if device == "cpu" else 1), len(missing))
    if workers <= 1:
        for index in missing:
            yield make_clip(folders[index], index, config, device)
        return
    context = multiprocessing.get_context("spawn")  # torch's threads would hang after a fork
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = [pool.submit(make_clip, folders[index], index, config, device) for index in missing]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool:
            raise AvfaceError(
                f"{folders[0].parent}: a worker process died, possibly out of memory; "
                "run the same command again with fewer --workers, finished clips are kept"
            ) from None
        finally:
            for job in jobs:
                job.cancel()


def _claim(out: Path, config: SynthesisConfig) -> None:
    """Write the recipe into the folder, or compare it with the existing one."""
    recipe = json.dumps({"version": VERSION, **asdict(config)}, indent=1)
    path = out / RECIPE
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if path.read_text(encoding="utf-8") != recipe:
                raise AvfaceError(
                    f"{out}: holds clips made with other options; choose another folder or remove it"
                )
            return
        if any(out.iterdir()):
            raise AvfaceError(f"{out}: not empty, and not made by this command; choose another folder")
        with replacing(path) as temporary:
            temporary.write_text(recipe, encoding="utf-8")
    except OSError as error:
        raise AvfaceError(f"{out}: can't be written ({error.strerror}); choose another folder") from None


def _summary(folder: Path) -> SyntheticClip:
    confidence = ClipTruth.load(folder / TRUTH).tracked_confidence
    return SyntheticClip(folder, len(confidence), int((confidence > 0).sum()))
