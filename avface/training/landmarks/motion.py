"""Training of the landmark motion network (`avface.networks.landmark_motion`): `avface train motion --out FILE`.

The images, made by the first run, are stored beside the weights, like the checkpoint; the default number of people
takes about an hour of one core, and the steps 40 minutes of two. A run that was interrupted resumes when the same
command is given again.

Two things are learnt at once: by how much the landmarks' errors differ from their mean over the clip, for which every
frame gives hundreds of numbers, and weights of the units, with a Gaussian likelihood whose variance is predicted too
(weighted by the variance's square root: Seitzer et al. 2022, beta = 0.5).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from avface.arrays import F32, U8, Bool
from avface.errors import AvfaceError
from avface.head import load_head
from avface.head.unit_names import mirrored_units
from avface.networks.landmark_motion import (
    LARGEST_AMPLITUDE,
    MotionCode,
    MotionConfig,
    MotionNetwork,
    Pictures,
    save_motion_network,
)
from avface.tracking.aligned_crops import FACE_SIZE
from avface.tracking.face_picture import LANDMARKS, PICTURE_SIDE
from avface.training.landmarks.motion_views import MotionViews, MotionViewsConfig, prepare_motion_views
from avface.training.landmarks.train import Mirror, components, settle_statistics
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

BASIS_VIEWS = 6000
"""Number of views for the principal component analysis."""
HELD_OUT = 8
"""One of so many groups of eight people, who have the same skin, is held out for testing."""
HUBER_WIDTH = 2.0
"""Error in per cent of the face's size below which the pseudo-Huber loss is about quadratic."""
LEAST_CONTEXT = 5
"""Least number of frames of a set whose mean the pictures are compared with."""


def read_units() -> tuple[str, ...]:
    """Names of the units that the network reads: all but those that follow the gaze."""
    return tuple(name for name in load_head().expression_names if not name.startswith("eyeLook"))


@dataclass(frozen=True)
class MotionRecipe:
    """What decides about the weights."""

    network: MotionConfig = field(default_factory=lambda: MotionConfig(units=read_units()))
    """Layers and sizes."""
    views: MotionViewsConfig = field(default_factory=MotionViewsConfig)
    """Training data."""
    steps: int = 10000
    """Steps of the optimiser."""
    sets: int = 8
    """People per step."""
    frames: int = 12
    """Frames of each."""
    unit_weight: float = 4.0
    """Weight of the units' likelihood against the landmarks' errors."""
    learning_rate: float = 2e-3
    """Highest learning rate: linear warm-up, then cosine decay."""
    warm_up: int = 150
    """Steps until the highest rate."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    gradient_norm: float = 2.0
    """Gradients are clipped to this norm."""
    averaging: float = 0.996
    """Decay of the exponential moving average of the weights, which is what is saved."""
    occluded: float = 0.25
    """Share of the sets in some of whose frames a rectangle is occluded; half of them have it in what is seen."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "sets", "learning_rate", "gradient_norm")
        check_not_negative(self, "unit_weight", "warm_up", "weight_decay", "seed")
        check_shares(self, "occluded")
        check_averaging(self)
        if self.frames < LEAST_CONTEXT:
            raise AvfaceError(f"frames={self.frames} must be {LEAST_CONTEXT} or more")


@dataclass(frozen=True)
class MotionTraining:
    """Train the landmark motion network. The defaults are the recipe of the shipped weights."""

    out: Path = Path("motion.safetensors")
    """File of the weights; checkpoint and images are stored beside it."""
    recipe: Annotated[MotionRecipe, tyro.conf.arg(name="")] = field(default_factory=MotionRecipe)
    """What decides about the weights."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """Where and how long."""

    def __post_init__(self) -> None:
        if self.run.device != "cpu":
            raise AvfaceError(
                f"device={self.run.device} must be cpu: the landmark motion network is trained on the CPU"
            )

    @property
    def views(self) -> Path:
        """Folder of the images."""
        return self.out.with_suffix(".views")


Command = MotionTraining
"""What `avface train motion` parses."""


@dataclass(frozen=True, eq=False)
class MotionBatch:
    """B sets of N frames: pictures and shown (B, N, side, side), tracked points (B, N, 478, 2), which frames are
    compared with (B, N), and the truth: the landmarks' errors (B, N, 468, 2) against their mean over these, relative to
    the face's size, and weights (B, N, U) of the units."""

    pictures: Tensor
    shown: Tensor
    tracked: Tensor
    context: Tensor
    errors: Tensor
    weights: Tensor

    def read_by(self, network: MotionNetwork) -> MotionCode:
        """What a network says of all frames, (B N, ...)."""
        sets, frames = self.context.shape
        pictures = Pictures.of(self.pictures.flatten(0, 1), self.shown.flatten(0, 1))
        parts = [getattr(pictures, name).unflatten(0, (sets, frames)) for name in _PARTS]
        mean = Pictures(*parts).mean(self.context.float())
        means = [getattr(mean, name).expand_as(parts[0]).flatten(0, 1) for name in _PARTS]
        points = network.point_coefficients(self.tracked)
        share = self.context.float()[..., None]
        mean_points = (points * share).sum(1, keepdim=True) / share.sum(1, keepdim=True)
        code = network(
            pictures, Pictures(*means), points.flatten(0, 1), mean_points.expand_as(points).flatten(0, 1)
        )
        assert isinstance(code, MotionCode)
        return code


