"""Training of the detail network: `avface train detail --out detail.safetensors`.

The frames of synthetic people, made by the first run, are stored beside the weights, like the checkpoint: a run that
was interrupted resumes when the same command is given again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import count as count_from
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import Tensor
from torch.nn.functional import interpolate
from torch.optim import AdamW

from avface.errors import AvfaceError
from avface.head.asset import load_head
from avface.head.skin.atlas import DetailAtlas, DetailMaps, detail_atlas, unit
from avface.networks.detail.losses import (
    DetailWeights,
    IdMrfLoss,
    Vgg19,
    detail_texture,
    displacement_loss,
    from_tangent_space,
    image_gradient_loss,
    normals_loss,
    photometric_loss,
    regulariser,
    slope_loss,
    symmetry_loss,
)
from avface.networks.detail.network import STRIDE, DetailConfig, DetailNetwork, load_detail, save_detail
from avface.training.detail.frames import DetailFrames, DetailFramesConfig, prepare_detail_frames
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

HELD_OUT = 10
"""One of so many people, by number, is held out of the training."""
UNSEEN = 0.1
"""Weight of texels that aren't visible: their displacement can only be inferred."""


@dataclass(frozen=True)
class DetailRecipe:
    """What decides about the weights."""

    network: DetailConfig = field(default_factory=DetailConfig)
    """Layers and sizes."""
    frames: DetailFramesConfig = field(default_factory=DetailFramesConfig)
    """Training data: people and frames."""
    losses: DetailWeights = field(
        default_factory=lambda: DetailWeights(photometric=0.0, normals=2.0, mrf=0.0)
    )
    """Weights of the losses. The L1 norm of the displacement (equation 3) with the paper's weight drives an uncertain
    network to zero where the truth is known. Without VGG-19, `mrf` weighs `image_gradient_loss`."""
    steps: int = 10000
    """Steps of the optimiser."""
    batch: int = 4
    """Crops per step."""
    crop: int = 128
    """Width and height of a crop in texels."""
    learning_rate: float = 1.5e-3
    """Highest learning rate: linear warm-up, then cosine decay."""
    weight_decay: float = 5e-4
    """Weight decay of AdamW; the paper's."""
    warm_up: int = 50
    """Steps until the highest rate."""
    gradient_norm: float = 1.0
    """Gradients are clipped to this norm."""
    averaging: float = 0.99
    """Decay of the exponential moving average of the weights, which is what is saved."""
    flat_sampling: float = 0.3
    """Sampling weight of a frame without folds, relative to the mean; that of others grows with the depth of theirs."""
    audio_dropout: float = 0.2
    """Share of the frames without sound."""
    mask_known: float = 0.7
    """Share of the occluded frames in which the input visibility shows the occlusion."""
    false_occlusions: float = 0.3
    """Share of the frames in which the input visibility shows an occlusion that isn't there."""
    distractors: float = 0.3
    """Share of the frames with objects on the skin that the input visibility doesn't show."""
    bfloat16: bool = True
    """Whether layers compute in half precision, a third faster on CPUs that support it."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch", "learning_rate", "gradient_norm")
        check_not_negative(self, "warm_up", "weight_decay", "flat_sampling", "seed")
        check_shares(self, "audio_dropout", "mask_known", "false_occlusions", "distractors")
        check_averaging(self)
        size = self.network.resolution
        if self.crop % STRIDE or not 0 < self.crop <= size:
            raise AvfaceError(f"crop={self.crop} must be a multiple of {STRIDE}, at most {size}")
        if self.frames.resolution != size:
            raise AvfaceError(
                f"frames.resolution={self.frames.resolution} must be the network's resolution, {size}"
            )


@dataclass(frozen=True)
class DetailTraining:
    """Train the detail network. The defaults are the recipe of the shipped weights."""

    out: Path = Path("detail.safetensors")
    """File of the weights; the checkpoint is stored beside it."""
    cache: Path | None = None
    """Folder of the frames; by default `detail-frames` beside the weights."""
    recipe: Annotated[DetailRecipe, tyro.conf.arg(name="")] = field(default_factory=DetailRecipe)
    """What decides about the weights."""
    start: Path | None = None
    """Initial weights, such as those of an earlier run; by default random ones."""
    vgg: Path | None = None
    """File of torchvision's VGG-19 weights, for the ID-MRF loss."""
    run: Annotated[RunConfig, tyro.conf.arg(name="")] = field(default_factory=RunConfig)
    """Where and how long."""

    @property
    def frames(self) -> Path:
        """Where the frames are stored."""
        return self.cache or self.out.with_name("detail-frames")


