"""Synthetic clips on disk: OUT/clip_000000/clip.mp4 and truth.npz, and so on.

Every clip depends on the seed and its own number alone, so a series can be made in pieces, by several processes, and
goes on where it was interrupted.
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
    """What a series of clips is made of."""

    seed: int = 0
    """Another seed gives other people, words and scenes."""
    scene: SceneConfig = field(default_factory=SceneConfig)
    """What is filmed."""
    supersampling: int = 2
    """Rendered pixels across one of the video's."""
    occluded: float = 0.0
    """Share of the clips in which something hides a part of the face for a while."""


@dataclass(frozen=True)
class MadeClip:
    """A clip that is done: its folder, number of frames, and in how many the tracker found the face."""

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
) -> list[MadeClip]:
    """Make the clips numbered 0 to `clips` - 1 in the folder `out`; those that are there already are kept.

    `workers` processes share the work, by default one a core (one alone with a GPU); the files are the same whatever
    their number. `on_clip` is told how many clips are done.

    Raises:
        AvfaceError: if the folder holds another series or can't be written, espeakng-loader is missing, or a worker
            dies.
    """
    config = config or SynthesisConfig()
    if clips < 1:
        raise AvfaceError(f"{clips} clips: make at least one")
    _check(config)
    _claim(out, config)
    for left in out.glob(".clip_*"):  # by a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    folders = [out / f"clip_{index:06d}" for index in range(clips)]
    missing = [index for index, folder in enumerate(folders) if not (folder / TRUTH).exists()]
    done = clips - len(missing)
    on_clip(done)
    for _ in _make_all(missing, folders, config, workers, device):
        done += 1
        on_clip(done)
    return [_summary(folder) for folder in folders]


def scene_of(truth: ClipTruth) -> Scene:
    """The scene that a clip was made from, with its skin's displacement for every frame."""
    config = json.loads(truth.config)
    config["shape_sigma"] = tuple(config["shape_sigma"])
    return sample_scene(truth.seed, truth.index, SceneConfig(**config))


def make_clip(folder: Path, index: int, config: SynthesisConfig, device: str = "cpu") -> MadeClip:
    """Make one clip in a folder, which appears only when it is complete."""
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
    return MadeClip(folder, len(scene), int((confidence > 0).sum()))


def _track(video: Path, frames: int, points: int) -> tuple[F32, F32]:
    """The tracker's landmarks (T, L, 2) and confidence (T,) in the finished video; nan and 0 where it finds nobody."""
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
    """Pictures with what hides a part of them, as a mask (H, W); None in clips without an occluder."""
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
) -> Iterator[MadeClip]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers or (cores if device == "cpu" else 1), len(missing))
    if workers <= 1:
        for index in missing:
            yield make_clip(folders[index], index, config, device)
        return
    context = multiprocessing.get_context("spawn")  # forked copies of torch's threads would hang
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        jobs = [pool.submit(make_clip, folders[index], index, config, device) for index in missing]
        try:
            for job in as_completed(jobs):
                yield job.result()
        except BrokenProcessPool:
            raise AvfaceError(
                f"{folders[0].parent}: a worker process died, perhaps for want of memory; "
                "run the same command again with fewer --workers, finished clips are kept"
            ) from None
        finally:
            for job in jobs:
                job.cancel()


def _check(config: SynthesisConfig) -> None:
    scene = config.scene
    problems = {
        f"size {scene.size}: make it at least 64 pixels": scene.size < 64,
        f"size {scene.size}: make it even, as videos are": scene.size % 2 == 1,
        f"{scene.seconds:g} seconds: make clips at least half a second long": not scene.seconds >= 0.5,
        f"frame rate {scene.frame_rate:g}: choose 5 to 120 frames a second": not 5 <= scene.frame_rate <= 120,
        f"occluded {config.occluded:g}: a share from 0 to 1 is needed": not 0 <= config.occluded <= 1,
        "silence and sounds: shares from 0 to 1 are needed, together at most 1": (
            min(scene.silence, scene.sounds) < 0 or scene.silence + scene.sounds > 1
        ),
        f"supersampling {config.supersampling}: choose 1 to 4": not 1 <= config.supersampling <= 4,
    }
    for message, wrong in problems.items():
        if wrong:
            raise AvfaceError(message)


def _claim(out: Path, config: SynthesisConfig) -> None:
    """Write the recipe into the folder, or compare it with the one that is there."""
    recipe = json.dumps({"version": VERSION, **asdict(config)}, indent=1)
    path = out / RECIPE
    try:
        out.mkdir(parents=True, exist_ok=True)
        if path.exists():
            if path.read_text() != recipe:
                raise AvfaceError(
                    f"{out}: holds clips made with other options; choose another folder or remove it"
                )
            return
        if any(out.iterdir()):
            raise AvfaceError(f"{out}: not empty, and not made by this command; choose another folder")
        with replacing(path) as temporary:
            temporary.write_text(recipe)
    except OSError as error:
        raise AvfaceError(f"{out}: can't be written ({error.strerror}); choose another folder") from None


def _summary(folder: Path) -> MadeClip:
    confidence = ClipTruth.load(folder / TRUTH).tracked_confidence
    return MadeClip(folder, len(confidence), int((confidence > 0).sum()))
