"""Training of the coarse stage's networks: `avface train coarse`.

    avface train coarse default SHARDS --out coarse.safetensors
    avface train coarse occlusion SHARDS --start coarse.safetensors --out occlusion.safetensors
    torchrun --nproc-per-node 4 -m avface train coarse default-image SHARDS --out c.safetensors --device cuda

SHARDS is a folder of `avface data prepare`. A run that was interrupted resumes from its checkpoint, beside the weights,
when the same command is given again. `default` keeps all data in memory; its batches are functions of seed and step.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import torch
import tyro
from torch import Tensor, nn
from torch.optim import Adam, AdamW
from torch.utils.data import DataLoader

from avface.errors import AvfaceError
from avface.head.asset import load_head
from avface.head.model import HeadModel
from avface.networks.coarse.model import CoarseNetworks, NetworkConfig, load_networks, save_networks
from avface.networks.coarse.video import LandmarksEncoder
from avface.networks.frames import Frames
from avface.speech.features import WIDTHS, SpeechKind
from avface.training.coarse import recipes
from avface.training.coarse.batches import Batch, LandmarkBatches, joined
from avface.training.coarse.face_points import FacePoints
from avface.training.coarse.landmark_simulation import prepare_performances
from avface.training.coarse.objective import SupervisedObjective, projected_points
from avface.training.coarse.recipes import Recipe
from avface.training.coarse.tracked_takes import Performances, TrackedTakes, read_tracked_takes
from avface.training.coarse.validation import draw_windows, validate
from avface.training.loop.config import Optimisation, RunConfig, check_not_negative
from avface.training.loop.devices import Precision, launch_fabric
from avface.training.loop.reporting import Reporter
from avface.training.loop.trainer import RunResult, Task, Trainer, begin_run

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class CoarseRunConfig(RunConfig):
    """Where and how long a run of the coarse training computes: on one device or several."""

    checkpoint_every: int = 500
    """Steps between checkpoints; the weights are written then, too."""
    devices: int = 1
    """Number of devices in this machine; as many as torchrun starts processes."""
    nodes: int = 1
    """Number of machines, under torchrun."""
    precision: Precision = "32-true"
    """Precision of the networks' arithmetic."""
    workers: int = 1
    """Processes that make batches; 0: the training process itself."""
    validate_every: int = 1000
    """Steps between validations; 0: none."""
    validation_takes: int = 24
    """Takes of the validation split that are used."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("devices", "nodes", "validation_takes"):
            if getattr(self, name) < 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be at least 1")
        check_not_negative(self, "workers", "validate_every")


@dataclass(frozen=True)
class CoarseTraining:
    """Train the coarse networks by a recipe."""

    shards: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SHARDS")]
    """Folder of shards."""
    recipe: Recipe
    """What decides about the weights."""
    out: Path = Path("coarse.safetensors")
    """File of the weights; checkpoint and performances are stored beside it."""
    head: str | None = None
    """Name or file of the head model, if it isn't the one that the recipe's networks are for."""
    albedo_space: Path | None = None
    """FLAME's texture space (.npz) for `paper`; skin has one colour without it."""
    start: Path | None = None
    """Initial weights, of the same networks; their kind of speech features may differ."""
    run: CoarseRunConfig = field(default_factory=CoarseRunConfig)
    """Where and how long."""

    @property
    def performances(self) -> Path:
        """Where the performances for simulated landmarks are stored."""
        return self.out.with_name("performances.safetensors")


@dataclass(frozen=True)
class OcclusionTraining:
    """Fine-tune weights with most faces partly occluded (AVFace 3.4)."""

    shards: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SHARDS")]
    """Folder of shards."""
    start: Path
    """Weights of any recipe."""
    out: Path = Path("coarse-occlusion.safetensors")
    """File of the weights; checkpoint and performances are stored beside it."""
    head: str | None = None
    """Name or file of the head model, if it isn't the one that the recipe's networks are for."""
    albedo_space: Path | None = None
    """FLAME's texture space (.npz) for weights of `paper`; skin has one colour without it."""
    steps: int | None = None
    """Steps; by default a quarter of those of the first training."""
    batch: int | None = None
    """Windows per step; by default as in the first training."""
    learning_rate: float | None = None
    """Highest rate; by default 0.4 of that of the first training."""
    speech: SpeechKind | None = None
    """Kind of speech features, if the shards have others, of the same size, than those of the first training."""
    seed: int = 1
    """Seed of everything random."""
    run: CoarseRunConfig = field(default_factory=CoarseRunConfig)
    """Where and how long."""

    def training(self) -> CoarseTraining:
        """The training that this is, by the recipe that the weights were trained with.

        Raises:
            AvfaceError: if the weights can't be read or have no recipe.
        """
        base = recipe_of(self.start)
        if not base.name.endswith("+occlusion"):
            base = recipes.occlusion(base)
        chosen = {
            name: getattr(self, name)
            for name in ("steps", "batch", "learning_rate")
            if getattr(self, name) is not None
        }
        if self.speech is not None:
            base = replace(base, network=_with_speech(base.network, self.speech))
        recipe = replace(base, seed=self.seed, **chosen)
        return CoarseTraining(
            self.shards, recipe, self.out, self.head, self.albedo_space, self.start, self.run
        )