_PARTS = ("contrast", "brightness", "shown")


class MotionSampler:
    """Batches of sets of frames, augmented in training."""

    def __init__(self, network: MotionNetwork, views: MotionViews, recipe: MotionRecipe) -> None:
        self._network, self._views, self._recipe = network, views, recipe
        self._rng = np.random.default_rng([recipe.seed, 1])
        self._rows = views.rows()
        self._mirror = Mirror()
        names = load_head().expression_names
        self._mirrored_units = mirrored_units(names)
        self._columns = np.array([names.index(name) for name in network.config.units])
        self.held_out = np.array(
            [int(views.set_[rows[0]]) // 8 % HELD_OUT == HELD_OUT - 1 for rows in self._rows]
        )

    def learn_components(self) -> None:
        """Set the principal components of errors and points in the network."""
        config, network, views = self._network.config, self._network, self._views
        rows = np.concatenate([own for own, held in zip(self._rows, self.held_out, strict=True) if not held])
        errors = self._errors(views.tracked, views.true)
        for own in self._rows:
            errors[own] -= errors[own].mean(0)
        rows = self._rng.permutation(rows)[:BASIS_VIEWS]
        _, basis, deviations = components(errors[rows].reshape(len(rows), -1), config.error_components)
        network.error_basis.copy_(torch.from_numpy(basis * deviations[:, None]))
        points = views.tracked[rows, :LANDMARKS].astype(np.float64)
        placed = ((points - points.mean(1, keepdims=True)) / FACE_SIZE).reshape(len(rows), -1)
        mean, basis, deviations = components(placed, config.point_components)
        network.points_mean.copy_(torch.from_numpy(mean))
        network.points_basis.copy_(torch.from_numpy(basis / deviations[:, None]))

    @staticmethod
    def _errors(tracked: F32, true: F32) -> F32:
        """Errors (..., 468, 2) relative to the face's size."""
        return np.asarray((true - tracked)[..., :LANDMARKS, :] / np.float32(FACE_SIZE))

    def draw(self) -> MotionBatch:
        """A batch of augmented sets."""
        recipe, rng = self._recipe, self._rng
        chosen = rng.choice(np.flatnonzero(~self.held_out), recipe.sets)
        rows = np.stack(
            [
                rng.choice(self._rows[one], recipe.frames, replace=len(self._rows[one]) < recipe.frames)
                for one in chosen
            ]
        )
        views = self._views
        pictures, shown, expression = views.pictures[rows], views.shown[rows], views.expression[rows]
        tracked, true = views.tracked[rows], views.true[rows]
        for number in np.flatnonzero(rng.random(recipe.sets) < 0.5):
            pictures[number], shown[number] = pictures[number, ..., ::-1], shown[number, ..., ::-1]
            for points in (tracked, true):
                points[number] = np.stack([self._mirror(each) for each in points[number]])
            expression[number] = expression[number][:, self._mirrored_units]
        pictures = _relit(pictures, rng)
        for number in range(recipe.sets):
            shift = rng.integers(-1, 2, 2)
            for part in (pictures, shown):
                part[number] = np.roll(part[number], shift, (1, 2))
        for number in np.flatnonzero(rng.random(recipe.sets) < recipe.occluded):
            self._occlude(pictures[number], shown[number])
        count = rng.integers(LEAST_CONTEXT, recipe.frames + 1, recipe.sets)
        context = np.stack([rng.permutation(recipe.frames) < most for most in count])
        return self._batch(pictures, shown, tracked, true, expression, context)

    def whole_set(self, number: int) -> MotionBatch:
        """All frames of one set as they are."""
        rows, views = self._rows[number][None], self._views
        return self._batch(
            views.pictures[rows],
            views.shown[rows],
            views.tracked[rows],
            views.true[rows],
            views.expression[rows],
            np.ones(rows.shape, bool),
        )

    def _batch(
        self, pictures: U8, shown: U8, tracked: F32, true: F32, expression: F32, context: Bool
    ) -> MotionBatch:
        errors, share = self._errors(tracked, true), context[..., None, None]
        errors = errors - (errors * share).sum(1, keepdims=True) / share.sum(1, keepdims=True)
        return MotionBatch(
            torch.from_numpy(pictures),
            torch.from_numpy(shown).float() / 255,
            torch.from_numpy(tracked),
            torch.from_numpy(context),
            torch.from_numpy(errors.astype(np.float32)),
            torch.from_numpy(expression[..., self._columns].astype(np.float32)),
        )

    def _occlude(self, pictures: U8, shown: U8) -> None:
        """Cover a rectangle in some frames of a set."""
        rng, side = self._rng, PICTURE_SIDE
        top, left = rng.integers(0, side - 8, 2)
        height, width = rng.integers(6, 26, 2)
        place = (
            rng.random(len(pictures)) < rng.random(),
            slice(top, top + height),
            slice(left, left + width),
        )
        pictures[place] = rng.integers(255)
        if rng.random() < 0.5:
            shown[place] = 0

    def random_state(self) -> dict[str, Any]:
        """State of the random stream, as JSON can store it."""
        return dict(self._rng.bit_generator.state)

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Restore what `random_state` returned."""
        self._rng.bit_generator.state = state


def _relit(pictures: U8, rng: np.random.Generator) -> U8:
    """Pictures (B, N, S, S) with random gamma, gradients of light and noise, each of them its own."""
    count, side = (*pictures.shape[:2], 1, 1), pictures.shape[-1]
    light = pictures.astype(np.float32)
    gamma = np.exp(rng.normal(0, 0.25, count) * (rng.random(count) < 0.6)).astype(np.float32)
    light = 255 * (light / 255) ** gamma
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    across, down = rng.normal(0, 0.25, count) * ramp, rng.normal(0, 0.2, count) * ramp[:, None]
    light *= np.exp(across + down).astype(np.float32)
    strength = rng.uniform(0, 7, count) * (rng.random(count) < 0.4)
    light += strength.astype(np.float32) * rng.standard_normal(light.shape, dtype=np.float32)
    return np.asarray(light.clip(0, 255).astype(np.uint8))


class MotionTask(Task[MotionNetwork, MotionBatch]):
    """The landmark motion network, for the `Trainer`. Its random streams go on from step to step."""

    name = "motion"
    checkpoint_format = "avface landmark motion training 1"
    saves_at_checkpoints = False  # the averaged network has no batch statistics yet

    def __init__(self, training: MotionTraining, views: MotionViews, devices: SingleDevice) -> None:
        recipe = training.recipe
        self._recipe = recipe
        self.recipe, self.devices = asdict(recipe), devices
        self.optimisation = Optimisation(
            recipe.steps, recipe.learning_rate, recipe.warm_up, recipe.gradient_norm, recipe.averaging
        )
        torch.manual_seed(recipe.seed)  # of the initial weights and of dropout
        self.network = MotionNetwork(recipe.network)
        self.sampler = MotionSampler(self.network, views, recipe)
        self.sampler.learn_components()
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # typeshed lacks it
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )

    def batches(self, first: int) -> Iterator[MotionBatch]:
        """Augmented sets without end."""
        while True:
            yield self.sampler.draw()

    def losses(self, module: MotionNetwork, batch: MotionBatch, step: int) -> dict[str, Tensor]:
        """The pseudo-Huber loss of the offsets in per cent of the face's size, and the units' likelihood."""
        code = batch.read_by(module)
        offsets = module.offsets_in_crop(code.coefficients)
        square = (100 * (offsets - batch.errors.flatten(0, 1))).square().sum(-1)
        variance = code.sigma.square()
        likelihood = (batch.weights.flatten(0, 1) - code.weights).square() / variance + torch.log(variance)
        weighted = 0.5 * (likelihood * code.sigma.detach()).mean()
        return {
            "offsets": HUBER_WIDTH**2 * (torch.sqrt(1 + square / HUBER_WIDTH**2) - 1).mean(),
            "units": self._recipe.unit_weight * weighted,
        }

    def random_state(self) -> dict[str, Any]:
        """Of sets, augmentation and dropout."""
        return {
            "sampler": self.sampler.random_state(),
            "torch": torch.get_rng_state().numpy().tobytes().hex(),
        }

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Restore what `random_state` returned."""
        self.sampler.set_random_state(state["sampler"])
        torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state["torch"]), dtype=torch.uint8))

    def finish(self, network: MotionNetwork) -> dict[str, float]:
        """Batch statistics of the averaged network, and its errors for the people that were held out."""
        settle_statistics(network, 20, lambda: self.sampler.draw().read_by(network))
        held_out = HeldOut.read(network, self.sampler)
        network.amplitude.copy_(held_out.amplitude(network.config.units))
        return held_out.errors()

    def save(self, network: MotionNetwork, path: Path, metadata: dict[str, str]) -> None:
        """Write the weights."""
        save_motion_network(network, path, metadata)


