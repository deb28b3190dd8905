"""The training loop: learning rate, gradient clipping, exponential moving average of the weights, reports, validation
and checkpoints."""

from __future__ import annotations

import copy
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from avface.errors import AvfaceError
from avface.files import replacing
from avface.training.loop.checkpoint import Progress, damaged, load_checkpoint, save_checkpoint
from avface.training.loop.config import Optimisation, RunConfig
from avface.training.loop.devices import Devices, SingleDevice
from avface.training.loop.reporting import Reporter, TensorBoard

Network = TypeVar("Network", bound=nn.Module)
Batch = TypeVar("Batch")


class Task(ABC, Generic[Network, Batch]):
    """What a training supplies to the `Trainer`: network, batches, losses, validation, and how weights are saved."""

    name: str
    """Label of the progress bar."""
    checkpoint_format: ClassVar[str]
    """Format line of its checkpoints: training and version."""
    recipe: Mapping[str, Any]
    """Everything that decides about the weights, as JSON can store it."""
    optimisation: Optimisation
    """Steps, rates, clipping, averaging."""
    network: Network
    """The network that is trained."""
    optimiser: Optimizer
    """Over its parameters."""
    devices: Devices
    """What computes."""
    validate_every: int = 0
    """Steps between validations; 0: none."""
    saves_at_checkpoints: bool = True
    """Whether the averaged weights are ready for use at any step, and not only after `finish`."""

    @property
    def module(self) -> nn.Module:
        """The module whose forward pass needs gradients: the network itself, or losses around it."""
        return self.network

    def initialise(self) -> None:
        """Set what first weights need from the data; only where there is no checkpoint."""

    def move(self) -> None:
        """Move the network to the device."""
        self.network.to(self.devices.device)

    @abstractmethod
    def batches(self, first: int) -> Iterator[Batch]:
        """Batches from a step on."""

    @abstractmethod
    def losses(self, module: Any, batch: Batch, step: int) -> dict[str, Tensor]:
        """Weighted losses by name; module: `self.module`, wrapped for the devices."""

    def learning_rate(self, step: int, progress: float) -> float:
        """Learning rate of a step after a share `progress` of the run."""
        return self.optimisation.rate(step, progress)

    def validate(self, network: Network) -> dict[str, float]:
        """Errors of a copy of the averaged network, in evaluation mode, by name."""
        return {}

    def pictures(self, network: Network, batch: Batch) -> Tensor | None:
        """Pictures (N, 3, H, W) for the log."""
        return None

    def random_state(self) -> dict[str, Any]:
        """State of random streams that go on from step to step, as JSON can store it."""
        return {}

    def set_random_state(self, state: dict[str, Any]) -> None:
        """Restore what `random_state` returned."""

    def finish(self, network: Network) -> dict[str, float]:
        """Complete the averaged network after the last step; returns errors by name."""
        return {}

    @abstractmethod
    def save(self, network: Network, path: Path, metadata: dict[str, str]) -> None:
        """Write the averaged weights."""


@dataclass(frozen=True, eq=False)
class RunResult(Generic[Network]):
    """What a run ends with."""

    network: Network
    """The averaged weights, on the CPU and in evaluation mode."""
    progress: Progress
    """Steps, time and losses."""
    waiting: float
    """Share of this session's time spent waiting for batches."""
    errors: dict[str, float]
    """Of the last validation; empty without one."""

    def __str__(self) -> str:
        minutes = self.progress.seconds / 60
        return f"{self.progress.step} steps in {minutes:.1f} min, {self.waiting:.0%} of the time waiting for batches"


