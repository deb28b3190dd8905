"""Configuration of a training run: learning-rate schedule (linear warm-up, cosine decay), gradient clipping,
exponential moving average of the weights, device, time limit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tyro
from torch import Tensor
from torch.optim.swa_utils import get_ema_multi_avg_fn

from avface.errors import AvfaceError

Device = Literal["cpu", "cuda", "mps"]
Decay = Literal["cosine", "constant"]


def check_positive(config: object, *names: str) -> None:
    """Refuse fields of a config that aren't above 0.

    Raises:
        AvfaceError: naming the first such field and its value.
    """
    for name in names:
        if not getattr(config, name) > 0:
            raise AvfaceError(f"{name}={getattr(config, name)} must be positive")


def check_not_negative(config: object, *names: str) -> None:
    """Refuse fields of a config that are below 0.

    Raises:
        AvfaceError: naming the first such field and its value.
    """
    for name in names:
        if not getattr(config, name) >= 0:
            raise AvfaceError(f"{name}={getattr(config, name)} must not be negative")


def check_shares(config: object, *names: str) -> None:
    """Refuse fields of a config that aren't from 0 to 1.

    Raises:
        AvfaceError: naming the first such field and its value.
    """
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise AvfaceError(f"{name}={getattr(config, name)} must be a share from 0 to 1")


def check_averaging(config: Any) -> None:
    """Refuse a decay of the exponential moving average that isn't from 0 to below 1.

    Raises:
        AvfaceError: naming its value.
    """
    if not 0 <= config.averaging < 1:
        raise AvfaceError(f"averaging={config.averaging} must be from 0 to below 1")


@dataclass(frozen=True)
class RunConfig:
    """Where and how long a run computes. Only `time_limit` affects the weights, if it ends the run."""

    device: Device = "cpu"
    """Type of the device that computes."""
    threads: int = 1
    """CPU threads of each process."""
    time_limit: float | None = None
    """Minutes of training, including those before a checkpoint; the learning rate decays until then."""
    checkpoint_every: int = 250
    """Steps between checkpoints."""
    report_every: int = 50
    """Steps between reports of the mean losses."""
    log: Path | None = None
    """Folder for TensorBoard."""
    quiet: tyro.conf.Suppress[bool] = False
    """Whether progress and reports are left out."""

    def __post_init__(self) -> None:
        for name in ("threads", "checkpoint_every", "report_every"):
            if getattr(self, name) < 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be at least 1")
        if self.time_limit is not None and not self.time_limit > 0:
            raise AvfaceError(f"time_limit={self.time_limit} must be above 0 minutes")


@dataclass(frozen=True)
class Optimisation:
    """Steps, learning rate, gradient clipping and weight averaging of a run, as its recipe says."""

    steps: int
    """Steps of the optimiser."""
    learning_rate: float
    """Highest learning rate."""
    warm_up: int
    """Steps until the highest rate."""
    gradient_norm: float
    """Gradients are clipped to this norm."""
    averaging: float
    """Decay of the exponential moving average (EMA) of the weights."""
    decay: Decay = "cosine"
    """Whether the rate falls to zero as a cosine over the run."""
    pretraining_steps: int = 0
    """Steps before `steps`, for which the training has losses and a learning rate of its own."""
    averaging_warm_up: bool = False
    """Whether the average keeps less during the first steps."""
    average_buffers: bool = False
    """Whether buffers are averaged, too."""

    def rate(self, step: int, progress: float) -> float:
        """Learning rate of step number `step` after a share `progress` of the run: linear warm-up, then decay."""
        step -= self.pretraining_steps
        if self.decay == "constant":
            progress = 0.0
        return warm_up_cosine(self.learning_rate, step + 1, self.warm_up, progress)

    def average(self) -> Callable[[Any, Any, Any], None]:
        """Update of the moving average, as `torch.optim.swa_utils.AveragedModel` takes it."""
        if not self.averaging_warm_up:
            return get_ema_multi_avg_fn(self.averaging)

        def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
            kept = min(self.averaging, (1 + int(count)) / (10 + int(count)))
            for old, new in zip(averaged, current, strict=True):
                old.lerp_(new.to(old), 1 - kept)

        return update


def warm_up_cosine(highest: float, step: int, warm_up: int, progress: float) -> float:
    """Learning rate with linear warm-up over `warm_up` steps and cosine decay over the run (`progress` 0 to 1)."""
    return highest * min(1.0, step / max(1, warm_up)) * (0.5 + 0.5 * float(np.cos(np.pi * progress)))
