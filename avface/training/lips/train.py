"""Training of the lips network.

    python -m avface.training.lips.train --out lips.safetensors

Performances of two hours, made by the first run, are kept beside the weights, and so is a checkpoint: a run that was
stopped goes on when the same command is given again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.progress import Progress as Bar
from torch import Tensor
from torch.nn.functional import binary_cross_entropy
from torch.optim import Adam
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from avface.errors import AvfaceError
from avface.geometry.axes import flip_rotation
from avface.geometry.camera import Camera
from avface.geometry.rotations import euler_to_rotmat
from avface.head.model import HeadModel, load_head
from avface.networks.lips.network import LipMotion, LipsConfig, LipsNetwork, save_lips, speech_gate
from avface.networks.lips.normal_loss import lip_normals_loss, render_normals
from avface.synthetic.performance.lip_shapes import (
    LipShapes,
    effect_curves,
    habit_numbers,
    sample_lip_habit,
)
from avface.training.lips.performances import (
    LipPerformances,
    LipPerformancesConfig,
    prepare_lip_performances,
)
from avface.training.loop.checkpoint import Progress, load_checkpoint, make_folder_of
from avface.training.loop.trainer import Descent, bar_columns, warmed_cosine

SMALL = 0.3
"""Millimetres below which an error counts by its square."""
CHECKPOINT = "avface lips training 1"


@dataclass(frozen=True)
class LipsLosses:
    """Weights of the losses."""

    vertices: float = 1.0
    """Mean distance from the true offsets, see `LipsObjective`, millimetres."""
    velocity: float = 1.0
    """The same of their change from frame to frame."""
    effects: float = 1.0
    """Cross entropy of the effects that are heard."""
    contact: float = 0.5
    """Mean depth of pairs inside each other, millimetres."""
    normals: float = 10.0
    """Equation 1 (the paper's weight)."""


@dataclass(frozen=True)
class LipsRecipe:
    """What decides about the weights."""

    network: LipsConfig = field(default_factory=LipsConfig)
    """Layers and sizes."""
    performances: LipPerformancesConfig = field(default_factory=LipPerformancesConfig)
    """What is learned from."""
    losses: LipsLosses = field(default_factory=LipsLosses)
    """Their weights."""
    steps: int = 10_000
    """Steps of the optimiser."""
    listening: int = 1200
    """Steps before those, in which the audio encoder alone learns to hear the effects: faster than by the lips."""
    heard: int = 512
    """Frames of such a step."""
    batch: int = 32
    """Windows a step."""
    window: int = 2
    """Frames of a window."""
    learning_rate: float = 3e-4
    """Highest rate; it rises for `warm_up` steps and falls as a cosine."""
    audio_rate: float = 2e-3
    """The same of the audio encoder while it listens; later it has the others'."""
    warm_up: int = 50
    """Steps."""
    gradient_norm: float = 1.0
    """Longer gradients are cut to this length."""
    averaging: float = 0.995
    """Share of the running average of the weights that a step leaves; the average is what is kept."""
    silenced: float = 0.08
    """Share of the windows whose sound is zeroed while the lips aren't told to rest: the answer must be 0."""
    rendered_every: int = 4
    """Steps from one whose normals and contact are looked at to the next: rendering is slow."""
    rendered: int = 4
    """Frames that are looked at then."""
    picture: int = 96
    """Pixels of their pictures of the mouth."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        for name in (
            "steps",
            "batch",
            "learning_rate",
            "audio_rate",
            "gradient_norm",
            "rendered_every",
            "rendered",
            "picture",
        ):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be positive")
        if self.window < 2:
            raise AvfaceError(f"window={self.window} must be at least 2: frames are compared with the next")


@dataclass(frozen=True)
class LipsTraining:
    """Train the lips network."""

    out: Path = Path("lips.safetensors")
    """File of the weights; checkpoint and performances lie beside it."""
    recipe: LipsRecipe = field(default_factory=LipsRecipe)
    """What decides about the weights."""
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """What computes."""
    threads: int = 1
    """CPU threads."""
    time_limit: float | None = None
    """Minutes of training, those before a checkpoint included: the learning rate falls so that the run ends by then."""
    checkpoint_every: int = 250
    """Steps between checkpoints; weights are written then too."""
    report_every: int = 100
    """Steps between two reports of the losses."""

    @property
    def checkpoint(self) -> Path:
        """Where the run's state is kept."""
        return self.out.with_name(f"{self.out.stem}.checkpoint.safetensors")

    @property
    def performances(self) -> Path:
        """Where the performances are kept."""
        return self.out.with_name("lip-performances.safetensors")


@dataclass(frozen=True, eq=False)
class LipBatch:
    """B windows of T frames: shape (B, S), expression (B, T, E), speech (B, T, 16, D), gate (B, T), curves (B, T, 4),
    habits (B, 1, 6)."""

    shape: Tensor
    expression: Tensor
    speech: Tensor
    gate: Tensor
    curves: Tensor
    habits: Tensor

    def to(self, device: str) -> LipBatch:
        """The same on a device."""
        return LipBatch(**{name: value.to(device) for name, value in vars(self).items()})


class LipBatches:
    """Windows of performances by random people, made from the recipe's seed and the step."""

    def __init__(self, recipe: LipsRecipe, head: HeadModel, performances: LipPerformances) -> None:
        self.recipe, self.performances = recipe, performances
        self.components = head.num_shape
        curves, gates = performance_curves(performances)
        self.curves, self.gates = torch.from_numpy(curves), torch.from_numpy(gates)

    def heard(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Speech (heard, 16, D), gate (heard,) and effects (heard, 4) of single frames."""
        rng = np.random.default_rng([self.recipe.seed, 50, step])
        rows = torch.from_numpy(rng.integers(len(self.gates), size=self.recipe.heard))
        return self.performances.speech[rows].float(), self.gates[rows], self.curves[rows]

    def __getitem__(self, step: int) -> LipBatch:
        """The windows of a step."""
        recipe, made = self.recipe, self.performances
        rng = np.random.default_rng([recipe.seed, 51, step])
        chosen = rng.integers(len(made), size=recipe.batch)
        first = made.first[chosen].numpy() + rng.integers(made.count[chosen].numpy() - recipe.window + 1)
        rows = torch.from_numpy(first)[:, None] + torch.arange(recipe.window)
        speech, curves, gate = made.speech[rows].float(), self.curves[rows], self.gates[rows]
        silent = torch.from_numpy(rng.random(recipe.batch) < recipe.silenced)
        speech[silent], curves[silent], gate[silent] = 0.0, 0.0, 1.0
        habits = torch.stack([habit_numbers(sample_lip_habit(rng)) for _ in chosen])
        shape = rng.uniform(0.5, 1.0, (recipe.batch, 1)) * rng.normal(size=(recipe.batch, self.components))
        return LipBatch(
            torch.from_numpy(shape.clip(-3, 3).astype(np.float32)),
            made.expression[rows].float(),
            speech,
            gate,
            curves,
            habits[:, None].float(),
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
        self.shapes = LipShapes.of(head).to(device)
        region = self.shapes.region
        numbers = torch.from_numpy(region.vertices)
        self.template = head.template[numbers].to(device)
        self.shape_basis = head.shape_basis[:, numbers].flatten(1).to(device)
        self.expression_basis = head.expression_basis[:, numbers].flatten(1).to(device)
        self.faces = torch.from_numpy(region.faces).to(device)
        self.share = torch.from_numpy(region.falloff).float().to(device)
        self.share = self.share / self.share.mean()

    def base(self, shape: Tensor, expression: Tensor) -> Tensor:
        """Lips (B, T, N, 3) that units alone move, of shape (B, S) and expression (B, T, E)."""
        person = (shape @ self.shape_basis).unflatten(-1, (-1, 3)) + self.template
        return person[:, None] + (expression @ self.expression_basis).unflatten(-1, (-1, 3))

    def __call__(self, motion: LipMotion, batch: LipBatch, step: int) -> dict[str, Tensor]:
        """Losses with their weights, by name."""
        weights = self.recipe.losses
        true = self.shapes.effects(batch.curves, batch.habits)
        error = 1000 * (motion.offsets - true)
        losses = {
            "vertices": weights.vertices * self._distance(error),
            "velocity": weights.velocity * self._distance(error.diff(dim=1)),
            "effects": self.hearing(motion.effects, batch.curves),
        }
        if step % self.recipe.rendered_every == 0:
            generator = torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + step)
            rows = torch.randperm(true.shape[0] * true.shape[1], generator=generator)[: self.recipe.rendered]
            base = self.base(batch.shape, batch.expression).flatten(0, 1)[rows]
            moved, wanted = (base + part.flatten(0, 1)[rows] for part in (motion.offsets, true))
            losses["contact"] = weights.contact * 1000 * self.shapes.contact.penetration_loss(moved)
            losses["normals"] = weights.normals * self._normals(moved, wanted, generator)
        return losses

    def hearing(self, effects: Tensor, curves: Tensor) -> Tensor:
        """The weighted loss of the effects (..., 4) that are heard."""
        entropy = binary_cross_entropy(effects.clamp(1e-5, 1 - 1e-5), curves)
        return self.recipe.losses.effects * entropy

    def _distance(self, error: Tensor) -> Tensor:
        """Mean length of errors (..., N, 3) in millimetres; of small ones the square.

        Lips are at rest most of the time, and of lengths alone 0 would be the best answer as long as little is known.
        """
        length = (error.square().sum(-1) + SMALL**2).sqrt() - SMALL
        return (self.share * length).mean()

    def _normals(self, moved: Tensor, wanted: Tensor, generator: torch.Generator) -> Tensor:
        """Equation 1 in close-ups (M, N, 3) from random sides."""
        size = self.recipe.picture
        camera = Camera.centred(6.0 * size, size, size)
        angles = torch.rand(len(moved), 3, generator=generator) - 0.5
        turn = euler_to_rotmat("YXZ", angles * torch.tensor([1.4, 0.6, 0.3])).to(moved)
        middle = wanted.mean(1, keepdim=True)
        pictures = []
        for vertices in (moved, wanted):
            points = (vertices - middle) @ flip_rotation(turn).transpose(1, 2) + moved.new_tensor([0, 0, 0.5])
            pictures.append(render_normals(points, camera.project(points), self.faces, size, size))
        (predicted, seen), (reference, there) = pictures
        return lip_normals_loss(predicted, reference, seen & there)


def train(training: LipsTraining) -> LipsNetwork:
    """Train, from the checkpoint if there is one, and write the weights, which are given back.

    Raises:
        AvfaceError: if a file is damaged or can't be written, espeakng-loader is missing, or the checkpoint belongs to
            another recipe.
    """
    recipe = training.recipe
    make_folder_of(training.out)
    torch.set_num_threads(training.threads)
    torch.manual_seed(recipe.seed)
    head = load_head(recipe.network.head)
    network = LipsNetwork.of(head, recipe.network)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging))
    optimiser = Adam(network.parameters(), recipe.learning_rate)
    with Bar(*bar_columns()) as bar:
        making = bar.add_task("performances", total=recipe.performances.count, note="")
        performances = prepare_lip_performances(
            training.performances,
            recipe.network.head,
            recipe.performances,
            workers=training.threads,
            on_progress=lambda share: bar.update(making, completed=share * recipe.performances.count),
        )
        bar.remove_task(making)
        batches = LipBatches(recipe, head, performances)
        objective = LipsObjective(recipe, head, training.device)
        network.to(training.device)
        average.to(training.device)
        progress = Progress()
        if training.checkpoint.exists():
            progress = load_checkpoint(
                training.checkpoint, CHECKPOINT, asdict(recipe), network, average, optimiser
            )
        task = bar.add_task("lips", total=recipe.listening + recipe.steps, completed=progress.step, note="")
        descent = Descent(training, network, average, optimiser, progress, bar, task)
        while (share := descent.share((progress.step - recipe.listening) / recipe.steps)) < 1:
            step = progress.step
            if step < recipe.listening:
                speech, gate, curves = (part.to(training.device) for part in batches.heard(step))
                losses = {"effects": objective.hearing(network.hear(speech, gate), curves)}
                rate = recipe.audio_rate
            else:
                batch = batches[step].to(training.device)
                losses = objective(network(batch.speech, batch.gate), batch, step)
                rate = warmed_cosine(recipe.learning_rate, step + 1 - recipe.listening, recipe.warm_up, share)
            descent.step(losses, rate)
            if progress.step % training.checkpoint_every == 0:
                _keep(training, descent)
    _keep(training, descent)
    result = average.module
    assert isinstance(result, LipsNetwork)
    return result.cpu().eval()


def _keep(training: LipsTraining, descent: Descent) -> None:
    """Write checkpoint and weights."""
    descent.keep(training.checkpoint, CHECKPOINT)
    assert isinstance(descent.average.module, LipsNetwork)
    save_lips(descent.average.module, training.out, descent.metadata())


def main() -> None:
    """Train as the command says."""
    try:
        train(tyro.cli(LipsTraining, description=__doc__))
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
