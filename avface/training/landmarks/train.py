"""Training of the network that says how far tracked landmarks are off (`avface.networks.landmark_correction`).

    python -m avface.training.landmarks.train --out landmarks.safetensors

The pictures, made by the first run, are kept beside the weights, so that the next one has them; 1500 people take about
an hour of one core, and the steps another.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from rich.progress import Progress as Bar
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from avface.arrays import F32, F64, U8, Int
from avface.errors import AvfaceError
from avface.head import load_head
from avface.networks.landmark_correction import (
    LANDMARKS,
    LandmarkConfig,
    LandmarkNetwork,
    Layout,
    save_landmark_network,
)
from avface.tracking.aligned_crops import FACE_SIZE, SIDE
from avface.training.landmarks.views import LandmarkViews, LandmarkViewsConfig, prepare_views
from avface.training.loop.checkpoint import Progress
from avface.training.loop.trainer import Descent, bar_columns, warmed_cosine

BASIS_VIEWS = 6000
"""Views from which principal components are taken."""
HELD_OUT = 12
"""Every so many people one is left for testing."""
USUAL = 3.0
"""Per cent of the face's size up to which an error counts by its square."""


@dataclass(frozen=True)
class LandmarkRecipe:
    """What decides about the weights."""

    network: LandmarkConfig = field(default_factory=LandmarkConfig)
    """Layers and sizes."""
    views: LandmarkViewsConfig = field(default_factory=LandmarkViewsConfig)
    """What is learned from."""
    steps: int = 15000
    """Steps of the optimiser."""
    batch: int = 48
    """Views a step."""
    learning_rate: float = 2e-3
    """Highest rate; it rises for `warm_up` steps and falls as a cosine."""
    warm_up: int = 100
    """Steps."""
    weight_decay: float = 0.02
    """Of AdamW."""
    gradient_norm: float = 2.0
    """Longer gradients are cut to this length."""
    averaging: float = 0.998
    """Share of the running average of the weights that a step leaves; the average is what is kept."""
    moved: float = 0.6
    """Share of the views whose points are moved by random errors: what counts is the picture."""
    moved_by: float = 0.8
    """Standard deviation of that, at most, over that of the tracker's errors."""
    covered: float = 0.25
    """Share of the views in which a rectangle is covered; half of them know."""
    seed: int = 0
    """Seed of everything random."""


@dataclass(frozen=True)
class LandmarkTraining:
    """Train the network. The defaults are the recipe of the shipped weights."""

    out: Path
    """File of the weights (safetensors)."""
    recipe: Annotated[LandmarkRecipe, tyro.conf.OmitArgPrefixes] = field(default_factory=LandmarkRecipe)
    """What decides about the weights."""
    time_limit: float | None = None
    """Minutes after which the training ends, the rate falling accordingly."""
    report_every: int = 200
    """Steps."""

    @property
    def views(self) -> Path:
        """Where the pictures are kept."""
        return self.out.with_suffix(".views")


