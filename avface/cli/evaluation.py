"""The verb `evaluate`: clips, occlusion, ablation, shape, expression."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg, subcommand

from avface.cli.arguments import PRINT_ALL, Messages, Outcome, Seed
from avface.cli.files import check_folder
from avface.cli.terminal import STAGES, Bars

if TYPE_CHECKING:
    from avface.evaluation.clips import Progress

Weights = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]
Work = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")]


@dataclass(frozen=True)
class EvaluateClips:
    """Measure landmark error, smoothness and speed on a folder of videos."""

    directory: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of the videos."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Evaluate all clips of the folder."""
        from avface.evaluation import evaluate_clips

        report = evaluate_clips(self.directory, progress=_progress(bars))
        return Outcome(report.table(), json.loads(report.to_json()), is_result=True)


@dataclass(frozen=True)
class EvaluateOcclusion:
    """Occlude faces in videos and measure the error of the tracker, simple baselines and avface there.

    Two parts: the lower face occluded in 40 % of the frames, and the whole face covered for 8 and for 25 frames.
    """

    directory: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of clean videos with sound."""
    seeds: int = 3
    """Versions of each video with an occluded lower face."""
    parts: Annotated[tuple[Literal["lower-face", "whole-face"], ...], arg(metavar="PART")] = (
        "lower-face",
        "whole-face",
    )
    """What is occluded: lower-face, whole-face; both by default."""
    networks: Weights = None
    """Weights in place of those that come with avface."""
    work: Work = None
    """Folder that keeps the occluded videos for later runs; by default they are temporary."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Occlude, reconstruct, compare."""
        from avface.evaluation import evaluate_occlusion

        if self.work is not None:
            check_folder(self.work)
        report = evaluate_occlusion(
            self.directory,
            seeds=self.seeds,
            parts=self.parts,
            networks=self.networks,
            work=self.work,
            progress=_progress(bars),
        )
        return Outcome(report.table(), json.loads(report.to_json()), is_result=True)


@dataclass(frozen=True)
class EvaluateAblation:
    """Compare weights trained with different recipes, as in Tables 1 to 3 of the AVFace paper.

    The recipe stored in a file says which row of a table it is.
    """

    weights: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of .safetensors files, such as those of `avface train ablation-rows`."""
    shards: Annotated[tuple[Path, ...], arg(metavar="DIR", help_behavior_hint="")] = ()
    """Shards of synthetic clips, whose test split is used; one folder per kind of speech features."""
    clips: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder of real videos, measured as they are and with the lower face occluded."""
    seeds: int = 2
    """Occluded versions of each real video."""
    work: Work = None
    """Folder that keeps the occluded videos for later runs; by default they are temporary."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Evaluate all files of weights."""
        from avface.evaluation import evaluate_ablation

        if self.work is not None:
            check_folder(self.work)
        report = evaluate_ablation(
            self.weights,
            shards=self.shards,
            clips=self.clips,
            seeds=self.seeds,
            work=self.work,
            progress=_progress(bars),
        )
        return Outcome(report.table(), json.loads(report.to_json()), is_result=True)


@dataclass(frozen=True)
class EvaluateShape:
    """Compare reconstructed heads with those of synthetic people outside the head model's space.

    Needs `pip install avface[build]`.
    """

    people: int = 12
    """Number of people; two clips are rendered of each."""
    seed: Seed = 0
    """Seed of the people."""
    networks: Weights = None
    """Weights in place of those that come with avface."""
    work: Work = None
    """Folder that keeps the clips for later runs; by default they are temporary."""
    workers: int | None = None
    """Rendering processes; by default one per core."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Render, reconstruct, compare."""
        from avface.evaluation import evaluate_shape
        from avface.evaluation.out_of_model import OutOfModelConfig

        if self.work is not None:
            check_folder(self.work)
        report = evaluate_shape(
            people=self.people,
            networks=self.networks,
            work=self.work,
            workers=self.workers,
            config=OutOfModelConfig(seed=self.seed),
            progress=_progress(bars),
        )
        return Outcome(report.table(), json.loads(report.to_json()), is_result=True)


@dataclass(frozen=True)
class EvaluateExpression:
    """Compare the curves of reconstructed clips of synthetic people with the true ones.

    Needs `pip install avface[build]`.
    """

    people: int = 12
    """Number of people, each with one clip; every second one speaks."""
    seed: Seed = 0
    """Seed of the people."""
    work: Work = None
    """Folder that keeps the clips for later runs; by default they are temporary."""
    workers: int | None = None
    """Rendering processes; by default one per core."""
    messages: Messages = PRINT_ALL

    def run(self, bars: Bars) -> Outcome:
        """Render, reconstruct, compare."""
        from avface.evaluation import evaluate_expression
        from avface.evaluation.expression import ExpressionConfig

        if self.work is not None:
            check_folder(self.work)
        report = evaluate_expression(
            people=self.people,
            work=self.work,
            workers=self.workers,
            config=ExpressionConfig(seed=self.seed),
            progress=_progress(bars),
        )
        return Outcome(report.table(), json.loads(report.to_json()), is_result=True)


@dataclass(frozen=True)
class Evaluate:
    """Measure the accuracy on clips, on occluded faces, of trained weights, of shapes, or of expression curves."""

    what: (
        Annotated[EvaluateClips, subcommand("clips")]
        | Annotated[EvaluateOcclusion, subcommand("occlusion")]
        | Annotated[EvaluateAblation, subcommand("ablation")]
        | Annotated[EvaluateShape, subcommand("shape")]
        | Annotated[EvaluateExpression, subcommand("expression")]
    )

    @property
    def messages(self) -> Messages:
        """The options of the chosen evaluation."""
        return self.what.messages

    def run(self, bars: Bars) -> Outcome:
        """Run the chosen evaluation."""
        return self.what.run(bars)


def _progress(bars: Bars) -> Progress:
    """The progress callback of an evaluation, which draws one bar per clip and stage."""
    return lambda clip, stage, done, total: bars(f"{clip}: {STAGES.get(stage, stage)}", done, total)