Command = DetailTraining
"""What `avface train detail` parses."""


@dataclass(frozen=True, eq=False)
class DetailBatch:
    """B crops of C x C texels, at row and column `corner`.

    maps (B, 7, C, C), speech (B, 16, D), displacement (B, C, C) metres, image (B, 3, C, C) from 0 to 1, coarse
    (B, 3, C, C) normals, seen (B, C, C) from 0 to 1: how well the image shows the skin.
    """

    corner: tuple[int, int]
    maps: Tensor
    speech: Tensor
    displacement: Tensor
    image: Tensor
    coarse: Tensor
    seen: Tensor

    def to(self, device: str) -> DetailBatch:
        """The same on a device."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return DetailBatch(self.corner, **moved)


def held_out(frames: DetailFrames) -> Tensor:
    """Which frames (N,) are held out of the training."""
    return frames.person % HELD_OUT == HELD_OUT - 2


class DetailBatches:
    """Random crops of frames; functions of the recipe's seed and the step."""

    def __init__(self, recipe: DetailRecipe, frames: DetailFrames, mask: Tensor) -> None:
        self.recipe, self.frames = recipe, frames
        folded = frames.displacement.float().abs().mean((1, 2)).double().numpy()
        chance = recipe.flat_sampling + (1 - recipe.flat_sampling) * folded / max(folded.mean(), 1e-9)
        self._chance = chance / chance.sum()
        size = recipe.network.resolution
        places = range(0, size - recipe.crop + 1, STRIDE)
        covered = {
            (row, column): float(mask[row : row + recipe.crop, column : column + recipe.crop].mean())
            for row in places
            for column in places
        }
        self._corners = [place for place, share in covered.items() if share > 0.5 * max(covered.values())]

    def __getitem__(self, step: int) -> DetailBatch:
        """The crops of a step."""
        recipe, frames = self.recipe, self.frames
        rng = np.random.default_rng([recipe.seed, 61, step])
        rows = torch.from_numpy(rng.choice(len(frames), recipe.batch, p=self._chance))
        corner = self._corners[int(rng.integers(len(self._corners)))]
        image, normals, visibility, occluded, displacement = (
            _cut(getattr(frames, name), corner, recipe.crop)[rows]
            for name in ("image", "normals", "visibility", "occluded", "displacement")
        )
        mirrored = torch.from_numpy(rng.random(recipe.batch) < 0.5)
        if bool(mirrored.any()):  # the crop of the other side, mirrored
            other = corner[0], recipe.network.resolution - recipe.crop - corner[1]
            chosen = rows[mirrored]
            for name, part in (
                ("image", image),
                ("normals", normals),
                ("visibility", visibility),
                ("occluded", occluded),
                ("displacement", displacement),
            ):
                part[mirrored] = _cut(getattr(frames, name), other, recipe.crop)[chosen].flip(-1)
            normals[mirrored, 0] *= -1
        coarse = unit(normals.float(), 1)
        facing, true = visibility.float() / 255, displacement.float() * 1e-6
        picture = _recoloured(image.float() / 255, rng)
        known = torch.from_numpy(rng.random(recipe.batch) < recipe.mask_known)[:, None, None]
        picture, distracting = _with_distractors(picture, rng, recipe.distractors)
        holes = _blobs(rng, recipe.crop, recipe.batch) & _chosen(rng, recipe.batch, recipe.false_occlusions)
        shown = facing * ~(occluded & known) * ~holes
        maps = DetailMaps(picture * (shown > 0)[:, None], coarse, shown).stacked()
        speech = frames.speech[rows].float()
        speech[torch.from_numpy(rng.random(recipe.batch) < recipe.audio_dropout)] = 0.0
        seen = facing * ~occluded * ~distracting * ~holes
        return DetailBatch(corner, maps, speech, true, picture, coarse, seen)


