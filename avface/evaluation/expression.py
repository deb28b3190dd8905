"""The expression protocol: do the curves of reconstructed clips of synthetic people mean what their names say?

Of the people, half speak and half do exercises, which show every unit; half have heads outside the head model's space,
with units of their own. All have a face at rest of their own, which is no expression. Clips with speech are
reconstructed with and without sound, and all clips by a plain fit too: to the landmarks as tracked, without looking at
the picture and without statistics of the tracker's errors.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from avface.arrays import F32
from avface.errors import AvfaceError
from avface.evaluation.clips import Progress
from avface.evaluation.metrics import CurveFigures
from avface.evaluation.out_of_model import in_processes
from avface.evaluation.tables import aligned
from avface.files.temporary import temporary_folder
from avface.head import HeadModel
from avface.synthetic.out_of_model import (
    TRAINING_SEEDS,
    OutOfModelConfig,
    expressive_head,
    out_of_model_scene,
)
from avface.synthetic.performance.exercises import exercise
from avface.synthetic.performance.performance import Performance, perform

WAYS = ("all of it", "without sound", "plain fit")
"""Ways of reconstruction: as by default, of clips with speech without the sound, and by the plain fit."""
_EXPRESSION = 0xE48


@dataclass(frozen=True)
class ExpressionConfig:
    """The clips."""

    seed: int = 0
    """Seed of the people."""
    seconds: float = 5.0
    """Length of a clip."""
    size: int = 320
    """Width and height of the pictures in pixels."""

    def __post_init__(self) -> None:
        if self.seed in TRAINING_SEEDS:
            raise AvfaceError(f"seed {self.seed}: networks were trained on these people; choose another seed")
        OutOfModelConfig(seed=max(self.seed, 0), seconds=self.seconds, size=self.size)
        if self.seed < 0:
            raise AvfaceError(f"seed {self.seed}: must not be negative")


@dataclass(frozen=True, eq=False)
class ExpressionReport:
    """Figures of the curves, as text (`table`) and JSON (`to_json`)."""

    ways: dict[str, CurveFigures]
    """By way of reconstruction (`WAYS`)."""
    groups: dict[str, CurveFigures]
    """Of the default way, by group of people: in the head model's space and outside of it, speech and exercises."""

    def table(self) -> str:
        """Plain text: a line for each way and group, and the units of the default way."""
        lines = [f"{name}: {figures.summary()}" for name, figures in (self.ways | self.groups).items()]
        first, plain = self.ways[WAYS[0]], self.ways[WAYS[-1]].of_units()
        rows = [["unit", "clips", "r", "gain", "r plain", "gain plain"]]
        for name, (r, gain) in sorted(first.of_units().items(), key=lambda item: -item[1][0]):
            others = [f"{value:.2f}" for value in plain.get(name, ())] or ["-", "-"]
            rows.append([name, str(len(first.units[name])), f"{r:.2f}", f"{gain:.2f}", *others])
        return "\n".join([*lines, "", aligned(rows)])

    def to_json(self) -> str:
        """The figures of the table as a JSON object; undefined ones are null."""
        content = {
            "ways": {name: figures.facts() for name, figures in self.ways.items()},
            "groups": {name: figures.facts() for name, figures in self.groups.items()},
        }
        return json.dumps(content, indent=2, allow_nan=False)


