"""Training of the landmark network (`avface.networks.landmark_correction`): `avface train landmarks --out FILE`.

The images, made by the first run, are stored beside the weights, like the checkpoint; 1500 people take about an hour of
one core, and the steps another. A run that was interrupted resumes when the same command is given again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from avface.arrays import F32, F64, U8, Int
from avface.errors import AvfaceError
from avface.head import load_head
from avface.networks.landmark_correction import (
    LANDMARKS,
    LandmarkConfig,
    LandmarkNetwork,
    Layout,
    load_landmark_network,
    save_landmark_network,
)
from avface.tracking.aligned_crops import FACE_SIZE, SIDE
from avface.training.landmarks.views import LandmarkViews, LandmarkViewsConfig, prepare_views
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
HELD_OUT = 12
"""One of so many people is held out for testing."""
HUBER_WIDTH = 3.0
"""Error in per cent of the face's size below which the pseudo-Huber loss is about quadratic."""


@dataclass(frozen=True)
class LandmarkRecipe:
    """What decides about the weights."""

    network: LandmarkConfig = field(default_factory=LandmarkConfig)
    """Layers and sizes."""
    views: LandmarkViewsConfig = field(default_factory=LandmarkViewsConfig)
    """Training data."""
    steps: int = 15000
    """Steps of the optimiser."""
    batch: int = 48
    """Views per step."""
    learning_rate: float = 2e-3
    """Highest learning rate: linear warm-up, then cosine decay."""
    warm_up: int = 100
    """Steps until the highest rate."""
    weight_decay: float = 0.02
    """Weight decay of AdamW."""
    gradient_norm: float = 2.0
    """Gradients are clipped to this norm."""
    averaging: float = 0.998
    """Decay of the exponential moving average of the weights, which is what is saved."""
    perturbed: float = 0.6
    """Share of the views whose points get further random errors, so that corrections depend on the image."""
    perturbation: float = 0.8
    """Largest standard deviation of these, relative to that of the tracker's errors."""
    occluded: float = 0.25
    """Share of the views in which a rectangle is occluded; half of them have it in their visibility."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch", "learning_rate", "gradient_norm")
        check_not_negative(self, "warm_up", "weight_decay", "perturbation", "seed")
        check_shares(self, "perturbed", "occluded")
        check_averaging(self)


@dataclass(frozen=True)
class LandmarkTraining:
    """Train the landmark network. The defaults are the recipe of the shipped weights."""

    out: Path = Path("landmarks.safetensors")
    """File of the weights; checkpoint and images are stored beside it."""
    recipe: Annotated[LandmarkRecipe, tyro.conf.arg(name="")] = field(default_factory=LandmarkRecipe)
    """What decides about the weights."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """Where and how long."""
    start: Path | None = None
    """Initial weights, of the same network: for another head, a few hundred people and a third of the steps do."""

    def __post_init__(self) -> None:
        if self.run.device != "cpu":
            raise AvfaceError(
                f"device={self.run.device} must be cpu: the landmark network is trained on the CPU"
            )

    @property
    def views(self) -> Path:
        """Where the images are stored."""
        return self.out.with_suffix(".views")


Command = LandmarkTraining
"""What `avface train landmarks` parses."""


class LandmarkSampler:
    """Batches of the network's input and of the offsets that it should predict."""

    def __init__(self, network: LandmarkNetwork, views: LandmarkViews, recipe: LandmarkRecipe) -> None:
        self._network, self._views, self._recipe = network, views, recipe
        self._rng = np.random.default_rng([recipe.seed, 1])
        self._deviations = np.ones(0)
        self._mirrored = Mirror()

    def learn_components(self, rows: Int) -> None:
        """Set mean and principal components of errors and points in the network, from some views."""
        tracked, errors = self._tracked_and_errors(rows)
        points = ((tracked - tracked.mean(1, keepdims=True)) / FACE_SIZE).reshape(len(tracked), -1)
        config, network = self._network.config, self._network
        mean, basis, self._deviations = components(errors, config.error_components)
        network.error_mean.copy_(torch.from_numpy(mean))
        network.error_basis.copy_(torch.from_numpy(basis))
        mean, basis, deviations = components(points, config.point_components)
        network.points_mean.copy_(torch.from_numpy(mean))
        network.points_basis.copy_(torch.from_numpy(basis / deviations[:, None]))

    def learn_mean(self, rows: Int) -> None:
        """Set the mean of the errors alone, from some views; components that weights were trained with stay."""
        _, errors = self._tracked_and_errors(rows)
        mean = errors.mean(0)
        self._deviations = ((errors - mean) @ self._network.error_basis.double().numpy().T).std(0)
        self._network.error_mean.copy_(torch.from_numpy(mean))

    def _tracked_and_errors(self, rows: Int) -> tuple[F64, F64]:
        """Tracked points (N, 468, 2) in pixels and errors (N, 936) over the face's size in some of the views."""
        rows = self._rng.permutation(rows)[:BASIS_VIEWS]
        tracked, true = (
            part[rows, :LANDMARKS].astype(np.float64) for part in (self._views.tracked, self._views.true)
        )
        return tracked, ((true - tracked) / FACE_SIZE).reshape(len(rows), -1)

    def draw(self, rows: Int) -> tuple[Tensor, Tensor, Tensor]:
        """Augmented views of these numbers, as `views_of` returns them."""
        recipe, rng = self._recipe, self._rng
        views = self._views
        pictures, points, true = views.pictures[rows], views.tracked[rows], views.true[rows]
        for number in np.flatnonzero(rng.uniform(size=len(rows)) < 0.5):
            pictures[number] = pictures[number, :, ::-1]
            points[number], true[number] = self._mirrored(points[number]), self._mirrored(true[number])
        amount = (
            recipe.perturbation
            * rng.uniform(size=len(rows))
            * (rng.uniform(size=len(rows)) < recipe.perturbed)
        )
        basis = self._network.error_basis.numpy()
        errors = (amount[:, None] * rng.normal(size=(len(rows), len(basis))) * self._deviations) @ basis
        points[:, :LANDMARKS] += FACE_SIZE * errors.reshape(len(rows), LANDMARKS, 2)
        images, described, offsets = self._inputs(pictures, points, true)
        return self._degraded(images), described, offsets

    def views_of(self, rows: Int) -> tuple[Tensor, Tensor, Tensor]:
        """Views of these numbers: images (B, 3, side, side), components of the points (B, D) and offsets (B, 468, 2)
        relative to the face's size."""
        views = self._views
        return self._inputs(views.pictures[rows], views.tracked[rows], views.true[rows])

    def _inputs(self, pictures: U8, points: F32, true: F32) -> tuple[Tensor, Tensor, Tensor]:
        layout = self._network.layout
        images = np.stack([layout.sample(*each) for each in zip(pictures, points, strict=True)])
        offsets = (true - points)[:, :LANDMARKS] / np.float32(FACE_SIZE)
        described = self._network.point_coefficients(torch.from_numpy(points))
        return torch.from_numpy(images), described, torch.from_numpy(offsets)

    def _degraded(self, images: Tensor) -> Tensor:
        """Images with random contrast, noise and occluded rectangles."""
        rng, side, values = self._rng, images.shape[-1], images.numpy()
        count = (len(values), 1, 1, 1)
        values[:, :2] *= np.exp(rng.normal(0, 0.12, count)).astype(np.float32)
        noise = rng.uniform(0, 0.25, count) * (rng.uniform(size=count) < 0.5)
        values[:, :2] += (noise * rng.normal(size=(len(values), 2, side, side))).astype(np.float32)
        for value in values:
            if rng.uniform() < self._recipe.occluded:
                top, left = rng.integers(0, side, 2)
                height, width = rng.integers(side // 12, side // 3 + side // 24, 2)
                rectangle = value[:, top : top + height, left : left + width]
                rectangle[:2] = rng.normal() if rng.uniform() < 0.5 else 0
                rectangle[2] *= rng.uniform() < 0.5
        return torch.from_numpy(values)

    def random_state(self) -> dict[str, Any]:
        """State of the random stream, as JSON can store it."""
        return dict(self._rng.bit_generator.state)

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Restore what `random_state` returned."""
        self._rng.bit_generator.state = state


class Mirror:
    """Landmarks of the mirror image of a view."""

    def __init__(self) -> None:
        rest = mean_points()[:LANDMARKS]
        self._other = _other_side(rest)
        self._affine = np.linalg.pinv(np.concatenate([rest, np.ones((LANDMARKS, 1))], 1))[:3]
        self._uneven = rest - rest[self._other] * [-1, 1, 1]
        """(468, 3) deviation of the points from mirror symmetry, which the tracker's points have, too."""

    def __call__(self, points: F32) -> F32:
        """Landmarks (478, 2) in a view; those of the irises stay where they are."""
        flipped = points[self._other] * [-1, 1] + [SIDE - 1, 0]
        whole = np.concatenate([flipped + self._uneven @ (self._affine @ flipped), points[LANDMARKS:]])
        return whole.astype(np.float32)


def _other_side(rest: F64) -> Int:
    """(L,) number of the corresponding point on the other side of the face, of points (L, 3)."""
    from scipy.optimize import linear_sum_assignment

    distance = np.square(rest[:, None] * [-1, 1, 1] - rest[None]).sum(-1)
    return np.asarray(linear_sum_assignment(distance + distance.T)[1], np.int64)


def components(values: F64, count: int) -> tuple[F64, F64, F64]:
    """Mean (F,), principal components (count, F), orthonormal, and standard deviations (count,) of values (N, F)."""
    mean = values.mean(0)
    _, sizes, directions = np.linalg.svd(values - mean, full_matrices=False)
    if len(directions) < count:
        raise AvfaceError(f"{len(values)} views are too few for {count} components; use more --views.people")
    return mean, directions[:count], np.maximum(sizes[:count] / np.sqrt(len(values)), 1e-9)


Batch = tuple[Tensor, Tensor, Tensor]


class LandmarkTask(Task[LandmarkNetwork, Batch]):
    """The landmark network, for the `Trainer`. Its random streams go on from step to step."""

    name = "landmarks"
    checkpoint_format = "avface landmark training 1"
    saves_at_checkpoints = False  # the averaged network has no batch statistics yet

    def __init__(self, training: LandmarkTraining, views: LandmarkViews, devices: SingleDevice) -> None:
        recipe = training.recipe
        self._recipe = recipe
        self.recipe, self.devices = asdict(recipe), devices
        self.optimisation = Optimisation(
            recipe.steps, recipe.learning_rate, recipe.warm_up, recipe.gradient_norm, recipe.averaging
        )
        torch.manual_seed(recipe.seed)  # of the initial weights and of dropout
        self._rng = np.random.default_rng([recipe.seed, 0])
        held_out = views.person % HELD_OUT == HELD_OUT - 1
        self._rows, self._held_out = np.flatnonzero(~held_out), np.flatnonzero(held_out & ~views.warped)
        if training.start is None:
            self.network = LandmarkNetwork(recipe.network, Layout.of(mean_points(), recipe.network.side))
            self._sampler = LandmarkSampler(self.network, views, recipe)
            self._sampler.learn_components(self._rows)
        else:
            self.network = _started(training.start, recipe.network)
            self._sampler = LandmarkSampler(self.network, views, recipe)
            self._sampler.learn_mean(self._rows)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # typeshed lacks it
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )

    def batches(self, first: int) -> Iterator[Batch]:
        """Augmented views without end."""
        while True:
            yield self._draw(self._recipe.batch)

    def _draw(self, most: int) -> Batch:
        rows = self._rng.choice(self._rows, min(most, len(self._rows)), replace=False)
        return self._sampler.draw(rows)

    def losses(self, module: LandmarkNetwork, batch: Batch, step: int) -> dict[str, Tensor]:
        """The pseudo-Huber loss of the offsets in per cent of the face's size."""
        images, described, offsets = batch
        with torch.autocast("cpu", torch.bfloat16):
            predicted = module(images.to(memory_format=torch.channels_last), described)
        square = (100 * (predicted - offsets)).square().sum(-1)
        return {"offsets": HUBER_WIDTH**2 * (torch.sqrt(1 + square / HUBER_WIDTH**2) - 1).mean()}

    def random_state(self) -> dict[str, Any]:
        """Of rows, augmentation and dropout."""
        return {
            "rows": dict(self._rng.bit_generator.state),
            "sampler": self._sampler.random_state(),
            "torch": torch.get_rng_state().numpy().tobytes().hex(),
        }

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Restore what `random_state` returned."""
        self._rng.bit_generator.state = state["rows"]
        self._sampler.set_random_state(state["sampler"])
        torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state["torch"]), dtype=torch.uint8))

    def finish(self, network: LandmarkNetwork) -> dict[str, float]:
        """Batch statistics of the averaged network, and its errors for the people that were held out."""
        settle_statistics(network, 24, lambda: network(*self._draw(64)[:2]))
        before, after = errors(network, self._sampler, self._held_out)
        return {"tracked": before, "corrected": after}

    def save(self, network: LandmarkNetwork, path: Path, metadata: dict[str, str]) -> None:
        """Write the weights."""
        save_landmark_network(network, path, metadata)


def settle_statistics(network: torch.nn.Module, rounds: int, run: Callable[[], object]) -> None:
    """Compute the batch statistics of an averaged network anew, as plain averages over runs of it on training batches;
    it is in evaluation mode then."""
    normalisations = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    momenta = [part.momentum for part in normalisations]
    for part in normalisations:
        part.reset_running_stats()
        part.momentum = None  # a plain average
    network.train()
    with torch.inference_mode():
        for _ in range(rounds):
            run()
    for part, momentum in zip(normalisations, momenta, strict=True):
        part.momentum = momentum
    network.eval()


def train(training: LandmarkTraining) -> RunResult[LandmarkNetwork]:
    """Make the images if they don't exist yet, train, from the checkpoint if there is one, and write the weights.

    Raises:
        AvfaceError: if a file is damaged or can't be written, there are too few people, the loss isn't finite, or the
            checkpoint belongs to another recipe.
    """
    recipe, run = training.recipe, training.run
    devices = begin_run(run, training.out)
    with Reporter(run.quiet) as reporter:
        bar = reporter.task("people", recipe.views.people)
        paths = prepare_views(training.views, recipe.views, lambda done: reporter.update(bar, done))
    views = LandmarkViews.load(paths)
    return Trainer(LandmarkTask(training, views, devices), run, training.out).run()


def _started(path: Path, config: LandmarkConfig) -> LandmarkNetwork:
    """The network of a weight file, to be trained on.

    Raises:
        AvfaceError: if the file is missing, damaged or of a network with another config.
    """
    network = load_landmark_network(path)
    if network.config != config:
        raise AvfaceError(f"{path}: its network is {network.config}, not {config}; give it as --network...")
    return network.requires_grad_(True)


def errors(
    network: LandmarkNetwork, sampler: LandmarkSampler, rows: Int, batch: int = 64
) -> tuple[float, float]:
    """Mean distance of landmarks from the true ones, per cent of the face's size: tracked, and corrected."""
    sums = np.zeros(2)
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            images, described, offsets = sampler.views_of(rows[start : start + batch])
            remaining = offsets - network(images, described)
            sums += [float(part.norm(dim=-1).mean(1).sum()) for part in (offsets, remaining)]
    before, after = 100 * sums / max(len(rows), 1)
    return float(before), float(after)


def mean_points() -> F64:
    """The landmarks (478, 3) of the mean head."""
    head = load_head()
    return head.embedding("mediapipe478").on(head.template.numpy())
