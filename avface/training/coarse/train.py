"""Training of the coarse stage's networks.

    python -m avface.training.coarse.train default SHARDS --out coarse.safetensors
    python -m avface.training.coarse.train occlusion SHARDS --start coarse.safetensors --out occlusion.safetensors
    torchrun --nproc-per-node 4 -m avface.training.coarse.train default-image SHARDS --out c.safetensors --device cuda

SHARDS is what `avface data prepare` has made. A run that was stopped goes on from its checkpoint, beside the weights,
when the same command is given again. `default` keeps everything in memory and its batches are made by seed and step.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
import tyro
from rich.progress import Progress as Bar
from torch import Tensor, nn
from torch.optim import Adam, AdamW, Optimizer
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader

from avface.errors import AvfaceError
from avface.head.model import HeadModel, load_head
from avface.networks.coarse.model import CoarseNetworks, load_networks, save_networks
from avface.networks.coarse.video import LandmarksEncoder
from avface.networks.frames import Frames
from avface.training.coarse import recipes
from avface.training.coarse.batches import Batch, LandmarkBatches, joined
from avface.training.coarse.face_points import FacePoints
from avface.training.coarse.landmark_simulation import prepare_performances
from avface.training.coarse.objective import SupervisedObjective, Total, projected_points
from avface.training.coarse.recipes import Recipe
from avface.training.coarse.tracked_takes import TrackedTakes, read_tracked_takes
from avface.training.coarse.validation import draw_windows, validate
from avface.training.loop.checkpoint import Progress, load_checkpoint, make_folder_of, save_checkpoint
from avface.training.loop.trainer import bar_columns

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CHECKPOINT = "avface coarse training 1"

Precision = Literal["32-true", "bf16-mixed", "16-mixed"]


@dataclass(frozen=True)
class Session:
    """Where and how long a run computes. Nothing of it decides about the weights but `time_limit`, if it ends a run."""

    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """What computes."""
    devices: int = 1
    """How many of them in this machine; under torchrun it says itself."""
    nodes: int = 1
    """Machines, under torchrun."""
    precision: Precision = "32-true"
    """Of the networks' arithmetic."""
    threads: int = 1
    """CPU threads of each process."""
    workers: int = 1
    """Processes that make batches; 0 makes them in between."""
    time_limit: float | None = None
    """Minutes of training, those before a checkpoint included: the learning rate falls so that the run ends by then."""
    checkpoint_every: int = 500
    """Steps between checkpoints; weights are written then too."""
    report_every: int = 50
    """Steps between two reports of the losses."""
    validate_every: int = 1000
    """Steps between two looks at the validation split; 0 never looks."""
    validation_takes: int = 24
    """Takes that are looked at."""
    log: Path | None = None
    """Folder for TensorBoard."""

    def __post_init__(self) -> None:
        for name in ("devices", "nodes", "threads", "checkpoint_every", "report_every"):
            if getattr(self, name) < 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be at least 1")
        if self.time_limit is not None and not self.time_limit > 0:
            raise AvfaceError(f"time_limit={self.time_limit} must be above 0 minutes")


@dataclass(frozen=True)
class Training:
    """Train the coarse networks by a recipe."""

    shards: tyro.conf.Positional[Path]
    """Folder of shards."""
    recipe: Recipe
    """What decides about the weights."""
    out: Path = Path("coarse.safetensors")
    """File of the weights; checkpoint and prepared performances lie beside it."""
    head: str | None = None
    """The head model's name or file, if it isn't the one of that name the recipe's networks are about."""
    albedo_space: Path | None = None
    """FLAME's texture space (.npz) for `paper`; skin has one colour without it."""
    start: Path | None = None
    """Weights to begin with, of the same networks."""
    session: Session = field(default_factory=Session)
    """Where and how long."""

    @property
    def checkpoint(self) -> Path:
        """Where the run's state is kept."""
        return self.out.with_name(f"{self.out.stem}.checkpoint.safetensors")