def _with_speech(network: NetworkConfig, kind: SpeechKind) -> NetworkConfig:
    """The same networks for another kind of speech features.

    Raises:
        AvfaceError: if its features have another size.
    """
    audio = network.expression.audio
    if WIDTHS[kind] != audio.width:
        raise AvfaceError(
            f"speech={kind}: has {WIDTHS[kind]} values a row, the networks take {audio.width}; train them anew"
        )
    return replace(network, expression=replace(network.expression, audio=replace(audio, speech=kind)))


def _initial_state(path: Path, config: NetworkConfig) -> dict[str, Tensor]:
    """The weights of a file for networks of a config; their kind of speech features may differ.

    Raises:
        AvfaceError: if the file can't be read or is of other networks.
    """
    start = load_networks(path)
    kind = config.expression.audio.speech
    if WIDTHS[kind] != start.config.expression.audio.width or _with_speech(start.config, kind) != config:
        start = load_networks(path, config)  # says what differs
    return start.state_dict()


def _subcommand(recipe: Recipe, description: str) -> Any:
    default = CoarseTraining(shards=tyro.MISSING, recipe=recipe)
    return tyro.conf.subcommand(recipe.name, default=default, description=description)


Command = tyro.conf.OmitArgPrefixes[
    Annotated[CoarseTraining, _subcommand(recipes.default(), "Train on tracked and simulated landmarks.")]
    | Annotated[CoarseTraining, _subcommand(recipes.default_image(), "Train on images.")]
    | Annotated[CoarseTraining, _subcommand(recipes.paper(), "Train as AVFace does.")]
    | Annotated[OcclusionTraining, tyro.conf.subcommand("occlusion")]
]
"""What `avface train coarse` parses: one subcommand per recipe."""


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


def train(training: CoarseTraining | OcclusionTraining) -> RunResult[CoarseNetworks]:
    """Train, from the checkpoint if there is one, and write the weights.

    Raises:
        AvfaceError: if the shards don't suit the recipe, a file is damaged, or the checkpoint belongs to another
            recipe.
    """
    if isinstance(training, OcclusionTraining):
        training = training.training()
    run = training.run
    begin_run(run, training.out)
    fabric = launch_fabric(run.device, run.devices, run.nodes, run.precision)
    torch.manual_seed(training.recipe.seed)  # of the initial weights; batches have seeds of their own
    return Trainer(CoarseTask(training, fabric), run, training.out).run()


class CoarseTask(Task[CoarseNetworks, Batch]):
    """The coarse networks, for the `Trainer`."""

    checkpoint_format = "avface coarse training 2"

    def __init__(self, training: CoarseTraining, fabric: Fabric) -> None:
        recipe = training.recipe
        self._training, self._recipe, self._fabric = training, recipe, fabric
        self.name, self.recipe, self.devices = recipe.name, recipe.plain(), fabric
        self.validate_every = training.run.validate_every
        self.optimisation = Optimisation(
            recipe.steps,
            recipe.learning_rate,
            recipe.warm_up,
            recipe.gradient_norm,
            recipe.averaging,
            recipe.schedule,
            averaging_warm_up=True,
        )
        self._head = load_head(training.head or recipe.network.head)
        self.network = CoarseNetworks(recipe.network)
        if training.start is not None:
            self.network.load_state_dict(_initial_state(training.start, recipe.network))
        self._objective = _objective(training, self.network, self._head)
        kind = {"adam": Adam, "adamw": AdamW}[recipe.optimiser]
        self.optimiser = kind(
            self.network.parameters(), recipe.learning_rate, weight_decay=recipe.weight_decay
        )
        data = ImageData if recipe.uses_images else LandmarkData
        self._data: Data = data(training, self._head, fabric)

    @property
    def module(self) -> nn.Module:
        """The losses around the networks: what DistributedDataParallel wraps."""
        return self._objective

    def initialise(self) -> None:
        """Standardise the input of the landmark encoders by some batches."""
        encoders = [
            branch.video
            for branch in (self.network.coarse, self.network.expression)
            if isinstance(branch.video, LandmarksEncoder)
        ]
        if encoders and self._training.start is None:
            frames = self._data.sample()
            for encoder in encoders:
                encoder.standardise(frames)

    def batches(self, first: int) -> Iterator[Batch]:
        """Batches from a step on."""
        return iter(self._data.batches(first))

    def losses(self, module: Any, batch: Batch, step: int) -> dict[str, Tensor]:
        """Weighted losses by name; what is drawn within a step depends on seed, step and process."""
        seed = (self._recipe.seed * 1_000_003 + step) * 4096 + int(self._fabric.global_rank)
        losses: dict[str, Tensor] = module(batch.to(self._fabric.device), seed)
        return losses

    def validate(self, network: CoarseNetworks) -> dict[str, float]:
        """Errors on the validation split."""
        return self._data.validate(network)

    @torch.no_grad()
    def pictures(self, network: CoarseNetworks, batch: Batch) -> Tensor | None:
        """The last frame of some windows: true landmarks green, predicted red."""
        if batch.points is None:
            return None
        batch = batch.to(next(network.parameters()).device)
        code = network.coarse(batch.frames)
        predicted = projected_points(FacePoints.of(self._head), code, batch).cpu()
        assert batch.points is not None
        return draw_windows(predicted[:8, -1], batch.points.cpu()[:8, -1])

    def save(self, network: CoarseNetworks, path: Path, metadata: dict[str, str]) -> None:
        """Write the weights."""
        save_networks(network, path, metadata)