def evaluate_expression(
    *,
    people: int = 12,
    work: Path | None = None,
    workers: int | None = None,
    config: ExpressionConfig | None = None,
    progress: Progress = lambda clip, stage, done, total: None,
) -> ExpressionReport:
    """Render clips of synthetic people, one each, reconstruct them and compare the curves with the true ones.

    Args:
        people: Number of people, four or more.
        work: Folder that keeps the clips for the next run; by default a temporary one.
        workers: Number of rendering processes; by default one per core.
        config: People and rendering.
        progress: Called as the work advances.

    Raises:
        AvfaceError: if `people` is below 4, the seed is one of those used for training, espeakng-loader is missing, or
            the folder can't be written.
    """
    from avface.pipeline import reconstruct
    from avface.solve import SolverConfig

    if people < 4:
        raise AvfaceError(f"people={people}: must be 4 or more, one of each kind")
    config = config or ExpressionConfig()
    ways = {name: CurveFigures() for name in WAYS}
    groups: dict[str, CurveFigures] = {}
    plain: dict[str, Any] = {
        "audio": False,
        "solver": SolverConfig(read_pictures=False, tracker_error_prior=False),
    }
    with temporary_folder() if work is None else nullcontext(work) as folder:
        clips = _render_clips(people, Path(folder), config, workers, progress)
        for person, video in enumerate(clips):
            names, true = _read_truth(video)
            variants: dict[str, dict[str, Any]] = {WAYS[0]: {}, WAYS[2]: plain}
            if speaks(person):
                variants[WAYS[1]] = {"audio": False}
            for way, options in variants.items():

                def on_frames(stage: str, done: int, total: int | None, name: str = video.name) -> None:
                    progress(name, stage, done, total)

                capture = reconstruct(video, progress=on_frames, **options)
                if tuple(capture.expression_names) != names:
                    raise AvfaceError(f"{video}: its truth is of another head; delete it")
                ways[way].add(names, capture.expression, true)
                if way == WAYS[0]:
                    for group in _groups(person):
                        groups.setdefault(group, CurveFigures()).add(names, capture.expression, true)
    return ExpressionReport(ways, dict(sorted(groups.items())))


def speaks(person: int) -> bool:
    """Whether person number `person` speaks; the others do exercises."""
    return person % 2 == 1


def _in_model(person: int) -> bool:
    return person // 2 % 2 == 0


def _groups(person: int) -> tuple[str, str]:
    return (
        "people of the head's space" if _in_model(person) else "people outside of it",
        "speech" if speaks(person) else "exercises",
    )


def film_expression(person: int, path: Path, config: ExpressionConfig) -> None:
    """Render the clip of a person, with its sound, and write the true weights beside it (npz).

    Raises:
        AvfaceError: if they can't be written, or espeak-ng is not installed.
    """
    from avface.files import replacing
    from avface.media import EncodingConfig, VideoWriter
    from avface.speech.spectrum import SAMPLE_RATE
    from avface.synthetic.rendering.renderer import SceneRenderer

    settings = OutOfModelConfig(seed=config.seed, seconds=config.seconds, size=config.size)
    rng = np.random.default_rng([config.seed, person, _EXPRESSION])
    head = expressive_head(person, rng, settings, _in_model(person))
    scene = out_of_model_scene(person, 0, settings, head)
    scene = replace(scene, performance=_performance(person, rng, head, config))
    performance = scene.performance
    sound = (performance.sound, SAMPLE_RATE) if speaks(person) else None
    with replacing(_truth_of(path)) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, names=np.array(head.expression_names), expression=performance.expression)
    encoding = EncodingConfig(crf=scene.sensor.quality, preset="veryfast")
    with VideoWriter(path, sound=sound, encoding=encoding) as writer:
        for picture, time in zip(SceneRenderer(scene, head).frames(), performance.times, strict=True):
            writer.write(picture, float(time))


def _performance(
    person: int, rng: np.random.Generator, head: HeadModel, config: ExpressionConfig
) -> Performance:
    if speaks(person):
        return perform(rng, head, config.seconds, resting=False)
    return exercise(rng, head, config.seconds)


def _truth_of(video: Path) -> Path:
    return video.with_suffix(".npz")


def _read_truth(video: Path) -> tuple[tuple[str, ...], F32]:
    path = _truth_of(video)
    try:
        with np.load(path, allow_pickle=False) as data:
            return tuple(map(str, data["names"])), np.asarray(data["expression"], np.float32)
    except Exception as error:  # zipfile and zlib raise a family of errors on damaged archives
        raise AvfaceError(f"{path}: not a readable truth ({error}); delete it and its video") from None


def _render_clips(
    people: int, work: Path, config: ExpressionConfig, workers: int | None, progress: Progress
) -> list[Path]:
    """Clips of all people; existing ones are kept. Each config has its own folder."""
    folder = work / f"expression-{sha256(json.dumps(asdict(config)).encode()).hexdigest()[:12]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AvfaceError(f"{folder}: can't be created ({error.strerror}); choose another folder") from None
    videos = [folder / f"person_{person:03d}.mp4" for person in range(people)]
    missing = [person for person in range(people) if not videos[person].is_file()]
    done = people - len(missing)
    for _ in in_processes(film_expression, [(p, videos[p], config) for p in missing], folder, workers):
        done += 1
        progress("synthetic people", "render", done, people)
    return videos