@dataclass(frozen=True)
class OcclusionTraining:
    """Go on training weights with most faces partly hidden (AVFace 3.4)."""

    shards: tyro.conf.Positional[Path]
    """Folder of shards."""
    start: Path
    """Weights of any recipe."""
    out: Path = Path("coarse-occlusion.safetensors")
    """File of the weights; checkpoint and prepared performances lie beside it."""
    head: str | None = None
    """The head model's name or file, if it isn't the one of that name the recipe's networks are about."""
    albedo_space: Path | None = None
    """FLAME's texture space (.npz) for weights of `paper`; skin has one colour without it."""
    steps: int | None = None
    """Steps; a quarter of the first training's if not given."""
    batch: int | None = None
    """Windows a step; the first training's if not given."""
    learning_rate: float | None = None
    """Highest rate; 0.4 of the first training's if not given."""
    seed: int = 1
    """Seed of everything random."""
    session: Session = field(default_factory=Session)
    """Where and how long."""

    def training(self) -> Training:
        """The training that this is, by the recipe that the weights were trained with.

        Raises:
            AvfaceError: if the weights can't be read or don't say their recipe.
        """
        base = recipe_of(self.start)
        if not base.name.endswith("+occlusion"):
            base = recipes.occlusion(base)
        chosen = {
            name: getattr(self, name)
            for name in ("steps", "batch", "learning_rate")
            if getattr(self, name) is not None
        }
        recipe = replace(base, seed=self.seed, **chosen)
        return Training(self.shards, recipe, self.out, self.head, self.albedo_space, self.start, self.session)


def recipe_of(path: Path) -> Recipe:
    """The recipe that weights were trained by.

    Raises:
        AvfaceError: if the file isn't readable or has no recipe of this version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            text = (file.metadata() or {}).get("recipe", "")
        return recipes.read_recipe(text)
    except FileNotFoundError:
        raise AvfaceError(f"{path}: no such file; train a recipe first") from None
    except (SafetensorError, OSError) as error:
        raise AvfaceError(f"{path}: not a readable weights file ({error}); train it again") from None
    except ValueError as error:
        raise AvfaceError(f"{path}: {error}; train it again") from None


@dataclass(frozen=True)
class Outcome:
    """What a run ended with."""

    networks: CoarseNetworks
    """The averaged weights, in evaluation mode."""
    progress: Progress
    """Steps, time and losses."""
    waiting: float
    """Share of this session's time spent waiting for batches."""
    errors: dict[str, float]
    """Of the last look at the validation split; empty without one."""


def train(training: Training) -> Outcome:
    """Train, from the checkpoint if there is one, and write the weights.

    Raises:
        AvfaceError: if the shards don't suit the recipe, a file is damaged, or the checkpoint belongs to another
            recipe.
    """
    try:
        from lightning_fabric import Fabric, seed_everything
        from lightning_fabric.strategies import DDPStrategy
    except ImportError:
        raise AvfaceError(
            "training needs lightning-fabric; install it with: pip install 'avface[train]'"
        ) from None
    session, recipe = training.session, training.recipe
    make_folder_of(training.out)
    torch.set_num_threads(session.threads)
    many = session.devices * session.nodes > 1
    fabric = Fabric(
        accelerator=session.device,
        devices=session.devices,
        num_nodes=session.nodes,
        precision=session.precision,
        strategy=DDPStrategy(find_unused_parameters=True) if many else "auto",
    )
    fabric.launch()
    seed_everything(recipe.seed, verbose=False)  # first weights; batches have numbers of their own
    return _Run(training, fabric).go()