class Looks:
    """Draws batches of what the network sees, what it is told, and what it should say."""

    def __init__(self, network: LandmarkNetwork, views: LandmarkViews, recipe: LandmarkRecipe) -> None:
        self._network, self._views, self._recipe = network, views, recipe
        self._rng = np.random.default_rng([recipe.seed, 1])
        self._deviations = np.ones(0)
        rest = mean_points()[:LANDMARKS]
        self._mirror = _other_side(rest)
        self._affine = np.linalg.pinv(np.concatenate([rest, np.ones((LANDMARKS, 1))], 1))[:3]
        self._uneven = rest - rest[self._mirror] * [-1, 1, 1]
        """(468, 3) by how much points of both sides aren't mirror images; the tracker's aren't, neither."""

    def learn_components(self, rows: Int) -> None:
        """Set the network's mean and principal components of errors and points from some views."""
        rows = self._rng.permutation(rows)[:BASIS_VIEWS]
        tracked, true = (
            part[rows, :LANDMARKS].astype(np.float64) for part in (self._views.tracked, self._views.true)
        )
        errors = ((true - tracked) / FACE_SIZE).reshape(len(rows), -1)
        points = ((tracked - tracked.mean(1, keepdims=True)) / FACE_SIZE).reshape(len(rows), -1)
        config, network = self._network.config, self._network
        mean, basis, self._deviations = _components(errors, config.components)
        network.error_mean.copy_(torch.from_numpy(mean))
        network.error_basis.copy_(torch.from_numpy(basis))
        mean, basis, deviations = _components(points, config.described)
        network.points_mean.copy_(torch.from_numpy(mean))
        network.points_basis.copy_(torch.from_numpy(basis / deviations[:, None]))

    def draw(self, rows: Int) -> tuple[Tensor, Tensor, Tensor]:
        """Views of these numbers, changed at random."""
        recipe, rng = self._recipe, self._rng
        views = self._views
        pictures, points, true = views.pictures[rows], views.tracked[rows], views.true[rows]
        for number in np.flatnonzero(rng.uniform(size=len(rows)) < 0.5):
            pictures[number] = pictures[number, :, ::-1]
            points[number], true[number] = self._mirrored(points[number], true[number])
        amount = recipe.moved_by * rng.uniform(size=len(rows)) * (rng.uniform(size=len(rows)) < recipe.moved)
        basis = self._network.error_basis.numpy()
        errors = (amount[:, None] * rng.normal(size=(len(rows), len(basis))) * self._deviations) @ basis
        points[:, :LANDMARKS] += FACE_SIZE * errors.reshape(len(rows), LANDMARKS, 2)
        looks, described, offsets = self._taken(pictures, points, true)
        return self._spoilt(looks), described, offsets

    def take(self, rows: Int) -> tuple[Tensor, Tensor, Tensor]:
        """Views of these numbers as they are: looks (B, 3, side, side), descriptions (B, D) and offsets (B, 468, 2) in
        shares of the face's size."""
        views = self._views
        return self._taken(views.pictures[rows], views.tracked[rows], views.true[rows])

    def _taken(self, pictures: U8, points: F32, true: F32) -> tuple[Tensor, Tensor, Tensor]:
        layout = self._network.layout
        looks = np.stack([layout.look(*each) for each in zip(pictures, points, strict=True)])
        offsets = (true - points)[:, :LANDMARKS] / np.float32(FACE_SIZE)
        described = self._network.describe(torch.from_numpy(points))
        return torch.from_numpy(looks), described, torch.from_numpy(offsets)

    def _mirrored(self, tracked: F32, true: F32) -> tuple[F32, F32]:
        """Landmarks (478, 2) of the mirror image of a view."""
        flipped = [points[self._mirror] * [-1, 1] + [SIDE - 1, 0] for points in (tracked, true)]
        uneven = self._uneven @ (self._affine @ flipped[0])
        ends = [np.concatenate([points + uneven, tracked[LANDMARKS:]]) for points in flipped]
        return ends[0].astype(np.float32), ends[1].astype(np.float32)

    def _spoilt(self, looks: Tensor) -> Tensor:
        """Looks with other contrast, noise, and rectangles that are covered."""
        rng, side, values = self._rng, looks.shape[-1], looks.numpy()
        count = (len(values), 1, 1, 1)
        values[:, :2] *= np.exp(rng.normal(0, 0.12, count)).astype(np.float32)
        noise = rng.uniform(0, 0.25, count) * (rng.uniform(size=count) < 0.5)
        values[:, :2] += (noise * rng.normal(size=(len(values), 2, side, side))).astype(np.float32)
        for value in values:
            if rng.uniform() < self._recipe.covered:
                top, left = rng.integers(0, side, 2)
                height, width = rng.integers(side // 12, side // 3 + side // 24, 2)
                rectangle = value[:, top : top + height, left : left + width]
                rectangle[:2] = rng.normal() if rng.uniform() < 0.5 else 0
                rectangle[2] *= rng.uniform() < 0.5
        return torch.from_numpy(values)


def _other_side(rest: F64) -> Int:
    """(L,) which of points (L, 3) is the one on the other side of the face."""
    from scipy.optimize import linear_sum_assignment

    distance = np.square(rest[:, None] * [-1, 1, 1] - rest[None]).sum(-1)
    return np.asarray(linear_sum_assignment(distance + distance.T)[1], np.int64)


def _components(values: F64, count: int) -> tuple[F64, F64, F64]:
    """Mean (F,), principal components (count, F), orthonormal, and standard deviations (count,) of values (N, F)."""
    mean = values.mean(0)
    _, sizes, directions = np.linalg.svd(values - mean, full_matrices=False)
    if len(directions) < count:
        raise AvfaceError(f"{len(values)} views are too few for {count} components; make more people")
    return mean, directions[:count], np.maximum(sizes[:count] / np.sqrt(len(values)), 1e-9)


def train(training: LandmarkTraining) -> LandmarkNetwork:
    """Make the pictures if they aren't there yet, train, and write the weights.

    Raises:
        AvfaceError: if a file can't be written, there are too few people, or the loss isn't finite.
    """
    recipe = training.recipe
    paths = prepare_views(
        training.views,
        recipe.views,
        lambda done: print(f"{done} of {recipe.views.people} people", flush=True),
    )
    views = LandmarkViews.load(paths)
    torch.manual_seed(recipe.seed)
    rng = np.random.default_rng([recipe.seed, 0])
    held_out = views.person % HELD_OUT == HELD_OUT - 1
    learnt, tested = np.flatnonzero(~held_out), np.flatnonzero(held_out & ~views.warped)
    network = LandmarkNetwork(recipe.network, Layout.of(mean_points(), recipe.network.side))
    looks = Looks(network, views, recipe)
    looks.learn_components(learnt)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # typeshed lacks it
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging), use_buffers=False)
    optimiser = torch.optim.AdamW(
        network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    progress = Progress()
    with Bar(*bar_columns()) as bar:
        task = bar.add_task("landmarks", total=recipe.steps, note="")
        descent = Descent(training, network, average, optimiser, progress, bar, task)
        while (share := descent.share(progress.step / recipe.steps)) < 1:
            seen, described, offsets = looks.draw(
                rng.choice(learnt, min(recipe.batch, len(learnt)), replace=False)
            )
            with torch.autocast("cpu", torch.bfloat16):
                said = network(seen.to(memory_format=torch.channels_last), described)
            rate = warmed_cosine(recipe.learning_rate, progress.step + 1, recipe.warm_up, share)
            descent.step({"loss": _loss(said, offsets)}, rate)
    result = average.module
    assert isinstance(result, LandmarkNetwork)
    _settle(result, looks, learnt, rng)
    result.eval()
    before, after = errors(result, looks, tested)
    print(f"{len(np.unique(views.person[tested]))} other people: {before:.3f} % before, {after:.3f} % after")
    save_landmark_network(result, training.out, descent.metadata())
    return result


def errors(network: LandmarkNetwork, looks: Looks, rows: Int, batch: int = 64) -> tuple[float, float]:
    """Mean distance of landmarks from where they should be, per cent of the face's size: tracked, and refined."""
    sums = np.zeros(2)
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            seen, described, offsets = looks.take(rows[start : start + batch])
            left = offsets - network(seen, described)
            sums += [float(part.norm(dim=-1).mean(1).sum()) for part in (offsets, left)]
    before, after = 100 * sums / max(len(rows), 1)
    return float(before), float(after)


def _loss(said: Tensor, wanted: Tensor) -> Tensor:
    """Pseudo-Huber distance in per cent of the face's size."""
    square = (100 * (said - wanted)).square().sum(-1)
    return USUAL**2 * (torch.sqrt(1 + square / USUAL**2) - 1).mean()


def _settle(network: LandmarkNetwork, looks: Looks, rows: Int, rng: np.random.Generator) -> None:
    """Give the averaged network means and variances of its own for its normalisations."""
    normalisations = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for part in normalisations:
        part.reset_running_stats()
        part.momentum = None  # a plain average
    network.train()
    with torch.inference_mode():
        for _ in range(24):
            seen, described, _ = looks.draw(rng.choice(rows, min(64, len(rows)), replace=False))
            network(seen, described)
    for part in normalisations:
        part.momentum = 0.1


def mean_points() -> F64:
    """The landmarks (478, 3) of the mean head."""
    head = load_head()
    return head.embedding("mediapipe478").on(head.template.numpy())


def main() -> None:
    """Train as the command says."""
    try:
        train(tyro.cli(LandmarkTraining, description=__doc__))
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
