"""Training of the speech room's acoustic model, on synthetic speech only.

    python -m avface.training.acoustic.train                  # makes the shipped weights again
    python -m avface.evaluation.studies.acoustic              # how good they are

First the model learns from voices that say when each phone begins, so every spectrum has a label and cross entropy is
enough. Then it finds the phones of the other voices itself (`phone_alignment`) and goes on learning from them all. The
lips' opening is learnt beside it, from a coarticulation model of the same phones (`lip_opening` in
`avface.training.acoustic.corpus`). A run that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from avface.errors import AvfaceError
from avface.files import replacing
from avface.speech.acoustic import (
    AcousticConfig,
    AcousticModel,
    load_acoustic_model,
    normalised,
    pretrained_acoustic_model,
    save_acoustic_model,
)
from avface.training.acoustic.corpus import (
    Corpus,
    Example,
    build_corpus,
    build_untimed_corpus,
    mixture,
    training_variants,
)
from avface.training.acoustic.recorded_voices import VOICES
from avface.training.acoustic.untimed_voices import UNTIMED_VOICES
from avface.training.loop.trainer import warmed_cosine

_TRAINING, _STEPS, _FURTHER = 0, 2, 3  # which random numbers; 1 is testing


@dataclass(frozen=True)
class AcousticTraining:
    """Train the acoustic model. The defaults are the recipe of the shipped weights."""

    out: Path = pretrained_acoustic_model.path
    """File of the weights."""
    work: Path = Path("acoustic-training")
    """Folder of the spoken material and of the checkpoint, which a later run goes on from."""
    seed: int = 0
    """Seed of voices, texts, mixtures and first weights."""
    hours: float = 5.0
    """Speech by espeak-ng."""
    recorded_hours: float = 4.5
    """Speech by voices that were made from recordings of people (`recorded_voices`)."""
    untimed_hours: float = 5.0
    """Speech by such voices that don't say when their phones are (`untimed_voices`)."""
    steps: int = 4500
    """Steps of the optimiser with the voices that do."""
    further_steps: int = 9000
    """Steps with all of them; none without `untimed_hours`."""
    batch: int = 10
    """Examples a step."""
    seconds: float = 4.8
    """Length of an example."""
    learning_rate: float = 2e-3
    """Highest rate of AdamW, after `warm_up`; falls to zero as a cosine."""
    further_learning_rate: float = 1e-3
    """The same for the further steps."""
    warm_up: int = 100
    """Steps until the highest rate."""
    weight_decay: float = 0.02
    """Of AdamW."""
    averaging: float = 0.995
    """Share of the running average of the weights that a step leaves; the average is what is kept."""
    openness_weight: float = 15.0
    """Weight of the lips' squared error beside the phones' cross entropy."""
    checkpoint_every: int = 100
    """Steps between checkpoints."""
    threads: int = 1
    """CPU threads."""
    device: str = "cpu"
    """Torch device."""
    model: AcousticConfig = field(default_factory=AcousticConfig)
    """Size of the network."""

    def __post_init__(self) -> None:
        positive = (
            "hours",
            "steps",
            "further_steps",
            "batch",
            "seconds",
            "learning_rate",
            "further_learning_rate",
        )
        for name in (*positive, "checkpoint_every", "threads"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be positive")

    @property
    def recipe(self) -> dict[str, object]:
        """What decides about the weights."""
        places = ("out", "work", "checkpoint_every", "threads", "device")
        return {name: value for name, value in asdict(self).items() if name not in places}


def train(training: AcousticTraining) -> AcousticModel:
    """Speak, train and write the weights, with the recipe beside them.

    Raises:
        AvfaceError: if espeak-ng is missing, or the folder holds a run with another recipe.
    """
    torch.set_num_threads(training.threads)
    _claim(training)
    with Progress(
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    ) as progress:
        corpus = _corpus(training, progress)
        model = _first_model(training, corpus, progress)
        if training.untimed_hours:
            corpus = corpus.joined(_untimed_corpus(training, model, progress))
            steps = _Steps("checkpoint", _FURTHER, training.further_steps, training.further_learning_rate)
            _optimise(model, training, steps, corpus, progress)
            _standardise_logits(model, training, corpus)
    save_acoustic_model(model, training.out, {"recipe": json.dumps(training.recipe)})
    return load_acoustic_model(training.out)


def _claim(training: AcousticTraining) -> None:
    """Make sure that what lies in the folder was made by the same recipe."""
    training.work.mkdir(parents=True, exist_ok=True)
    note = training.work / "recipe.json"
    recipe = json.dumps(training.recipe, indent=1)
    if note.exists() and note.read_text() != recipe:
        raise AvfaceError(
            f"{training.work}: holds a run with another recipe; name another folder with --work"
        )
    with replacing(note) as temporary:
        temporary.write_text(recipe)


def _corpus(training: AcousticTraining, progress: Progress) -> Corpus:
    """The spoken material whose times are known, from its file or spoken now."""
    path = training.work / "corpus.npz"
    if path.exists():
        return Corpus.load(path)
    minutes = round(60 * (training.hours + training.recorded_hours))
    task = progress.add_task("speaking (minutes)", total=minutes, note="")
    corpus = build_corpus(
        training.seed,
        _TRAINING,
        training.hours,
        training_variants(),
        lambda seconds: progress.update(task, completed=round(seconds / 60)),
        VOICES,
        training.recorded_hours,
    )
    corpus.save(path)
    return corpus


def _untimed_corpus(training: AcousticTraining, aligner: AcousticModel, progress: Progress) -> Corpus:
    """The other spoken material, from its file or spoken and aligned now."""
    path = training.work / "untimed.npz"
    if path.exists():
        return Corpus.load(path)
    task = progress.add_task("aligning (minutes)", total=round(60 * training.untimed_hours), note="")
    corpus = build_untimed_corpus(
        training.seed,
        _TRAINING,
        training.untimed_hours,
        UNTIMED_VOICES,
        aligner,
        lambda seconds: progress.update(task, completed=round(seconds / 60)),
    )
    corpus.save(path)
    return corpus


def _first_model(training: AcousticTraining, corpus: Corpus, progress: Progress) -> AcousticModel:
    """The model after the first steps, from its file or trained now."""
    path = training.work / "first.safetensors"
    if path.exists():
        return load_acoustic_model(path).to(training.device)
    torch.manual_seed(training.seed)  # first weights; everything else has numbers of its own
    model = AcousticModel(training.model).to(training.device)
    steps = _Steps("first-checkpoint", _STEPS, training.steps, training.learning_rate)
    _optimise(model, training, steps, corpus, progress)
    _standardise_logits(model, training, corpus)
    save_acoustic_model(model, path, {"recipe": json.dumps(training.recipe)})
    return load_acoustic_model(path).to(training.device)


@dataclass(frozen=True)
class _Steps:
    """A run of the optimiser."""

    name: str
    """Of its checkpoint."""
    purpose: int
    """Which random numbers."""
    count: int
    learning_rate: float


def _optimise(
    model: AcousticModel, training: AcousticTraining, steps: _Steps, corpus: Corpus, progress: Progress
) -> None:
    """Train a model, which ends with the running average of its weights, ready for use."""
    model.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(
        model.parameters(), steps.learning_rate, (0.9, 0.98), weight_decay=training.weight_decay
    )
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(training.averaging))
    checkpoint, first = training.work / f"{steps.name}.pt", 0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=training.device, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimiser.load_state_dict(state["optimiser"])
        first = state["step"]
    task = progress.add_task("training", total=steps.count, completed=first, note="")
    frames = round(100 * training.seconds) // 2 * 2
    for step in range(first, steps.count):
        for group in optimiser.param_groups:
            group["lr"] = warmed_cosine(steps.learning_rate, step + 1, training.warm_up, step / steps.count)
        rng = np.random.default_rng([training.seed, steps.purpose, step])
        spectra, phones, openness = batch(
            [mixture(rng, corpus, frames) for _ in range(training.batch)], training.device
        )
        with torch.autocast(training.device, torch.bfloat16):
            logits, opened = model(_with_holes(rng, normalised(spectra)))
        error = nn.functional.cross_entropy(logits.float().flatten(0, 1), phones.flatten())
        loss = error + training.openness_weight * (opened.float() - openness).square().mean()
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        average.update_parameters(model)
        progress.update(task, completed=step + 1, note=f"loss {loss.item():.3f}")
        if (step + 1) % training.checkpoint_every == 0:
            state = {
                "model": model.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "step": step + 1,
            }
            with replacing(checkpoint) as temporary:
                torch.save(state, temporary)
    model.load_state_dict(average.module.state_dict())
    model.eval().requires_grad_(False)


