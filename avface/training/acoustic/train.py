"""Training of the acoustic model, on synthetic speech only: `avface train acoustic`.

The model is first trained on voices with known phone times, so that every spectrum has a label and cross entropy is
enough. It then aligns the phones of the other voices itself (`phone_alignment`), and training continues on all of them.
The opening of the lips is trained beside, from a coarticulation model of the same phones (`lip_opening` in
`avface.training.acoustic.corpus`). A run that was interrupted resumes from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import count as count_from
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor, nn

from avface.speech.acoustic import (
    AcousticConfig,
    AcousticModel,
    load_acoustic_model,
    normalised,
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
from avface.training.loop.config import (
    Optimisation,
    RunConfig,
    check_averaging,
    check_not_negative,
    check_positive,
)
from avface.training.loop.devices import SingleDevice
from avface.training.loop.reporting import Reporter
from avface.training.loop.trainer import (
    RunResult,
    Task,
    Trainer,
    begin_run,
    checkpoint_path,
    claim_folder,
)

GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm."""
_TRAINING, _STEPS, _FURTHER = 0, 2, 3  # random streams; 1 is testing


@dataclass(frozen=True)
class AcousticRecipe:
    """What decides about the weights."""

    seed: int = 0
    """Seed of voices, texts, mixtures and initial weights."""
    hours: float = 5.0
    """Hours of speech by espeak-ng."""
    recorded_hours: float = 4.5
    """Hours of speech by voices made from recordings of people (`recorded_voices`)."""
    untimed_hours: float = 5.0
    """Hours of speech by such voices without known phone times (`untimed_voices`)."""
    steps: int = 4500
    """Steps of the optimiser with the timed voices."""
    further_steps: int = 9000
    """Steps with all voices; none without `untimed_hours`."""
    batch: int = 10
    """Examples per step."""
    seconds: float = 4.8
    """Length of an example."""
    learning_rate: float = 2e-3
    """Highest learning rate of AdamW: linear warm-up, then cosine decay."""
    further_learning_rate: float = 1e-3
    """The same for the further steps."""
    warm_up: int = 100
    """Steps until the highest rate."""
    weight_decay: float = 0.02
    """Weight decay of AdamW."""
    averaging: float = 0.995
    """Decay of the exponential moving average of the weights, which is what is saved."""
    openness_weight: float = 15.0
    """Weight of the squared error of the lip opening beside the cross entropy of the phones."""
    model: AcousticConfig = field(default_factory=AcousticConfig)
    """Size of the network."""

    def __post_init__(self) -> None:
        check_positive(
            self,
            "hours",
            "steps",
            "further_steps",
            "batch",
            "seconds",
            "learning_rate",
            "further_learning_rate",
        )
        check_not_negative(
            self, "recorded_hours", "untimed_hours", "warm_up", "weight_decay", "openness_weight", "seed"
        )
        check_averaging(self)


