"""The steps that trainings have in common."""

import io
import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console
from rich.progress import Progress as Bar
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from avface.errors import AvfaceError
from avface.training.loop.checkpoint import Progress
from avface.training.loop.trainer import Descent, bar_columns, warmed_cosine


@dataclass(frozen=True)
class Recipe:
    gradient_norm: float = 1e9


@dataclass(frozen=True)
class Training:
    out: Path = Path("weights.safetensors")
    recipe: Recipe = field(default_factory=Recipe)
    time_limit: float | None = None
    report_every: int = 2


def descent(training=None, progress=None):
    """Down the square of a weight that begins at 3."""
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(network.weight, 3.0)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(0.5))
    bar = Bar(*bar_columns(), console=Console(file=io.StringIO(), width=200))
    optimiser = torch.optim.SGD(network.parameters(), lr=1.0)
    task = bar.add_task("square", total=10, note="")
    return Descent(training or Training(), network, average, optimiser, progress or Progress(), bar, task)


def weight(network):
    return float(next(network.parameters()).detach())


def square(down, factor=1.0):
    return {"square": factor * down.network.weight.square().sum()}


def test_a_step_follows_the_sum_of_the_losses_and_the_average_follows_the_weights():
    down = descent()
    down.step({**square(down), "linear": down.network.weight.sum()}, 0.1)
    assert weight(down.network) == pytest.approx(3 - 0.1 * (2 * 3 + 1))
    first = weight(down.network)
    down.step(square(down), 0.1)
    assert weight(down.average.module) == pytest.approx((first + weight(down.network)) / 2)
    assert down.progress.step == 2 and down.progress.seconds > 0


def test_long_gradients_are_cut():
    down = descent(Training(recipe=Recipe(gradient_norm=0.5)))
    down.step(square(down), 1.0)
    assert weight(down.network) == pytest.approx(2.5, abs=1e-4)


def test_reports_are_means_over_the_steps_that_had_a_loss():
    down = descent()
    down.step({"often": down.network.weight.sum(), "seldom": down.network.weight.sum() + 5}, 0.0)
    down.step({"often": down.network.weight.sum() + 1}, 0.0)
    assert down.bar.console.file.getvalue() == "step 2, 0 s: often 3.5000  seldom 8.0000\n"
    assert down.bar.tasks[0].completed == 2


def test_a_loss_that_is_not_finite_ends_the_run_before_it_does_harm():
    down = descent(progress=Progress(step=7))
    with pytest.raises(AvfaceError, match=r"weights\.safetensors.*step 7"):
        down.step(square(down, float("nan")), 0.1)
    assert weight(down.network) == 3 and down.progress.step == 7


def test_the_time_limit_may_end_a_run_first():
    late = Progress(step=1, seconds=45.0)
    assert descent(progress=late).share(0.1) == 0.1
    limited = descent(Training(time_limit=1.0), progress=late)
    assert limited.share(0.1) == 0.75 and limited.share(0.9) == 0.9
    limited.step(square(limited), 0.1)
    assert limited.progress.seconds >= 45, "those before a checkpoint included"
    assert limited.metadata()["step"] == "2" and json.loads(limited.metadata()["recipe"]) == {
        "gradient_norm": 1e9
    }


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine():
    rates = [warmed_cosine(2.0, step, 4, share) for step, share in ((2, 0), (4, 0), (36, 0.5), (36, 1))]
    np.testing.assert_allclose(rates, [1, 2, 1, 0], atol=1e-12)
    assert warmed_cosine(2.0, 1, 0, 0.0) == 2.0, "without a rise"
