"""Training of the lips network: `avface train lips --out lips.safetensors`.

The performances, two hours of them, are made by the first run and stored beside the weights, like the checkpoint: a run
that was interrupted resumes when the same command is given again.
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
from torch.nn.functional import binary_cross_entropy
from torch.optim import Adam

from avface.errors import AvfaceError
from avface.geometry.axes import flip_rotation
from avface.geometry.camera import Camera
from avface.geometry.rotations import euler_to_rotmat
from avface.head.asset import load_head
from avface.head.model import HeadModel
from avface.networks.lips.network import LipMotion, LipsConfig, LipsNetwork, save_lips, speech_gate
from avface.networks.lips.normal_loss import lip_normals_loss, render_normals
from avface.synthetic.performance.lip_effects import (
    LipEffects,
    effect_curves,
    lip_style_vector,
    sample_lip_style,
)
from avface.training.lips.performances import (
    LipPerformances,
    LipPerformancesConfig,
    prepare_lip_performances,
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
from avface.training.loop.trainer import RunResult, Task, Trainer, begin_run

SMALL = 0.3
"""Error in millimetres below which the pseudo-Huber loss is about quadratic."""


@dataclass(frozen=True)
class LipsLosses:
    """Weights of the losses."""

    vertices: float = 1.0
    """Mean distance from the true offsets, see `LipsObjective`, millimetres."""
    velocity: float = 1.0
    """The same of their differences between frames."""
    effects: float = 1.0
    """Cross entropy of the predicted effects."""
    contact: float = 0.5
    """Mean penetration depth of contact pairs, millimetres."""
    normals: float = 10.0
    """Equation 1 (the paper's weight)."""

    def __post_init__(self) -> None:
        check_not_negative(self, "vertices", "velocity", "effects", "contact", "normals")


@dataclass(frozen=True)
class LipsRecipe:
    """What decides about the weights."""

    network: LipsConfig = field(default_factory=LipsConfig)
    """Layers and sizes."""
    performances: LipPerformancesConfig = field(default_factory=LipPerformancesConfig)
    """Training data."""
    losses: LipsLosses = field(default_factory=LipsLosses)
    """Weights of the losses."""
    steps: int = 10_000
    """Steps of the optimiser."""
    pretraining_steps: int = 1200
    """Steps before those, in which the audio encoder alone is trained on the effects: faster than through the lips."""
    pretraining_batch: int = 512
    """Frames per step of pre-training."""
    batch: int = 32
    """Windows per step."""
    window: int = 2
    """Frames of a window."""
    learning_rate: float = 3e-4
    """Highest learning rate: linear warm-up, then cosine decay."""
    pretraining_rate: float = 2e-3
    """Learning rate of the pre-training."""
    warm_up: int = 50
    """Steps until the highest rate."""
    gradient_norm: float = 1.0
    """Gradients are clipped to this norm."""
    averaging: float = 0.995
    """Decay of the exponential moving average of the weights, which is what is saved."""
    audio_dropout: float = 0.08
    """Share of the windows whose sound is zero with the gate open; their offsets must be 0."""
    render_every: int = 4
    """Steps between those with losses of normals and contact: rendering is slow."""
    render_frames: int = 4
    """Frames that are rendered in such a step."""
    render_size: int = 96
    """Width and height of their images of the mouth in pixels."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        check_positive(
            self,
            "steps",
            "pretraining_batch",
            "batch",
            "learning_rate",
            "pretraining_rate",
            "gradient_norm",
            "render_every",
            "render_frames",
            "render_size",
        )
        check_not_negative(self, "pretraining_steps", "warm_up", "seed")
        check_shares(self, "audio_dropout")
        check_averaging(self)
        if self.window < 2:
            raise AvfaceError(f"window={self.window} must be at least 2: the velocity loss compares frames")


@dataclass(frozen=True)
class LipsTraining:
    """Train the lips network. The defaults are the recipe of the shipped weights."""

    out: Path = Path("lips.safetensors")
    """File of the weights; checkpoint and performances are stored beside it."""
    recipe: Annotated[LipsRecipe, tyro.conf.arg(name="")] = field(default_factory=LipsRecipe)
    """What decides about the weights."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """Where and how long."""

    @property
    def performances(self) -> Path:
        """Where the performances are stored."""
        return self.out.with_name("lip-performances.safetensors")


Command = LipsTraining
"""What `avface train lips` parses."""


@dataclass(frozen=True, eq=False)
class LipBatch:
    """B windows of T frames: shape (B, S), expression (B, T, E), speech (B, T, 16, D), gate (B, T), curves (B, T, 4),
    styles (B, 1, 6)."""

    shape: Tensor
    expression: Tensor
    speech: Tensor
    gate: Tensor
    curves: Tensor
    styles: Tensor

    def to(self, device: str) -> LipBatch:
        """The same on a device."""
        return LipBatch(**{name: value.to(device) for name, value in vars(self).items()})


class LipBatches:
    """Windows of performances by random people; functions of the recipe's seed and the step."""

    def __init__(self, recipe: LipsRecipe, head: HeadModel, performances: LipPerformances) -> None:
        self.recipe, self.performances = recipe, performances
        self.components = head.num_shape
        curves, gates = performance_curves(performances)
        self.curves, self.gates = torch.from_numpy(curves), torch.from_numpy(gates)

    def frames(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Speech (F, 16, D), gate (F,) and effects (F, 4) of F single frames, for a step of pre-training."""
        rng = np.random.default_rng([self.recipe.seed, 50, step])
        rows = torch.from_numpy(rng.integers(len(self.gates), size=self.recipe.pretraining_batch))
        return self.performances.speech[rows].float(), self.gates[rows], self.curves[rows]

    def __getitem__(self, step: int) -> LipBatch:
        """The windows of a step."""
        recipe, made = self.recipe, self.performances
        rng = np.random.default_rng([recipe.seed, 51, step])
        chosen = rng.integers(len(made), size=recipe.batch)
        first = made.first[chosen].numpy() + rng.integers(made.count[chosen].numpy() - recipe.window + 1)
        rows = torch.from_numpy(first)[:, None] + torch.arange(recipe.window)
        speech, curves, gate = made.speech[rows].float(), self.curves[rows], self.gates[rows]
        silent = torch.from_numpy(rng.random(recipe.batch) < recipe.audio_dropout)
        speech[silent], curves[silent], gate[silent] = 0.0, 0.0, 1.0
        styles = torch.stack([lip_style_vector(sample_lip_style(rng)) for _ in chosen])
        shape = rng.uniform(0.5, 1.0, (recipe.batch, 1)) * rng.normal(size=(recipe.batch, self.components))
        return LipBatch(
            torch.from_numpy(shape.clip(-3, 3).astype(np.float32)),
            made.expression[rows].float(),
            speech,
            gate,
            curves,
            styles[:, None].float(),
        )


def performance_curves(performances: LipPerformances) -> tuple[np.ndarray, np.ndarray]:
    """Effects (N, 4) and gate (N,) of all frames of performances, float32."""
    curves, gates = [], []
    for number, (first, count) in enumerate(
        zip(performances.first.tolist(), performances.count.tolist(), strict=True)
    ):
        times = np.arange(count) / performances.frame_rate
        curves.append(effect_curves(performances.phonemes(number), times[-1] + 0.1, times).astype(np.float32))
        gates.append(speech_gate(performances.activity[first : first + count].numpy(), times))
    return np.concatenate(curves), np.concatenate(gates)


class LipsObjective:
    """The losses of a batch."""

    def __init__(self, recipe: LipsRecipe, head: HeadModel, device: str) -> None:
        self.recipe = recipe
        self.shapes = LipEffects.of(head).to(device)
        region = self.shapes.region
        numbers = torch.from_numpy(region.vertices)
        self.template = head.template[numbers].to(device)
        self.shape_basis = head.shape_basis[:, numbers].flatten(1).to(device)
        self.blend_basis = head.blend_basis[:, numbers].flatten(1).to(device)
        self.terms = head.blend_terms.to(device)
        self.faces = torch.from_numpy(region.faces).to(device)
        self.share = torch.from_numpy(region.falloff).float().to(device)
        self.share = self.share / self.share.mean()

    def base(self, shape: Tensor, expression: Tensor) -> Tensor:
        """Lips (B, T, N, 3) of shape (B, S) and expression (B, T, E), without offsets."""
        person = (shape @ self.shape_basis).unflatten(-1, (-1, 3)) + self.template
        weights = self.terms.weights(expression, shape[:, None])
        return person[:, None] + (weights @ self.blend_basis).unflatten(-1, (-1, 3))

    def __call__(self, motion: LipMotion, batch: LipBatch, step: int) -> dict[str, Tensor]:
        """Losses with their weights, by name."""
        weights = self.recipe.losses
        true = self.shapes.effects(batch.curves, batch.styles)
        error = 1000 * (motion.offsets - true)
        losses = {
            "vertices": weights.vertices * self._distance(error),
            "velocity": weights.velocity * self._distance(error.diff(dim=1)),
            "effects": self.effects_loss(motion.effects, batch.curves),
        }
        if step % self.recipe.render_every == 0:
            generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
            rows = torch.randperm(true.shape[0] * true.shape[1], generator=generator)[
                : self.recipe.render_frames
            ]
            base = self.base(batch.shape, batch.expression).flatten(0, 1)[rows]
            predicted, true_lips = (base + part.flatten(0, 1)[rows] for part in (motion.offsets, true))
            losses["contact"] = weights.contact * 1000 * self.shapes.contact.penetration_loss(predicted)
            losses["normals"] = weights.normals * self._normals(predicted, true_lips, generator)
        return losses

    def effects_loss(self, effects: Tensor, curves: Tensor) -> Tensor:
        """Weighted cross entropy of predicted effects (..., 4)."""
        entropy = binary_cross_entropy(effects.clamp(1e-5, 1 - 1e-5), curves)
        return self.recipe.losses.effects * entropy

    def _distance(self, error: Tensor) -> Tensor:
        """Pseudo-Huber loss of errors (..., N, 3) in millimetres, weighted by the falloff of the region.

        Lips are at rest most of the time: under an absolute loss, an uncertain network would best predict no motion.
        """
        length = (error.square().sum(-1) + SMALL**2).sqrt() - SMALL
        return (self.share * length).mean()

    def _normals(self, lips: Tensor, true: Tensor, generator: torch.Generator) -> Tensor:
        """Equation 1 for lips (M, N, 3), rendered from random directions."""
        size = self.recipe.render_size
        camera = Camera.centred(6.0 * size, size, size)
        angles = torch.rand(len(lips), 3, generator=generator) - 0.5
        turn = euler_to_rotmat("YXZ", angles * torch.tensor([1.4, 0.6, 0.3])).to(lips)
        middle = true.mean(1, keepdim=True)
        images = []
        for vertices in (lips, true):
            points = (vertices - middle) @ flip_rotation(turn).transpose(1, 2) + lips.new_tensor([0, 0, 0.5])
            images.append(render_normals(points, camera.project(points), self.faces, size, size))
        (predicted, inside), (reference, true_inside) = images
        return lip_normals_loss(predicted, reference, inside & true_inside)


Frames = tuple[Tensor, Tensor, Tensor]


class LipsTask(Task[LipsNetwork, LipBatch | Frames]):
    """The lips network, for the `Trainer`: first its audio encoder alone, then all of it."""

    name = "lips"
    checkpoint_format = "avface lips training 2"

    def __init__(self, training: LipsTraining, performances: LipPerformances, devices: SingleDevice) -> None:
        recipe = training.recipe
        self._recipe, self._device = recipe, training.run.device
        self.recipe, self.devices = asdict(recipe), devices
        self.optimisation = Optimisation(
            recipe.steps,
            recipe.learning_rate,
            recipe.warm_up,
            recipe.gradient_norm,
            recipe.averaging,
            pretraining_steps=recipe.pretraining_steps,
        )
        torch.manual_seed(recipe.seed)  # of the initial weights
        head = load_head(recipe.network.head)
        self.network = LipsNetwork.of(head, recipe.network)
        self.optimiser = Adam(self.network.parameters(), recipe.learning_rate)
        self._batches = LipBatches(recipe, head, performances)
        self._objective = LipsObjective(recipe, head, training.run.device)

    def batches(self, first: int) -> Iterator[LipBatch | Frames]:
        """Single frames for the pre-training, then windows."""
        for step in count_from(first):
            yield self._batches.frames(step) if self._pretrains(step) else self._batches[step]

    def learning_rate(self, step: int, progress: float) -> float:
        """Constant while pre-training."""
        return (
            self._recipe.pretraining_rate if self._pretrains(step) else super().learning_rate(step, progress)
        )

    def losses(self, module: LipsNetwork, batch: LipBatch | Frames, step: int) -> dict[str, Tensor]:
        """Weighted losses by name."""
        if isinstance(batch, LipBatch):
            batch = batch.to(self._device)
            return self._objective(module(batch.speech, batch.gate), batch, step)
        speech, gate, curves = (part.to(self._device) for part in batch)
        return {"effects": self._objective.effects_loss(module.predict_effects(speech, gate), curves)}

    def save(self, network: LipsNetwork, path: Path, metadata: dict[str, str]) -> None:
        """Write the weights."""
        save_lips(network, path, metadata)

    def _pretrains(self, step: int) -> bool:
        return step < self._recipe.pretraining_steps


def train(training: LipsTraining) -> RunResult[LipsNetwork]:
    """Train, from the checkpoint if there is one, and write the weights.

    Raises:
        AvfaceError: if a file is damaged or can't be written, espeakng-loader is missing, or the checkpoint belongs to
            another recipe.
    """
    recipe, run = training.recipe, training.run
    devices = begin_run(run, training.out)
    with Reporter(run.quiet) as reporter:
        total = recipe.performances.count
        bar = reporter.task("performances", total)
        performances = prepare_lip_performances(
            training.performances,
            recipe.network.head,
            recipe.performances,
            workers=run.threads,
            on_progress=lambda share: reporter.update(bar, share * total),
        )
    return Trainer(LipsTask(training, performances, devices), run, training.out).run()
