"""The verb that measures: clips, occlusion, ablation, shape."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg, subcommand

from avface.cli.arguments import SPOKEN, Messages, Outcome
from avface.cli.files import check_folder
from avface.cli.terminal import STAGES, Bars

if TYPE_CHECKING:
    from avface.evaluation.clips import Progress

Weights = Annotated[Path | None, arg(metavar="FILE", help_behavior_hint="")]
Work = Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")]


@dataclass(frozen=True)
class EvaluateClips:
    """Measure how well heads follow the faces in a folder of videos, how smoothly, and how fast."""

    directory: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of the videos."""
    messages: Messages = SPOKEN

    def run(self, bars: Bars) -> Outcome:
        """Measure every clip of the folder."""
        from avface.evaluation import evaluate_clips

        report = evaluate_clips(self.directory, progress=_told(bars))
        return Outcome(report.table(), json.loads(report.to_json()), asked_for=True)


@dataclass(frozen=True)
class EvaluateOcclusion:
    """Hide the lower face in videos and measure what the tracker, simple baselines and avface say about it."""

    directory: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of clean videos with sound."""
    seeds: int = 3
    """Occluded versions of each video."""
    networks: Weights = None
    """Weights to use in place of avface's own."""
    work: Work = None
    """Folder in which the occluded videos stay for the next run; by default they are thrown away."""
    messages: Messages = SPOKEN

    def run(self, bars: Bars) -> Outcome:
        """Occlude, reconstruct, compare."""
        from avface.evaluation import evaluate_occlusion

        if self.work is not None:
            check_folder(self.work)
        report = evaluate_occlusion(
            self.directory, seeds=self.seeds, networks=self.networks, work=self.work, progress=_told(bars)
        )
        return Outcome(report.table(), json.loads(report.to_json()), asked_for=True)


@dataclass(frozen=True)
class EvaluateAblation:
    """Compare weights that were trained in different ways, as AVFace's Tables 1 to 3 do.

    What a row is stands in the recipe inside its file.
    """

    weights: Annotated[Positional[Path], arg(metavar="DIR")]
    """Folder of .safetensors files of `avface train`."""
    shards: Annotated[tuple[Path, ...], arg(metavar="DIR", help_behavior_hint="")] = ()
    """Prepared synthetic clips whose test split is used; one folder for each kind of speech features."""
    clips: Annotated[Path | None, arg(metavar="DIR", help_behavior_hint="")] = None
    """Folder of real videos, measured clean and with the lower face hidden."""
    seeds: int = 2
    """Occluded versions of each real video."""
    work: Work = None
    """Folder in which the occluded videos stay for the next run; by default they are thrown away."""
    messages: Messages = SPOKEN

    def run(self, bars: Bars) -> Outcome:
        """Measure every file of weights."""
        from avface.evaluation import evaluate_ablation

        if self.work is not None:
            check_folder(self.work)
        report = evaluate_ablation(
            self.weights,
            shards=self.shards,
            clips=self.clips,
            seeds=self.seeds,
            work=self.work,
            progress=_told(bars),
        )
        return Outcome(report.table(), json.loads(report.to_json()), asked_for=True)


@dataclass(frozen=True)
class EvaluateShape:
    """Compare reconstructed heads with the true ones of made people whom the head model doesn't know.

    Needs `pip install avface[build]`.
    """

    people: int = 12
    """How many; each is filmed twice."""
    seed: int = 0
    """Another seed gives other people."""
    networks: Weights = None
    """Weights to use in place of avface's own."""
    work: Work = None
    """Folder in which the clips stay for the next run; by default they are thrown away."""
    workers: int | None = None
    """Processes that render; by default one a core."""
    messages: Messages = SPOKEN

    def run(self, bars: Bars) -> Outcome:
        """Film, reconstruct, compare."""
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
            progress=_told(bars),
        )
        return Outcome(report.table(), json.loads(report.to_json()), asked_for=True)


@dataclass(frozen=True)
class Evaluate:
    """Measure clips, hidden faces, ways of training, or shapes."""

    what: (
        Annotated[EvaluateClips, subcommand("clips")]
        | Annotated[EvaluateOcclusion, subcommand("occlusion")]
        | Annotated[EvaluateAblation, subcommand("ablation")]
        | Annotated[EvaluateShape, subcommand("shape")]
    )

    @property
    def messages(self) -> Messages:
        """Those of what is measured."""
        return self.what.messages

    def run(self, bars: Bars) -> Outcome:
        """Measure it."""
        return self.what.run(bars)


def _told(bars: Bars) -> Progress:
    """Progress bars for what an evaluation tells."""
    return lambda clip, stage, done, total: bars(f"{clip}: {STAGES.get(stage, stage)}", done, total)