class _Run:
    """One session of a training."""

    def __init__(self, training: Training, fabric: Fabric) -> None:
        self.training, self.fabric = training, fabric
        self.session, self.recipe = training.session, training.recipe
        self.head = load_head(training.head or self.recipe.network.head)
        networks = CoarseNetworks(self.recipe.network)
        if training.start is not None:
            networks.load_state_dict(load_networks(training.start, self.recipe.network).state_dict())
        self.average = AveragedModel(networks, multi_avg_fn=_average_by(self.recipe.averaging))
        objective = _objective(training, networks, self.head)
        optimiser = _optimiser(self.recipe, networks)
        kind = _ImageData if self.recipe.uses_images else _LandmarkData
        self.data: _LandmarkData | _ImageData = kind(training, self.head, fabric)
        self.progress = Progress()
        if training.checkpoint.exists():
            self.progress = load_checkpoint(
                training.checkpoint, CHECKPOINT, self.recipe.plain(), networks, self.average, optimiser
            )
        elif training.start is None:
            self._standardise(networks)
            self.average.module.load_state_dict(networks.state_dict())
        self.networks = networks
        self.wrapped, self.optimiser = fabric.setup(objective, optimiser)
        self.average.to(fabric.device)
        self.errors: dict[str, float] = {}
        self.logger = _Logger(self.session.log if fabric.is_global_zero else None)

    @property
    def averaged(self) -> CoarseNetworks:
        """The networks with averaged weights."""
        assert isinstance(self.average.module, CoarseNetworks)
        return self.average.module

    def go(self) -> Outcome:
        """Train until steps or time are over."""
        waited, began = 0.0, time.monotonic()
        before = self.progress.seconds
        batches = iter(self.data.batches(self.progress.step))
        losses: list[float] = []
        self.networks.train()
        with Bar(*bar_columns(), disable=not self.fabric.is_global_zero) as bar:
            task = bar.add_task(
                self.recipe.name, total=self.recipe.steps, completed=self.progress.step, note=""
            )
            while (share := self._share()) < 1:
                asked = time.monotonic()
                batch = next(batches)
                waited += time.monotonic() - asked
                total = self._step(batch, share)
                losses.append(float(total.loss.detach()))
                self.progress.step += 1
                self.progress.seconds = before + time.monotonic() - began
                step = self.progress.step
                if step % self.session.report_every == 0:
                    self.progress.losses.append(sum(losses) / len(losses))
                    losses.clear()
                    waiting = waited / (time.monotonic() - began)
                    bar.update(
                        task,
                        completed=step,
                        note=f"loss {self.progress.losses[-1]:.3f}, waiting {waiting:.0%}",
                    )
                    if (
                        self.fabric.is_global_zero and not bar.console.is_terminal
                    ):  # a log file, in which there is no bar
                        bar.console.print(
                            f"step {step}: loss {self.progress.losses[-1]:.4f}, waiting {waiting:.0%}"
                        )
                    self.logger.numbers("loss", {"total": self.progress.losses[-1], **total.parts}, step)
                    self.logger.numbers("run", {"waiting": waiting}, step)
                if self.session.validate_every and step % self.session.validate_every == 0:
                    self._look(bar, batch)
                if step % self.session.checkpoint_every == 0:
                    self._keep()
        self._keep()
        if self.session.validate_every and self.progress.step % self.session.validate_every:
            self._look(None, None)
        self.logger.close()
        waiting = waited / max(1e-9, time.monotonic() - began)
        if self.fabric.is_global_zero:
            windows = self.progress.step * self.recipe.batch * self.fabric.world_size
            speed = windows / max(1e-9, self.progress.seconds)
            print(
                f"{self.progress.step} steps in {self.progress.seconds / 60:.1f} min, {speed:.3g} windows "
                f"({speed * self.recipe.network.window:.3g} frames) a second, "
                f"{waiting:.0%} of the time waiting for batches"
            )
        return Outcome(self.averaged.cpu().eval(), self.progress, waiting, self.errors)

    def _share(self) -> float:
        """How much of the run is over, 0 to 1; the same in all processes."""
        share = self.progress.step / self.recipe.steps
        if self.session.time_limit is not None:
            timed = self.progress.seconds / (60 * self.session.time_limit)
            share = max(share, float(self.fabric.broadcast(timed)))
        return share

    def _step(self, batch: Batch, share: float) -> Total:
        """One step of the optimiser."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.learning_rate * _rate(self.recipe, self.progress.step, share)
        batch = batch.to(self.fabric.device)
        self.optimiser.zero_grad()
        total = Total.of(self.wrapped(batch, _step_seed(self.recipe, self.progress.step, self.fabric)))
        if not bool(torch.isfinite(total.loss)):
            raise AvfaceError(
                f"{self.training.out}: the loss isn't finite at step {self.progress.step}; begin anew with a "
                "lower --learning-rate"
            )
        self.fabric.backward(total.loss)
        self.fabric.clip_gradients(self.wrapped, self.optimiser, max_norm=self.recipe.gradient_norm)
        self.optimiser.step()
        self.average.update_parameters(self.networks)
        return total

    def _standardise(self, networks: CoarseNetworks) -> None:
        """Tell the landmarks encoders what their input is like, from some batches."""
        encoders = [
            branch.video
            for branch in (networks.coarse, networks.expression)
            if isinstance(branch.video, LandmarksEncoder)
        ]
        if encoders:
            frames = self.data.sample()
            for encoder in encoders:
                encoder.standardise(frames)

    def _keep(self) -> None:
        """Write checkpoint and weights."""
        if self.fabric.is_global_zero:
            save_checkpoint(
                self.training.checkpoint,
                CHECKPOINT,
                self.recipe.plain(),
                self.networks,
                self.average,
                self.optimiser,
                self.progress,
            )
            described = {
                "recipe": json.dumps(self.recipe.plain()),
                "step": str(self.progress.step),
                "seconds": f"{self.progress.seconds:.0f}",
                "device": self.session.device,
            }
            save_networks(self.averaged, self.training.out, described)
        self.fabric.barrier()

    def _look(self, bar: Bar | None, batch: Batch | None) -> None:
        """Errors on the validation split, printed and logged."""
        if self.fabric.is_global_zero:
            self.errors = self.data.validate(copy.deepcopy(self.averaged).eval())
            step = self.progress.step
            line = "  ".join(f"{name} {value:.3g}" for name, value in self.errors.items())
            (bar.console.print if bar else print)(f"step {step}: {line}" if line else f"step {step}")
            self.logger.numbers("validation", self.errors, step)
            if batch is not None:
                self.logger.windows(self.averaged, self.head, batch, step)
        self.fabric.barrier()


class _LandmarkData:
    """Batches and validation of recipes on landmarks."""

    def __init__(self, training: Training, head: HeadModel, fabric: Fabric) -> None:
        self.recipe, self.session, self.head = training.recipe, training.session, head
        share = self.recipe.sketching.sketched
        window = self.recipe.network.window
        takes = performances = None
        if share < 1:
            takes = read_tracked_takes(
                training.shards,
                "train",
                shortest=window,
                rank=fabric.global_rank,
                world_size=fabric.world_size,
            )
        if share > 0:
            path = training.out.with_name("performances.safetensors")
            with fabric.rank_zero_first():
                performances = _performances(path, training, fabric.is_global_zero)
        self._batches = LandmarkBatches(
            self.recipe, head, takes, performances, steps=self.recipe.steps, rank=fabric.global_rank
        )
        self._shards = training.shards
        self._held: TrackedTakes | None = None

    def batches(self, first: int) -> Iterator[Batch]:
        """Batches from a step on."""
        yield from DataLoader(
            self._batches,
            batch_size=None,
            sampler=range(first, self.recipe.steps),
            num_workers=self.session.workers,
            collate_fn=_as_it_is,
            worker_init_fn=_one_thread,
            prefetch_factor=4 if self.session.workers else None,
        )

    def sample(self) -> Frames:
        """Frames of many windows, for the encoders' standardisation."""
        count = max(1, 512 // self.recipe.batch)
        parts = [self._batches[self.recipe.steps + number] for number in range(count)]
        return joined(parts).frames

    def validate(self, networks: CoarseNetworks) -> dict[str, float]:
        """Errors of networks on the validation split."""
        if self._held is None:
            self._held = read_tracked_takes(self._shards, "validation", shortest=self.recipe.network.window)
        return validate(networks, self.head, self._held, self.session.validation_takes)


class _ImageData:
    """Batches and validation of recipes on pictures."""

    def __init__(self, training: Training, head: HeadModel, fabric: Fabric) -> None:
        from avface.training.coarse.image_batches import ImageBatches

        self._training, self._head, self._fabric = training, head, fabric
        self.batches = ImageBatches(
            training.recipe,
            head,
            training.shards,
            workers=training.session.workers,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )

    def sample(self) -> Frames:
        """Frames of some windows, for landmarks encoders beside pictures."""
        return joined([batch for batch, _ in zip(self.batches(0), range(8), strict=False)]).frames

    def validate(self, networks: CoarseNetworks) -> dict[str, float]:
        """Losses of networks on the first windows of the validation split, with sound and picture."""
        expression = replace(networks.config.expression, audio_dropout=0.0, video_dropout=0.0)
        networks.config = replace(networks.config, expression=expression)
        objective = _objective(self._training, networks, self._head).to(self._fabric.device).eval()
        most = max(1, self._training.session.validation_takes // self._training.recipe.batch)
        every: dict[str, list[float]] = {}
        with torch.no_grad():
            for batch in self.batches.held_out(most):
                for name, value in objective(batch.to(self._fabric.device), 0).items():
                    every.setdefault(name, []).append(float(value))
        return {name: sum(values) / len(values) for name, values in every.items()}


def _objective(training: Training, networks: CoarseNetworks, head: HeadModel) -> nn.Module:
    """The losses of a recipe."""
    weights = training.recipe.losses
    if isinstance(weights, recipes.Supervision):
        return SupervisedObjective(networks, head, weights)
    from avface.training.coarse.self_supervised import AlbedoSpace, SelfSupervisedObjective

    components = training.recipe.network.code.albedo
    albedo = None if training.albedo_space is None else AlbedoSpace.load(training.albedo_space, components)
    return SelfSupervisedObjective(networks, head, weights, albedo)


def _performances(path: Path, training: Training, shown: bool) -> Any:
    with Bar(disable=not shown, transient=True) as bar:
        task = bar.add_task("performances to sketch from", total=1.0)
        return prepare_performances(
            path,
            training.recipe.network.head,
            training.recipe.sketching,
            training.recipe.seed,
            workers=max(1, training.session.workers),
            on_progress=lambda share: bar.update(task, completed=share),
        )


class _Logger:
    """TensorBoard, or nothing."""

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise AvfaceError(
                "--log needs tensorboard; install it with: pip install 'avface[train]'"
            ) from None
        self._writer = SummaryWriter(str(folder))

    def numbers(self, group: str, values: dict[str, float], step: int) -> None:
        """Log numbers."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    @torch.no_grad()
    def windows(self, networks: CoarseNetworks, head: HeadModel, batch: Batch, step: int) -> None:
        """Log pictures of the last frame of some windows: true landmarks green, predicted red."""
        if self._writer is None or batch.points is None:
            return
        device = next(networks.parameters()).device
        code = networks.coarse(batch.to(device).frames)
        shown = projected_points(FacePoints.of(head), code, batch.to(device)).cpu()
        self._writer.add_images("landmarks", draw_windows(shown[:8, -1], batch.points[:8, -1]), step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()


def _as_it_is(batch: Any) -> Any:
    return batch


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _optimiser(recipe: Recipe, networks: nn.Module) -> Optimizer:
    kind = {"adam": Adam, "adamw": AdamW}[recipe.optimiser]
    return kind(networks.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay)


def _rate(recipe: Recipe, step: int, share: float) -> float:
    """Share of the highest learning rate at a step, after a share of the run."""
    rising = min(1.0, (step + 1) / max(1, recipe.warm_up))
    if recipe.schedule == "constant":
        return rising
    return rising * float(0.5 + 0.5 * torch.cos(torch.tensor(torch.pi * share)))


def _step_seed(recipe: Recipe, step: int, fabric: Fabric) -> int:
    """Seed of what is drawn within a step."""
    return (recipe.seed * 1_000_003 + step) * 4096 + int(fabric.global_rank)


def _average_by(share: float) -> Any:
    """Update of a running average that keeps a share of it, less during the first steps."""

    def update(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        kept = min(share, (1 + int(count)) / (10 + int(count)))
        for old, new in zip(averaged, current, strict=True):
            old.lerp_(new.to(old), 1 - kept)

    return update


def read_arguments(arguments: list[str] | None = None) -> Training:
    """The training that a command asks for; the process's own arguments if none are given.

    Raises:
        AvfaceError: if an option can't be, or the weights to go on from can't be read.
    """

    def named(name: str, recipe: Recipe) -> Any:
        return tyro.conf.subcommand(name, default=Training(shards=tyro.MISSING, recipe=recipe))

    chosen = tyro.cli(
        Annotated[Training, named("default", recipes.default())]
        | Annotated[Training, named("default-image", recipes.default_image())]
        | Annotated[Training, named("paper", recipes.paper())]
        | Annotated[OcclusionTraining, tyro.conf.subcommand("occlusion")],
        args=arguments,
        config=(tyro.conf.OmitArgPrefixes,),
        description=__doc__,
    )
    return chosen.training() if isinstance(chosen, OcclusionTraining) else chosen


def main() -> None:
    """Train by the recipe that the command names."""
    try:
        train(read_arguments())
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
