"""Training of the rows of `avface evaluate ablation`: networks of AVFace's Tables 1 to 3, which differ in one thing.

    avface train ablation-rows SHARDS --out rows
    avface train ablation-rows SHARDS_MEL --out rows-mel --rows rendered-mel

SHARDS is a folder of `avface data prepare`; rows on mel spectra need shards of `--speech mel`. A row whose weights
exist is left out, one that was interrupted resumes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import tyro

from avface.errors import AvfaceError
from avface.networks.audio import AudioConfig
from avface.speech.features import WIDTHS
from avface.training.coarse import recipes
from avface.training.coarse.recipes import Recipe
from avface.training.coarse.train import CoarseRunConfig, CoarseTraining, OcclusionTraining, train
from avface.training.loop.config import check_positive

TUNED, BEFORE = "tuned", "av-dropout-temporal"
"""The row that is fine-tuned with occlusions, and the row whose weights it starts from."""
SPEECH = tuple(AudioConfig(kind, WIDTHS[kind]) for kind in ("moonshine", "own", "mel"))
"""Speech features that are compared."""


def row_recipes(steps: int) -> Mapping[str, Recipe]:
    """Recipes by the names of the rows: `recipes.default` with one change each, and a number of steps.

    Simulated landmarks have the features of the acoustic model, so the two rows that compare speech features are
    trained on rendered clips alone.
    """
    base = replace(recipes.default(), steps=steps)
    unoccluded = replace(base.occlusion, occluded=0.0, lost=0.0)
    rendered = replace(base, simulation=replace(base.simulation, simulated_share=0.0))
    return {
        "video": _with_dropout(_with_window(base, 1), 1.0, 0.0),
        "video-temporal": _with_dropout(base, 1.0, 0.0),
        "audio": _with_dropout(_with_window(base, 1), 0.0, 1.0),
        "audio-temporal": _with_dropout(base, 0.0, 1.0),
        "av": _with_dropout(_with_window(base, 1), 0.0, 0.0),
        "av-dropout": _with_window(base, 1),
        BEFORE: base,
        "no-occlusions": replace(base, occlusion=unoccluded),
        **{f"rendered-{audio.speech}": _with_speech(rendered, audio) for audio in SPEECH},
    }


def _with_window(recipe: Recipe, window: int) -> Recipe:
    """The same with windows of so many frames."""
    network = recipe.network
    coarse, expression = (
        replace(branch.temporal, window=window) for branch in (network.coarse, network.expression)
    )
    network = replace(
        network,
        coarse=replace(network.coarse, temporal=coarse),
        expression=replace(network.expression, temporal=expression),
    )
    return replace(recipe, network=network)


def _with_dropout(recipe: Recipe, audio_dropout: float, video_dropout: float) -> Recipe:
    """The same with another modality dropout."""
    branch = replace(recipe.network.expression, audio_dropout=audio_dropout, video_dropout=video_dropout)
    return replace(recipe, network=replace(recipe.network, expression=branch))


def _with_speech(recipe: Recipe, audio: AudioConfig) -> Recipe:
    """The same with other speech features."""
    branch = replace(recipe.network.expression, audio=audio)
    return replace(recipe, network=replace(recipe.network, expression=branch))


ROWS = (*row_recipes(1), TUNED)
"""Names of all rows."""
DEFAULT_ROWS = tuple(name for name in ROWS if not name.startswith("rendered-"))


@dataclass(frozen=True)
class RowsTraining:
    """Train rows of the ablation, one after the other."""

    shards: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SHARDS")]
    """Folder of shards."""
    out: Path = Path("rows")
    """Folder of the weights, one file per row; checkpoints and performances are stored in its folder `work`."""
    rows: tuple[str, ...] = DEFAULT_ROWS
    """Names of the rows."""
    steps: int = 1500
    """Steps of each row; a quarter of them for the one that is fine-tuned."""
    run: CoarseRunConfig = field(default_factory=CoarseRunConfig)
    """Where and how long."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.rows) - set(ROWS))
        if unknown:
            raise AvfaceError(f"rows: {' '.join(unknown)}: no such row; there are {', '.join(ROWS)}")
        check_positive(self, "steps")


Command = tyro.conf.OmitArgPrefixes[RowsTraining]
"""What `avface train ablation-rows` parses."""


def train_rows(training: RowsTraining) -> list[Path]:
    """Train the rows whose weights don't exist yet; returns the files of all of them.

    Raises:
        AvfaceError: as `avface.training.coarse.train.train` does, and if the row that `tuned` starts from is missing.
    """
    made = row_recipes(training.steps)
    files = []
    for name in training.rows:
        ready = training.out / f"{name}.safetensors"
        files.append(ready)
        if ready.exists():
            continue
        work = training.out / "work" / ready.name
        if name == TUNED:
            start = training.out / f"{BEFORE}.safetensors"
            train(OcclusionTraining(training.shards, start, work, run=training.run).training())
        else:
            train(CoarseTraining(training.shards, made[name], work, run=training.run))
        work.replace(ready)
    return files