class Trainer(Generic[Network, Batch]):
    """Runs the optimiser of a task until its steps or its time are over, from the checkpoint if there is one."""

    def __init__(
        self, task: Task[Network, Batch], config: RunConfig, out: Path, checkpoint: Path | None = None
    ) -> None:
        """out: file of the weights; checkpoint: by default `checkpoint_path(out)`.

        Raises:
            AvfaceError: if the checkpoint is damaged or belongs to another recipe.
        """
        self.task, self.config, self.out = task, config, out
        self.checkpoint = checkpoint or checkpoint_path(out)
        self.devices = task.devices
        resumes = self.checkpoint.exists()
        if not resumes:
            task.initialise()
        optimisation = task.optimisation
        self.average = AveragedModel(
            task.network, multi_avg_fn=optimisation.average(), use_buffers=optimisation.average_buffers
        )
        task.move()
        self.module, self.optimiser = self.devices.setup(task.module, task.optimiser)
        self.average.to(self.devices.device)
        self.progress = Progress()
        if resumes:
            self.progress = load_checkpoint(
                self.checkpoint,
                task.checkpoint_format,
                task.recipe,
                task.network,
                self.average,
                task.optimiser,
            )
            self._set_random_state()
        self.errors: dict[str, float] = {}
        self._totals: list[float] = []
        self._losses: dict[str, list[float]] = {}
        self._reporter = Reporter(config.quiet or not self.devices.is_global_zero)
        self._board = TensorBoard(config.log if self.devices.is_global_zero else None)

    def _set_random_state(self) -> None:
        try:
            self.task.set_random_state(self.progress.random_state)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise damaged(self.checkpoint, f"random state: {error}") from None

    @property
    def averaged(self) -> Network:
        """The network with averaged weights."""
        return self.average.module  # type: ignore[return-value]

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        return self.task.optimisation.pretraining_steps + self.task.optimisation.steps

    def run(self) -> RunResult[Network]:
        """Train until steps or time are over, and write checkpoint and weights.

        Raises:
            AvfaceError: if the loss isn't finite, or a file can't be written.
        """
        waited, began = 0.0, time.monotonic()
        before = self.progress.seconds
        batches = self.task.batches(self.progress.step)
        batch: Batch | None = None
        self.task.network.train()
        with self._reporter as reporter:
            bar = reporter.task(self.task.name, self.total_steps, self.progress.step)
            while (share := self.share()) < 1:
                asked = time.monotonic()
                batch = next(batches)
                waited += time.monotonic() - asked
                self.step(batch, share)
                self.progress.seconds = before + time.monotonic() - began
                step = self.progress.step
                if step % self.config.report_every == 0:
                    note = self._report(waited / max(1e-9, time.monotonic() - began))
                    reporter.report(bar, step, self.progress.seconds, note)
                if self.task.validate_every and step % self.task.validate_every == 0:
                    self._validate(batch)
                if step % self.config.checkpoint_every == 0:
                    self._save()
        self._save(last=True)
        if self.task.validate_every and self.progress.step % self.task.validate_every:
            self._validate(batch)
        self._board.close()
        waiting = waited / max(1e-9, time.monotonic() - began)
        return RunResult(self.averaged.cpu().eval(), self.progress, waiting, self.errors)

    def share(self) -> float:
        """How much of the run is over: by its steps, or by its time if that is more. The same in all processes."""
        optimisation = self.task.optimisation
        share = (self.progress.step - optimisation.pretraining_steps) / optimisation.steps
        if self.config.time_limit is not None:
            timed = self.progress.seconds / (60 * self.config.time_limit)
            share = max(share, float(self.devices.broadcast(timed)))
        return share

    def step(self, batch: Batch, share: float) -> None:
        """One step of the optimiser; share: how much of the run is over.

        Raises:
            AvfaceError: if the loss isn't finite; the weights are left as they were.
        """
        step = self.progress.step
        for group in self.optimiser.param_groups:
            group["lr"] = self.task.learning_rate(step, share)
        self.optimiser.zero_grad()
        losses = self.task.losses(self.module, batch, step)
        total = total_loss(losses)
        if not bool(torch.isfinite(total)):
            raise AvfaceError(
                f"{self.out}: the loss isn't finite at step {step}; delete {self.checkpoint.name} and train again with "
                "a lower learning rate"
            )
        self.devices.backward(total)
        self.devices.clip_gradients(
            self.module, self.optimiser, max_norm=self.task.optimisation.gradient_norm
        )
        self.optimiser.step()
        self.average.update_parameters(self.task.network)
        self.progress.step += 1
        self._totals.append(float(total.detach()))
        for name, value in losses.items():
            self._losses.setdefault(name, []).append(float(value.detach()))

    def _report(self, waiting: float) -> str:
        """Means of the losses since the last report, each over the steps that had it; also stored and logged."""
        means = {name: float(np.mean(values)) for name, values in self._losses.items()}
        mean = sum(self._totals) / len(self._totals)
        self.progress.losses.append(mean)
        self._totals.clear()
        self._losses.clear()
        self._board.numbers("loss", {"total": mean, **means}, self.progress.step)
        self._board.numbers("run", {"waiting": waiting}, self.progress.step)
        note = "  ".join(f"{name} {value:.4f}" for name, value in {"loss": mean, **means}.items())
        return f"{note}  waiting {waiting:.0%}"

    def metadata(self) -> dict[str, str]:
        """Provenance that is stored with the weights."""
        return {
            "recipe": json.dumps(self.task.recipe),
            "step": str(self.progress.step),
            "seconds": f"{self.progress.seconds:.0f}",
            "device": self.config.device,
        }

    def _save(self, last: bool = False) -> None:
        """Write checkpoint and weights."""
        if self.devices.is_global_zero:
            self.progress.random_state = self.task.random_state()
            save_checkpoint(
                self.checkpoint,
                self.task.checkpoint_format,
                self.task.recipe,
                self.task.network,
                self.average,
                self.task.optimiser,
                self.progress,
            )
            if last:
                self._report_errors(self.task.finish(self.averaged))
            if last or self.task.saves_at_checkpoints:
                self.task.save(self.averaged, self.out, self.metadata())
        self.devices.barrier()

    def _validate(self, batch: Batch | None) -> None:
        """Errors of the averaged weights, printed and logged."""
        if self.devices.is_global_zero:
            network = copy.deepcopy(self.averaged).eval()
            self._report_errors(self.task.validate(network))
            if batch is not None and self._board:
                pictures = self.task.pictures(self.averaged, batch)
                if pictures is not None:
                    self._board.pictures("predictions", pictures, self.progress.step)
        self.devices.barrier()

    def _report_errors(self, errors: dict[str, float]) -> None:
        if errors:
            self.errors = errors
            line = "  ".join(f"{name} {value:.3g}" for name, value in errors.items())
            self._reporter.line(f"step {self.progress.step}: {line}")
            self._board.numbers("validation", errors, self.progress.step)


