"""Training of the speech readout on synthetic speech: `avface train hearing`.

Voices with known phone times speak, and others whose phones the acoustic model aligns; they are mixed with rooms,
noise, music and other voices, and encoded once by the frozen encoder. The readout is then trained on these states in
minutes.
A run that was interrupted resumes from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import count as count_from
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn import functional

from avface.speech.acoustic import pretrained_acoustic_model
from avface.speech.moonshine import pretrained_moonshine
from avface.speech.readout import ReadoutConfig, SpeechReadout, save_readout
from avface.training.acoustic.corpus import aligned_speech, timed_speech, training_variants
from avface.training.acoustic.recorded_voices import VOICES
from avface.training.acoustic.untimed_voices import UNTIMED_VOICES
from avface.training.hearing.examples import (
    Examples,
    MixtureConfig,
    SoundCorpus,
    backgrounds,
    encoded_examples,
    mixture,
)
from avface.training.loop.config import (
    Optimisation,
    RunConfig,
    check_averaging,
    check_not_negative,
    check_positive,
    check_shares,
)
from avface.training.loop.devices import SingleDevice
from avface.training.loop.reporting import Reporter
from avface.training.loop.trainer import RunResult, Task, Trainer, begin_run, claim_folder

GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm."""
_TRAINING, _MIXING, _STEPS = 0, 2, 3  # random streams; 1 is testing


@dataclass(frozen=True)
class HearingRecipe:
    """What decides about the weights."""

    seed: int = 0
    """Seed of voices, texts, mixtures and initial weights."""
    hours: float = 1.2
    """Hours of speech by espeak-ng."""
    recorded_hours: float = 1.3
    """Hours of speech by voices made from recordings of people."""
    untimed_hours: float = 1.2
    """Hours of speech by such voices without known phone times."""
    backgrounds: int = 60
    """Pieces of noise, of music by tones and of music by instruments, each."""
    examples: int = 1600
    """Examples that are mixed and encoded."""
    mixture: MixtureConfig = field(default_factory=MixtureConfig)
    """How they are mixed."""
    steps: int = 1500
    """Steps of the optimiser."""
    batch: int = 16
    """Examples per step."""
    learning_rate: float = 2e-3
    """Highest learning rate of AdamW: linear warm-up, then cosine decay."""
    warm_up: int = 100
    """Steps until the highest rate."""
    weight_decay: float = 0.02
    """Weight decay of AdamW."""
    averaging: float = 0.995
    """Decay of the exponential moving average of the weights, which is what is saved."""
    state_dropout: float = 0.3
    """Share of the states' dimensions that are zero in a step, the same in all rows of an example."""
    opening_weight: float = 15.0
    """Weight of the squared error of the lips' opening beside the cross entropy of the phones."""
    closure_weight: float = 0.3
    """Weight of the cross entropy of closed lips."""
    loudness_weight: float = 2.0
    """Weight of the squared error of the loudness."""
    model: ReadoutConfig = field(default_factory=ReadoutConfig)
    """Size of the readout."""

    def __post_init__(self) -> None:
        check_positive(self, "hours", "backgrounds", "examples", "steps", "batch", "learning_rate")
        check_not_negative(
            self,
            "recorded_hours",
            "untimed_hours",
            "warm_up",
            "weight_decay",
            "opening_weight",
            "closure_weight",
            "loudness_weight",
            "seed",
        )
        check_shares(self, "state_dropout")
        check_averaging(self)