@dataclass(frozen=True)
class AcousticTraining:
    """Train the acoustic model. The defaults are the recipe of the shipped weights."""

    out: Path = Path("acoustic.safetensors")
    """File of the weights."""
    work: Path = Path("acoustic-training")
    """Folder of the spoken material and of the checkpoints, from which a later run resumes."""
    recipe: Annotated[AcousticRecipe, tyro.conf.arg(name="")] = field(default_factory=AcousticRecipe)
    """What decides about the weights."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: RunConfig(checkpoint_every=100)
    )
    """Where and how long; a time limit counts for each of the two parts."""


Command = AcousticTraining
"""What `avface train acoustic` parses."""


@dataclass(frozen=True)
class _Part:
    """A part of the training."""

    name: str
    stream: int
    """Number of its random stream."""
    steps: int
    learning_rate: float


Batch = tuple[list[Example], np.random.Generator]
"""Mixtures, and the random stream of their masking."""


class AcousticTask(Task[AcousticModel, Batch]):
    """The acoustic model in one part of its training, for the `Trainer`."""

    checkpoint_format = "avface acoustic training 1"
    saves_at_checkpoints = False  # the averaged model has no statistics of its logits yet

    def __init__(
        self,
        training: AcousticTraining,
        part: _Part,
        model: AcousticModel,
        corpus: Corpus,
        devices: SingleDevice,
    ) -> None:
        recipe = training.recipe
        self._recipe, self._part, self._corpus, self._device = recipe, part, corpus, training.run.device
        self.name, self.recipe, self.devices = part.name, asdict(recipe), devices
        self.optimisation = Optimisation(
            part.steps, part.learning_rate, recipe.warm_up, GRADIENT_NORM, recipe.averaging
        )
        self.network = model.requires_grad_(True).train()
        self.optimiser = torch.optim.AdamW(
            model.parameters(), part.learning_rate, (0.9, 0.98), weight_decay=recipe.weight_decay
        )
        self._frames = round(100 * recipe.seconds) // 2 * 2

    def batches(self, first: int) -> Iterator[Batch]:
        """Mixtures; functions of seed, part and step."""
        for step in count_from(first):
            rng = np.random.default_rng([self._recipe.seed, self._part.stream, step])
            examples = [mixture(rng, self._corpus, self._frames) for _ in range(self._recipe.batch)]
            yield examples, rng

    def losses(self, module: AcousticModel, batch: Batch, step: int) -> dict[str, Tensor]:
        """Cross entropy of the phones and weighted squared error of the lip opening."""
        examples, rng = batch
        spectra, phones, openness = stacked(examples, self._device)
        with torch.autocast(self._device, torch.bfloat16):
            logits, opening = module(_masked(rng, normalised(spectra)))
        return {
            "phones": nn.functional.cross_entropy(logits.float().flatten(0, 1), phones.flatten()),
            "openness": self._recipe.openness_weight * (opening.float() - openness).square().mean(),
        }

    @torch.no_grad()
    def finish(self, network: AcousticModel) -> dict[str, float]:
        """Store mean and standard deviation of each logit over some training mixtures."""
        network.eval().requires_grad_(False)
        rng = np.random.default_rng([self._recipe.seed, _STEPS, self._recipe.steps])
        spectra, _, _ = stacked([mixture(rng, self._corpus, 1000) for _ in range(48)], self._device)
        logits = network(normalised(spectra))[0].flatten(0, 1)
        network.logit_mean.copy_(logits.mean(0))
        network.logit_scale.copy_(logits.std(0))
        return {}

    def save(self, network: AcousticModel, path: Path, metadata: dict[str, str]) -> None:
        """Write the weights."""
        save_acoustic_model(network, path, metadata)


def train(training: AcousticTraining) -> RunResult[AcousticModel]:
    """Speak, train and write the weights, with the recipe beside them.

    Raises:
        AvfaceError: if espeak-ng is missing, or the folder holds a run with another recipe.
    """
    recipe, run, work = training.recipe, training.run, training.work
    devices = begin_run(run, training.out)
    claim_folder(work, asdict(recipe))
    with Reporter(run.quiet) as reporter:
        corpus = _corpus(training, reporter)
    torch.manual_seed(recipe.seed)  # of the initial weights; everything else has streams of its own
    model = AcousticModel(recipe.model).to(run.device)
    timed = _Part("timed voices", _STEPS, recipe.steps, recipe.learning_rate)
    task = AcousticTask(training, timed, model, corpus, devices)
    first = work / "first.safetensors" if recipe.untimed_hours else training.out
    result = Trainer(task, run, first, checkpoint_path(work / "first")).run()
    if recipe.untimed_hours:
        model = load_acoustic_model(first).to(run.device)
        with Reporter(run.quiet) as reporter:
            corpus = corpus.joined(_untimed_corpus(training, model, reporter))
        further = _Part("all voices", _FURTHER, recipe.further_steps, recipe.further_learning_rate)
        task = AcousticTask(training, further, model, corpus, devices)
        result = Trainer(task, run, training.out, checkpoint_path(work / "further")).run()
    return replace(result, network=load_acoustic_model(training.out))


def _corpus(training: AcousticTraining, reporter: Reporter) -> Corpus:
    """The spoken material with known phone times, from its file or spoken now."""
    recipe, path = training.recipe, training.work / "corpus.npz"
    if path.exists():
        return Corpus.load(path)
    bar = reporter.task("speaking (minutes)", round(60 * (recipe.hours + recipe.recorded_hours)))
    corpus = build_corpus(
        recipe.seed,
        _TRAINING,
        recipe.hours,
        training_variants(),
        lambda seconds: reporter.update(bar, round(seconds / 60)),
        VOICES,
        recipe.recorded_hours,
    )
    corpus.save(path)
    return corpus


def _untimed_corpus(training: AcousticTraining, aligner: AcousticModel, reporter: Reporter) -> Corpus:
    """The other spoken material, from its file or spoken and aligned now."""
    recipe, path = training.recipe, training.work / "untimed.npz"
    if path.exists():
        return Corpus.load(path)
    bar = reporter.task("aligning (minutes)", round(60 * recipe.untimed_hours))
    corpus = build_untimed_corpus(
        recipe.seed,
        _TRAINING,
        recipe.untimed_hours,
        UNTIMED_VOICES,
        aligner,
        lambda seconds: reporter.update(bar, round(seconds / 60)),
    )
    corpus.save(path)
    return corpus


def stacked(examples: list[Example], device: str = "cpu") -> tuple[Tensor, Tensor, Tensor]:
    """Spectra (B, F, 64), and at the model's rows phones (B, F / 2) and the lips' opening (B, F / 2), of B examples."""
    spectra = torch.from_numpy(np.stack([example.spectra for example in examples]))
    phones = torch.from_numpy(np.stack([example.phones[::2] for example in examples]))
    openness = torch.from_numpy(np.stack([example.openness[::2] for example in examples]))
    return spectra.to(device), phones.to(device), openness.to(device)


def _masked(rng: np.random.Generator, spectra: Tensor) -> Tensor:
    """Zero a few bands and runs of frames in place (SpecAugment, Park et al. 2019)."""
    _, frames, bands = spectra.shape
    for one in spectra:
        for _ in range(2):
            band = int(rng.integers(bands))
            one[:, band : band + int(rng.integers(6))] = 0
            moment = int(rng.integers(frames))
            one[moment : moment + int(rng.integers(15))] = 0
    return spectra