def total_loss(losses: Mapping[str, Tensor]) -> Tensor:
    """The sum of losses, in single precision."""
    return torch.stack([value.float() for value in losses.values()]).sum()


def checkpoint_path(out: Path) -> Path:
    """Where the checkpoint of a run is, beside its weights."""
    return out.with_name(f"{out.stem}.checkpoint.safetensors")


def begin_run(config: RunConfig, out: Path) -> SingleDevice:
    """Make the folder of the weights, set the number of threads, and take the device.

    Raises:
        AvfaceError: if the folder can't be made.
    """
    make_folder_of(out)
    torch.set_num_threads(config.threads)
    return SingleDevice(config.device)


def claim_folder(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Note the recipe of the material that a folder holds, in recipe.json; the folder is made if it is missing.

    Raises:
        AvfaceError: if it holds material of another recipe, or can't be written.
    """
    note = folder / "recipe.json"
    written = json.dumps(recipe, indent=1)
    make_folder_of(note)
    if note.exists() and note.read_text(encoding="utf-8") != written:
        raise AvfaceError(f"{folder}: holds a run with another recipe; name another folder with --work")
    with replacing(note) as temporary:
        temporary.write_text(written, encoding="utf-8")


def make_folder_of(out: Path) -> None:
    """Make the folder that a run's files will be in.

    Raises:
        AvfaceError: if that can't be done.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AvfaceError(f"{out}: can't be written ({error.strerror}); name another --out") from None