@dataclass(frozen=True)
class HearingTraining:
    """Train the speech readout. The defaults are the recipe of the shipped weights."""

    out: Path = Path("hearing.safetensors")
    """File of the weights."""
    work: Path = Path("hearing-training")
    """Folder of the encoded examples and of the checkpoint, from which a later run resumes."""
    recipe: Annotated[HearingRecipe, tyro.conf.arg(name="")] = field(default_factory=HearingRecipe)
    """What decides about the weights."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(
        default_factory=lambda: RunConfig(checkpoint_every=200)
    )
    """Where and how long."""


Command = HearingTraining
"""What `avface train hearing` parses."""


class HearingTask(Task[SpeechReadout, Tensor]):
    """The readout on encoded examples, for the `Trainer`; a batch is the examples' numbers (B,)."""

    name = "readout"
    checkpoint_format = "avface hearing training 1"
    saves_at_checkpoints = False  # the averaged readout has no statistics of its logits yet

    def __init__(self, training: HearingTraining, examples: Examples, devices: SingleDevice) -> None:
        recipe = training.recipe
        self._recipe, self._examples, self._device = recipe, examples, training.run.device
        self.recipe, self.devices = asdict(recipe), devices
        self.optimisation = Optimisation(
            recipe.steps, recipe.learning_rate, recipe.warm_up, GRADIENT_NORM, recipe.averaging
        )
        torch.manual_seed(recipe.seed)  # of the initial weights; everything else has streams of its own
        self.network = SpeechReadout(recipe.model)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, (0.9, 0.98), weight_decay=recipe.weight_decay
        )

    def initialise(self) -> None:
        """Standardise the states over some examples."""
        states = self._examples.states[:300].float().flatten(0, 1).flatten(1)
        self.network.state_mean.copy_(states.mean(0))
        self.network.state_scale.copy_(states.std(0).clamp_min(1e-3))

    def batches(self, first: int) -> Iterator[Tensor]:
        """Numbers of examples; functions of seed and step."""
        for step in count_from(first):
            rng = np.random.default_rng([self._recipe.seed, _STEPS, step])
            yield torch.from_numpy(rng.integers(0, len(self._examples.spoken), self._recipe.batch))

    def losses(self, module: SpeechReadout, batch: Tensor, step: int) -> dict[str, Tensor]:
        """Cross entropy of phones and closures, squared errors of opening and loudness.

        The opening is learnt from the examples with a voice alone: that the lips rest without one follows from the
        activity (`SpeechReadout.rows`), and a readout that must say so itself hears real voices less well.
        """
        examples, recipe, device = self._examples, self._recipe, self._device
        states = examples.states[batch].to(device).float()
        generator = torch.Generator().manual_seed(int(recipe.seed) * 1_000_003 + step)
        kept = torch.rand((len(batch), 1, *states.shape[2:]), generator=generator) >= recipe.state_dropout
        mean = module.state_mean.view(states.shape[2:])
        out = module(torch.where(kept.to(device), states, mean))
        spoken = examples.spoken[batch].to(device).float()[:, None]
        share = spoken.expand(out.opening.shape)

        def over_speech(errors: Tensor) -> Tensor:
            return (share * errors).sum() / share.sum().clamp_min(1)

        opening, loudness = examples.opening[batch].to(device), examples.loudness[batch].to(device)
        closed = examples.closed[batch].to(device).float()
        return {
            "phones": functional.cross_entropy(
                out.phones.flatten(0, 1), examples.phones[batch].to(device).flatten()
            ),
            "opening": recipe.opening_weight * over_speech((out.opening - opening).square()),
            "closure": recipe.closure_weight
            * over_speech(functional.binary_cross_entropy_with_logits(out.closed, closed, reduction="none")),
            "loudness": recipe.loudness_weight * over_speech((out.loudness - loudness).square()),
        }

    @torch.no_grad()
    def finish(self, network: SpeechReadout) -> dict[str, float]:
        """Store mean and standard deviation of each logit over some examples."""
        network.eval().requires_grad_(False)
        states = self._examples.states[:300].to(self._device)
        logits = torch.cat([network(part.float()).phones.flatten(0, 1) for part in states.split(50)])
        network.logit_mean.copy_(logits.mean(0))
        network.logit_scale.copy_(logits.std(0))
        return {}

    def save(self, network: SpeechReadout, path: Path, metadata: dict[str, str]) -> None:
        """Write the weights."""
        save_readout(network, path, metadata)


def train(training: HearingTraining) -> RunResult[SpeechReadout]:
    """Speak, mix, encode, train and write the weights, with the recipe beside them.

    Raises:
        AvfaceError: if a program or voice is missing, or the folder holds a run with another recipe.
    """
    run = training.run
    devices = begin_run(run, training.out)
    claim_folder(training.work, asdict(training.recipe))
    with Reporter(run.quiet) as reporter:
        examples = _examples(training, reporter)
    task = HearingTask(training, examples, devices)
    return Trainer(task, run, training.out, training.work / "readout.checkpoint").run()


def _examples(training: HearingTraining, reporter: Reporter) -> Examples:
    """The encoded examples, from their file or made now."""
    recipe, path = training.recipe, training.work / "examples.safetensors"
    if path.exists():
        return Examples.load(path)
    corpus = spoken_corpus(recipe, reporter)
    bar = reporter.task("mixing and encoding (examples)", recipe.examples)
    mixtures = (
        mixture(np.random.default_rng([recipe.seed, _MIXING, number]), corpus, recipe.mixture)
        for number in count_from()
    )
    encoder = pretrained_moonshine(training.run.device)
    examples = encoded_examples(encoder, mixtures, recipe.examples, lambda done: reporter.update(bar, done))
    examples.save(path)
    return examples


def spoken_corpus(recipe: HearingRecipe, reporter: Reporter) -> SoundCorpus:
    """The voices and backgrounds of a recipe.

    Raises:
        AvfaceError: if a program or voice is missing.
    """
    timed, untimed = recipe.hours + recipe.recorded_hours, recipe.untimed_hours
    bar = reporter.task("speaking (minutes)", round(60 * (timed + untimed)))
    spoken = list(
        timed_speech(
            recipe.seed,
            _TRAINING,
            recipe.hours,
            training_variants(),
            VOICES,
            recipe.recorded_hours,
            lambda seconds: reporter.update(bar, round(seconds / 60)),
        )
    )
    if untimed:
        spoken += aligned_speech(
            recipe.seed,
            _TRAINING,
            untimed,
            UNTIMED_VOICES,
            pretrained_acoustic_model(),
            lambda seconds: reporter.update(bar, round(60 * timed + seconds / 60)),
        )
    rng = np.random.default_rng([recipe.seed, _TRAINING])
    noises, musics = backgrounds(rng, recipe.backgrounds, recipe.recorded_hours > 0)
    return SoundCorpus(tuple(spoken), tuple(noises), tuple(musics))