def _cut(maps: Tensor, corner: tuple[int, int], size: int) -> Tensor:
    return maps[..., corner[0] : corner[0] + size, corner[1] : corner[1] + size]


def _chosen(rng: np.random.Generator, count: int, share: float) -> Tensor:
    return torch.from_numpy(rng.random(count) < share)[:, None, None]


def _recoloured(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Images (B, 3, R, R) with random exposure, white balance, contrast and noise."""
    count = len(image)
    gain = np.exp(rng.normal(0, 0.15, (count, 1, 1, 1)) + rng.normal(0, 0.06, (count, 3, 1, 1)))
    power = np.exp(rng.normal(0, 0.15, (count, 1, 1, 1)))
    noise = torch.empty_like(image).normal_(generator=torch.Generator().manual_seed(int(rng.integers(2**62))))
    noise = noise * torch.from_numpy(rng.exponential(0.006, (count, 1, 1, 1)).astype(np.float32))
    bright = image.clamp_min(1e-4) ** torch.from_numpy(power.astype(np.float32))
    return (bright * torch.from_numpy(gain.astype(np.float32)) + noise).clamp(0, 1) * (image > 0)


def _noise(rng: np.random.Generator, size: int, count: int, cells: int, channels: int = 1) -> Tensor:
    """Smooth random maps (B, C, R, R)."""
    coarse = torch.from_numpy(rng.normal(size=(count, channels, cells, cells)).astype(np.float32))
    return interpolate(coarse, (size, size), mode="bilinear", align_corners=False)


def _blobs(rng: np.random.Generator, size: int, count: int) -> Tensor:
    """Random areas (B, R, R) bool of at most about a third of the window."""
    field = _noise(rng, size, count, int(rng.integers(3, 7)))[:, 0]
    level = torch.from_numpy(rng.uniform(0.6, 1.6, (count, 1, 1)).astype(np.float32))
    return field > level


def _with_distractors(image: Tensor, rng: np.random.Generator, share: float) -> tuple[Tensor, Tensor]:
    """Images (B, 3, R, R), some with strands, frames of glasses and patches on the skin; and where (B, R, R).

    They are flat: the network learns to predict no relief for them.
    """
    count, size = len(image), image.shape[-1]
    strands = _noise(rng, size, count, int(rng.integers(3, 8)))[:, 0]
    patches = _noise(rng, size, count, int(rng.integers(3, 6)))[:, 0]
    width = torch.from_numpy(rng.uniform(0.01, 0.1, (count, 1, 1)).astype(np.float32))
    near = _blobs(rng, size, count)
    distracting = ((strands.abs() < width) | (patches > 1.3)) & near & _chosen(rng, count, share)
    colour = torch.from_numpy(rng.uniform(0, 0.9, (count, 3, 1, 1)).astype(np.float32) ** 2)
    grain = 0.04 * _noise(rng, size, count, size // 4)
    return torch.where(distracting[:, None], (colour + grain).clamp(0, 1), image), distracting


class DetailObjective:
    """The losses of a batch."""

    def __init__(
        self, recipe: DetailRecipe, atlas: DetailAtlas, device: str, vgg: Path | None = None
    ) -> None:
        """vgg: file of the weights of VGG-19.

        Raises:
            AvfaceError: if it can't be read.
        """
        self.recipe, self.atlas = recipe, atlas
        self.mask = atlas.mask.to(device)
        self.mrf = None if vgg is None else IdMrfLoss(Vgg19.load(vgg)).to(device)

    def __call__(self, found: Tensor, batch: DetailBatch) -> dict[str, Tensor]:
        """Losses with their weights, by name; found (B, C, C) metres."""
        weights = self.recipe.losses
        mask = _cut(self.mask, batch.corner, self.recipe.crop).expand_as(found)
        weight = mask * (UNSEEN + (1 - UNSEEN) * batch.seen)
        true = batch.displacement * (mask > 0)
        predicted, reference = (self.atlas.tangent_normals(part, batch.corner) for part in (found, true))
        losses = {
            "displacement": weights.displacement * displacement_loss(found, true, weight),
            "slope": weights.slope * slope_loss(predicted, reference, weight),
            "normals": weights.normals * normals_loss(predicted, reference, weight),
            "regulariser": weights.regulariser * regulariser(found, mask),
        }
        if self.recipe.crop == self.recipe.network.resolution and weights.symmetry:
            mirrored = self.atlas.flipped(found[:, None])[:, 0]
            losses["symmetry"] = weights.symmetry * symmetry_loss(found, mirrored, batch.seen, mask)
        if weights.photometric or weights.mrf:
            detailed = from_tangent_space(batch.coarse, predicted)
            seen = batch.seen * mask
            texture = detail_texture(batch.coarse, detailed, batch.image, seen)
            losses["photometric"] = weights.photometric * photometric_loss(texture, batch.image, seen)
            if self.mrf is None:
                losses["image_gradient"] = weights.mrf * image_gradient_loss(texture, batch.image, seen)
            else:
                shown = seen[:, None]
                losses["mrf"] = weights.mrf * self.mrf(texture * shown, batch.image * shown)
        return losses


class DetailTask(Task[DetailNetwork, DetailBatch]):
    """The detail network, for the `Trainer`."""

    name = "detail"
    checkpoint_format = "avface detail training 3"

    def __init__(self, training: DetailTraining, frames: DetailFrames, devices: SingleDevice) -> None:
        recipe = training.recipe
        self._recipe, self._device = recipe, training.run.device
        self.recipe, self.devices = asdict(recipe), devices
        self.optimisation = Optimisation(
            recipe.steps,
            recipe.learning_rate,
            recipe.warm_up,
            recipe.gradient_norm,
            recipe.averaging,
            average_buffers=True,
        )
        torch.manual_seed(recipe.seed)  # of the initial weights
        head = load_head(recipe.network.head)
        atlas = detail_atlas(head, recipe.network.resolution)
        self.network = DetailNetwork.of(head, recipe.network)
        if training.start is not None:
            self.network.load_state_dict(_weights_of(training.start, recipe.network))
        self.optimiser = AdamW(self.network.parameters(), weight_decay=recipe.weight_decay)
        self._batches = DetailBatches(recipe, frames.select(~held_out(frames)), atlas.mask)
        self._objective = DetailObjective(recipe, atlas, training.run.device, training.vgg)

    def move(self) -> None:
        """To the device, in the memory layout that its convolutions are fastest with."""
        self.network.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def batches(self, first: int) -> Iterator[DetailBatch]:
        """Crops from a step on."""
        return (self._batches[step] for step in count_from(first))

    def losses(self, module: DetailNetwork, batch: DetailBatch, step: int) -> dict[str, Tensor]:
        """Weighted losses by name."""
        batch = batch.to(self._device)
        with torch.autocast(self._device, torch.bfloat16, enabled=self._recipe.bfloat16):
            maps = batch.maps.contiguous(memory_format=torch.channels_last)
            found = module(maps, batch.speech, batch.corner)
        return self._objective(found.float(), batch)

    def save(self, network: DetailNetwork, path: Path, metadata: dict[str, str]) -> None:
        """Write the weights."""
        save_detail(network, path, metadata)


def train(training: DetailTraining) -> RunResult[DetailNetwork]:
    """Train, from the checkpoint if there is one, and write the weights.

    Raises:
        AvfaceError: if a file is damaged or can't be written, or the checkpoint belongs to another recipe.
    """
    run = training.run
    devices = begin_run(run, training.out)
    with Reporter(run.quiet) as reporter:
        bar = reporter.task("frames", total=None)
        frames = read_frames(training, lambda done, total: reporter.update(bar, done, total))
    return Trainer(DetailTask(training, frames, devices), run, training.out).run()


def _weights_of(path: Path, config: DetailConfig) -> dict[str, Tensor]:
    found = load_detail(path)
    if found.config != config:
        raise AvfaceError(
            f"{path}: its network has another config than the recipe's; name other weights with --start"
        )
    return found.state_dict()


def read_frames(
    training: DetailTraining, on_person: Callable[[int, int], None] = lambda done, total: None
) -> DetailFrames:
    """The frames of all people, made where they are missing; `on_person` as of `prepare_detail_frames`.

    Raises:
        AvfaceError: if a file is damaged or can't be written.
    """
    recipe = training.recipe
    return prepare_detail_frames(
        training.frames,
        recipe.frames,
        head=recipe.network.head,
        workers=training.run.threads,
        on_person=on_person,
    )
