"""The steps of an optimiser: rates, gradients of limited length, averaged weights, reports."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from avface.errors import AvfaceError
from avface.training.loop.checkpoint import Progress, save_checkpoint


class DescentRecipe(Protocol):
    """What decides about the weights: a dataclass that JSON can keep."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def gradient_norm(self) -> float:
        """Longer gradients are cut to this length."""


class DescentSettings(Protocol):
    """What a training says about its steps."""

    @property
    def out(self) -> Path:
        """File of the weights."""

    @property
    def recipe(self) -> DescentRecipe:
        """What decides about the weights."""

    @property
    def time_limit(self) -> float | None:
        """Minutes of training, if they end it."""

    @property
    def report_every(self) -> int:
        """Steps between two reports of the losses."""


@dataclass
class Descent:
    """A run of an optimiser down the losses of a network."""

    training: DescentSettings
    """What is asked for."""
    network: nn.Module
    """What learns."""
    average: AveragedModel
    """The running average of its weights."""
    optimiser: Optimizer
    """What moves them."""
    progress: Progress
    """Steps done and the seconds that they took; it counts on."""
    bar: Bar
    """Where reports are shown."""
    task: TaskID
    """The bar's line for this; its field `note` gets the losses."""
    _losses: dict[str, list[float]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        self._began = time.monotonic() - self.progress.seconds

    def share(self, steps: float) -> float:
        """How much of the run is over, when this share of its steps is: more if its time is shorter."""
        limit = self.training.time_limit
        return steps if limit is None else max(steps, self.progress.seconds / (60 * limit))

    def step(self, losses: dict[str, Tensor], rate: float) -> None:
        """One step down the sum of losses that have names.

        Raises:
            AvfaceError: if it isn't finite.
        """
        loss = torch.stack(list(losses.values())).sum()
        if not bool(torch.isfinite(loss)):
            raise AvfaceError(
                f"{self.training.out}: the loss isn't finite at step {self.progress.step}; begin anew with a "
                "lower learning rate"
            )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.training.recipe.gradient_norm)
        self.optimiser.step()
        self.average.update_parameters(self.network)
        self.progress.step += 1
        self.progress.seconds = time.monotonic() - self._began
        for name, value in losses.items():
            self._losses.setdefault(name, []).append(float(value.detach()))
        if self.progress.step % self.training.report_every == 0:
            self._report()

    def _report(self) -> None:
        """Show the means of the losses since the last report, each over the steps that had it."""
        note = "  ".join(f"{name} {np.mean(values):.4f}" for name, values in self._losses.items())
        step, seconds = self.progress.step, self.progress.seconds
        self.bar.update(self.task, completed=step, note=note)
        if not self.bar.console.is_terminal:  # a log file, in which there is no bar
            self.bar.console.print(f"step {step}, {seconds:.0f} s: {note}", soft_wrap=True)
        self._losses.clear()

    def keep(self, checkpoint: Path, kind: str) -> None:
        """Write the state with which the run goes on.

        Raises:
            AvfaceError: if the file can't be written.
        """
        save_checkpoint(
            checkpoint,
            kind,
            asdict(self.training.recipe),
            self.network,
            self.average,
            self.optimiser,
            self.progress,
        )

    def metadata(self) -> dict[str, str]:
        """What a file of the weights says about how they came about."""
        return {
            "recipe": json.dumps(asdict(self.training.recipe)),
            "step": str(self.progress.step),
            "seconds": f"{self.progress.seconds:.0f}",
        }


def warmed_cosine(highest: float, step: int, warm_up: int, share: float) -> float:
    """Learning rate that rises in a line for `warm_up` steps and falls as a cosine; `share` of the run is over."""
    return highest * min(1.0, step / max(1, warm_up)) * (0.5 + 0.5 * float(np.cos(np.pi * share)))


def bar_columns() -> tuple[ProgressColumn, ...]:
    """Columns of a training's progress bar; each task has a field `note`."""
    return (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
