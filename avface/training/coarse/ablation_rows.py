"""Training of the rows of `avface evaluate ablation`: networks of AVFace's Tables 1 to 3, alike but in one thing.

    python -m avface.training.coarse.ablation_rows SHARDS --out rows
    python -m avface.training.coarse.ablation_rows SHARDS_MEL --out rows-mel --rows rendered-mel

SHARDS is what `avface data prepare` has made; rows that listen to mel spectra need shards of `--speech mel`. A row
whose weights are there is left out, one that was stopped goes on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import tyro

from avface.errors import AvfaceError
from avface.networks.audio import AudioConfig
from avface.speech.features import WIDTHS
from avface.training.coarse import recipes
from avface.training.coarse.recipes import Recipe
from avface.training.coarse.train import OcclusionTraining, Session, Training, train

TUNED, BEFORE = "tuned", "av-dropout-temporal"
"""The row that goes on from another row's weights with hidden faces, and that other row."""
SPEECH = tuple(AudioConfig(kind, WIDTHS[kind]) for kind in ("deepspeech", "mel"))
"""Speech features that are compared."""


def row_recipes(steps: int) -> Mapping[str, Recipe]:
    """Recipes by the rows' names: `recipes.default` but for what the row is about, and for a number of steps.

    Sketches are about the acoustic model's features, so the two rows that compare kinds of speech features are
    trained on rendered clips alone.
    """
    base = replace(recipes.default(), steps=steps)
    unhidden = replace(base.hiding, hidden=0.0, lost=0.0)
    rendered = replace(base, sketching=replace(base.sketching, sketched=0.0))
    return {
        "video": _seen_and_heard(_looking_at(base, 1), 1.0, 0.0),
        "video-temporal": _seen_and_heard(base, 1.0, 0.0),
        "audio": _seen_and_heard(_looking_at(base, 1), 0.0, 1.0),
        "audio-temporal": _seen_and_heard(base, 0.0, 1.0),
        "av": _seen_and_heard(_looking_at(base, 1), 0.0, 0.0),
        "av-dropout": _looking_at(base, 1),
        BEFORE: base,
        "no-occlusions": replace(base, hiding=unhidden),
        **{f"rendered-{audio.speech}": _listening(rendered, audio) for audio in SPEECH},
    }


def _looking_at(recipe: Recipe, window: int) -> Recipe:
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


def _seen_and_heard(recipe: Recipe, audio_dropout: float, video_dropout: float) -> Recipe:
    """The same with other shares of windows without sound and without picture."""
    branch = replace(recipe.network.expression, audio_dropout=audio_dropout, video_dropout=video_dropout)
    return replace(recipe, network=replace(recipe.network, expression=branch))


def _listening(recipe: Recipe, audio: AudioConfig) -> Recipe:
    """The same with other speech features."""
    branch = replace(recipe.network.expression, audio=audio)
    return replace(recipe, network=replace(recipe.network, expression=branch))


ROWS = (*row_recipes(1), TUNED)
"""Names of all rows."""
DEFAULT_ROWS = tuple(name for name in ROWS if not name.startswith("rendered-"))


@dataclass(frozen=True)
class RowsTraining:
    """Train rows of the ablation, one after the other."""

    shards: tyro.conf.Positional[Path]
    """Folder of shards."""
    out: Path = Path("rows")
    """Folder of the weights, a file a row; checkpoints and prepared performances lie in the folder work in it."""
    rows: tuple[str, ...] = DEFAULT_ROWS
    """Names of the rows."""
    steps: int = 1500
    """Steps of each row; a quarter of them for the one that is fine-tuned."""
    session: Session = field(default_factory=Session)
    """Where and how long."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.rows) - set(ROWS))
        if unknown:
            raise AvfaceError(f"--rows {' '.join(unknown)}: no such row; there are {', '.join(ROWS)}")


def train_rows(training: RowsTraining) -> list[Path]:
    """Train the rows whose weights aren't there yet; the files of all of them.

    Raises:
        AvfaceError: as `avface.training.coarse.train.train` does, and if the row that `tuned` goes on from is missing.
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
            train(OcclusionTraining(training.shards, start, work, session=training.session).training())
        else:
            train(Training(training.shards, made[name], work, session=training.session))
        work.replace(ready)
    return files


def main() -> None:
    """Train the rows that the command names."""
    try:
        train_rows(tyro.cli(RowsTraining, config=(tyro.conf.OmitArgPrefixes,), description=__doc__))
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