def batch(examples: list[Example], device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Spectra (B, F, 64), and at the model's rows phones (B, F / 2) and the lips' opening (B, F / 2), of B examples."""
    spectra = torch.from_numpy(np.stack([example.spectra for example in examples]))
    phones = torch.from_numpy(np.stack([example.phones[::2] for example in examples]))
    openness = torch.from_numpy(np.stack([example.openness[::2] for example in examples]))
    return spectra.to(device), phones.to(device), openness.to(device)


def _with_holes(rng: np.random.Generator, spectra: Tensor) -> Tensor:
    """Blank a few bands and moments (Park et al., SpecAugment, 2019), so that nothing hangs on one of them."""
    _, frames, bands = spectra.shape
    for one in spectra:
        for _ in range(2):
            band = int(rng.integers(bands))
            one[:, band : band + int(rng.integers(6))] = 0
            moment = int(rng.integers(frames))
            one[moment : moment + int(rng.integers(15))] = 0
    return spectra


@torch.no_grad()
def _standardise_logits(model: AcousticModel, training: AcousticTraining, corpus: Corpus) -> None:
    """Store mean and standard deviation of each logit over some training mixtures."""
    rng = np.random.default_rng([training.seed, _STEPS, training.steps])
    spectra, _, _ = batch([mixture(rng, corpus, 1000) for _ in range(48)], training.device)
    logits = model(normalised(spectra))[0].flatten(0, 1)
    model.logit_mean.copy_(logits.mean(0))
    model.logit_scale.copy_(logits.std(0))


def main() -> None:
    """Train."""
    try:
        train(tyro.cli(AcousticTraining, description=__doc__))
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