class Data(Protocol):
    """Batches and validation of a recipe."""

    def batches(self, first: int) -> Iterator[Batch]:
        """Batches from a step on."""

    def sample(self) -> Frames:
        """Frames for the standardisation of the landmark encoders."""

    def validate(self, networks: CoarseNetworks) -> dict[str, float]:
        """Errors of networks on the validation split."""


class LandmarkData:
    """Batches and validation of recipes on landmarks."""

    def __init__(self, training: CoarseTraining, head: HeadModel, fabric: Fabric) -> None:
        self._recipe, self._run, self._head = training.recipe, training.run, head
        share = self._recipe.simulation.simulated_share
        window = self._recipe.network.window
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
            with fabric.rank_zero_first() if fabric.world_size > 1 else contextlib.nullcontext():
                performances = _performances(training, training.run.quiet or not fabric.is_global_zero)
        self._batches = LandmarkBatches(
            self._recipe, head, takes, performances, steps=self._recipe.steps, rank=fabric.global_rank
        )
        self._shards = training.shards
        self._held_out: TrackedTakes | None = None

    def batches(self, first: int) -> Iterator[Batch]:
        """Batches from a step on."""
        yield from DataLoader(
            self._batches,
            batch_size=None,
            sampler=range(first, self._recipe.steps),
            num_workers=self._run.workers,
            collate_fn=_uncollated,
            worker_init_fn=_one_thread,
            prefetch_factor=4 if self._run.workers else None,
        )

    def sample(self) -> Frames:
        """Frames of many windows."""
        count = max(1, 512 // self._recipe.batch)
        parts = [self._batches[self._recipe.steps + number] for number in range(count)]
        return joined(parts).frames

    def validate(self, networks: CoarseNetworks) -> dict[str, float]:
        """Errors of networks on the validation split."""
        if self._held_out is None:
            window = self._recipe.network.window
            self._held_out = read_tracked_takes(self._shards, "validation", shortest=window)
        return validate(networks, self._head, self._held_out, self._run.validation_takes)


class ImageData:
    """Batches and validation of recipes on images."""

    def __init__(self, training: CoarseTraining, head: HeadModel, fabric: Fabric) -> None:
        from avface.training.coarse.image_batches import ImageBatches

        self._training, self._head, self._fabric = training, head, fabric
        self.batches = ImageBatches(
            training.recipe,
            head,
            training.shards,
            workers=training.run.workers,
            rank=fabric.global_rank,
            world_size=fabric.world_size,
        )

    def sample(self) -> Frames:
        """Frames of some windows, for landmark encoders beside image encoders."""
        return joined([batch for batch, _ in zip(self.batches(0), range(8), strict=False)]).frames

    def validate(self, networks: CoarseNetworks) -> dict[str, float]:
        """Losses of networks on the first windows of the validation split, without modality dropout."""
        expression = replace(networks.config.expression, audio_dropout=0.0, video_dropout=0.0)
        networks.config = replace(networks.config, expression=expression)
        objective = _objective(self._training, networks, self._head).to(self._fabric.device).eval()
        most = max(1, self._training.run.validation_takes // self._training.recipe.batch)
        every: dict[str, list[float]] = {}
        with torch.no_grad():
            for batch in self.batches.held_out(most):
                for name, value in objective(batch.to(self._fabric.device), 0).items():
                    every.setdefault(name, []).append(float(value))
        return {name: sum(values) / len(values) for name, values in every.items()}


def _objective(training: CoarseTraining, networks: CoarseNetworks, head: HeadModel) -> nn.Module:
    """The losses of a recipe."""
    weights = training.recipe.losses
    if isinstance(weights, recipes.Supervision):
        return SupervisedObjective(networks, head, weights)
    from avface.training.coarse.self_supervised import AlbedoSpace, SelfSupervisedObjective

    components = training.recipe.network.code.albedo
    albedo = None if training.albedo_space is None else AlbedoSpace.load(training.albedo_space, components)
    return SelfSupervisedObjective(networks, head, weights, albedo)


def _performances(training: CoarseTraining, quiet: bool) -> Performances:
    """The performances for simulated landmarks, made now if they aren't stored yet."""
    with Reporter(quiet) as reporter:
        bar = reporter.task("performances", total=1.0)
        return prepare_performances(
            training.performances,
            training.recipe.network.head,
            training.recipe.simulation,
            training.recipe.seed,
            workers=max(1, training.run.workers),
            on_progress=lambda share: reporter.update(bar, share),
        )


def _uncollated(batch: Any) -> Any:
    return batch


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