def train(training: MotionTraining) -> RunResult[MotionNetwork]:
    """Make the images if they don't exist yet, train, from the checkpoint if there is one, and write the weights.

    Raises:
        AvfaceError: if a file is damaged or can't be written, there are too few people, the loss isn't finite, or the
            checkpoint belongs to another recipe.
    """
    recipe, run = training.recipe, training.run
    devices = begin_run(run, training.out)
    with Reporter(run.quiet) as reporter:
        bar = reporter.task("people", recipe.views.people)
        paths = prepare_motion_views(training.views, recipe.views, lambda done: reporter.update(bar, done))
    return Trainer(MotionTask(training, MotionViews.load(paths), devices), run, training.out).run()


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a network says of the N frames of the people that were held out. Mean errors (N,) of the landmarks of a
    frame against their mean over its set, relative to the face's size, tracked and corrected; weights (N, U) of the
    units, found and true."""

    tracked: F32
    corrected: F32
    found: F32
    true: F32

    @classmethod
    @torch.inference_mode()
    def read(cls, network: MotionNetwork, sampler: MotionSampler) -> HeldOut:
        """Those of a sampler.

        Raises:
            AvfaceError: if nobody is held out.
        """
        parts = []
        for number in np.flatnonzero(sampler.held_out):
            batch = sampler.whole_set(int(number))
            code = batch.read_by(network)
            errors = batch.errors.flatten(0, 1)
            left = errors - network.offsets_in_crop(code.coefficients)
            sizes = [each.norm(dim=-1).mean(1) for each in (errors, left)]
            parts.append((*sizes, code.weights, batch.weights.flatten(0, 1)))
        if not parts:
            raise AvfaceError("no people are held out for testing; use more --views.people")
        return cls(*(torch.cat(column).numpy() for column in zip(*parts, strict=True)))

    def amplitude(self, units: tuple[str, ...]) -> Tensor:
        """(U,) ratio of the standard deviation of a unit's true weights to that of the found ones, of both halves of a
        unit together, from 1 to `LARGEST_AMPLITUDE`."""
        mirror = mirrored_units(units)
        variances = [each.clip(0, 1).var(0) for each in (self.true, self.found)]
        true, found = (each + each[mirror] for each in variances)
        return torch.from_numpy(np.sqrt(true / np.maximum(found, 1e-9)).clip(1, LARGEST_AMPLITUDE))

    def errors(self) -> dict[str, float]:
        """Mean errors of the landmarks in per cent of the face's size, tracked and corrected; median over the units
        that vary of the correlation of their weights."""
        x, y = self.found.astype(np.float64), self.true.astype(np.float64)
        moving = np.flatnonzero((y.std(0) > 0.01) & (x.std(0) > 1e-9))
        correlations = [np.corrcoef(x[:, column], y[:, column])[0, 1] for column in moving]
        return {
            "tracked": 100 * float(self.tracked.mean()),
            "corrected": 100 * float(self.corrected.mean()),
            "units_r": float(np.median(correlations)) if correlations else 0.0,
        }
