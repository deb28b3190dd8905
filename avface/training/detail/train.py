"""Training of the detail network.

    python -m avface.training.detail.train --out detail.safetensors

The first run makes the frames of people that it learns from, which are kept beside the weights. So is a checkpoint: a
run that was stopped goes on when the same command is given again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from rich.progress import Progress as Bar
from torch import Tensor
from torch.nn.functional import interpolate
from torch.optim import AdamW
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from avface.errors import AvfaceError
from avface.head.model import load_head
from avface.head.skin.atlas import DetailAtlas, DetailMaps, detail_atlas, unit
from avface.networks.detail.losses import (
    DetailWeights,
    IdMrfLoss,
    Vgg19,
    displacement_loss,
    normals_loss,
    on_coarse,
    photometric_loss,
    regulariser,
    slope_loss,
    structure_loss,
    symmetry_loss,
    texture_of_detail,
)
from avface.networks.detail.network import STRIDE, DetailConfig, DetailNetwork, load_detail, save_detail
from avface.training.detail.frames import DetailFrames, DetailFramesConfig, prepare_detail_frames
from avface.training.loop.checkpoint import Progress, load_checkpoint, make_folder_of
from avface.training.loop.trainer import Descent, bar_columns, warmed_cosine

CHECKPOINT = "avface detail training 2"
HELD_OUT = 10
"""Of so many people one, by the number, isn't learned from."""
UNSEEN = 0.1
"""Weight of texels that aren't seen: what is there can be guessed at most."""


@dataclass(frozen=True)
class DetailRecipe:
    """What decides about the weights."""

    network: DetailConfig = field(default_factory=DetailConfig)
    """Layers and sizes."""
    frames: DetailFramesConfig = field(default_factory=DetailFramesConfig)
    """People and frames."""
    losses: DetailWeights = field(
        default_factory=lambda: DetailWeights(photometric=0.0, normals=2.0, mrf=0.0)
    )
    """Weights of the losses. Where the truth is known, lengths of fine differences (equation 3) with the paper's weight
    only tell a network that knows little to be silent. Without VGG-19, `mrf` is that of `structure_loss`."""
    steps: int = 10000
    """Steps of the optimiser."""
    batch: int = 4
    """Crops a step."""
    crop: int = 128
    """Texels across a crop."""
    learning_rate: float = 1.5e-3
    """Highest rate; it rises for `warm_up` steps and falls as a cosine."""
    weight_decay: float = 5e-4
    """The paper's."""
    warm_up: int = 50
    """Steps."""
    gradient_norm: float = 1.0
    """Longer gradients are cut to this length."""
    averaging: float = 0.99
    """Share of the running average of the weights that a step leaves; the average is what is kept."""
    smooth: float = 0.3
    """How often a frame without folds is shown, against the average; the others the oftener, the deeper theirs."""
    silenced: float = 0.2
    """Share of the frames without sound."""
    told: float = 0.7
    """Share of the occluded frames in which the network is told what is hidden."""
    holes: float = 0.3
    """Share of the frames in which a part of the face is hidden that isn't."""
    strangers: float = 0.3
    """Share of the frames with something on the skin that isn't skin, which the network isn't told."""
    bfloat16: bool = True
    """Whether layers compute in half precision, a third faster on CPUs that can."""
    seed: int = 0
    """Seed of everything random."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "learning_rate", "gradient_norm"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be positive")
        size = self.network.resolution
        if self.crop % STRIDE or not 0 < self.crop <= size:
            raise AvfaceError(f"crop={self.crop} must be a multiple of {STRIDE}, at most {size}")
        if self.frames.resolution != size:
            raise AvfaceError(f"frames must have the network's resolution, {size}")


@dataclass(frozen=True)
class DetailTraining:
    """Train the detail network."""

    out: Path = Path("detail.safetensors")
    """File of the weights; the checkpoint lies beside it."""
    cache: Path | None = None
    """Folder of the frames; by default `detail-frames` beside the weights."""
    recipe: DetailRecipe = field(default_factory=DetailRecipe)
    """What decides about the weights."""
    start: Path | None = None
    """Weights to begin with, such as those of an earlier run; by default new ones."""
    vgg: Path | None = None
    """File of torchvision's VGG-19 weights, for the ID-MRF loss."""
    device: Literal["cpu", "cuda", "mps"] = "cpu"
    """What computes."""
    threads: int = 1
    """CPU threads."""
    time_limit: float | None = None
    """Minutes of training, those before a checkpoint included: the learning rate falls so that the run ends by then."""
    checkpoint_every: int = 200
    """Steps between checkpoints; weights are written then too."""
    report_every: int = 50
    """Steps between two reports of the losses."""

    @property
    def checkpoint(self) -> Path:
        """Where the run's state is kept."""
        return self.out.with_name(f"{self.out.stem}.checkpoint.safetensors")

    @property
    def frames(self) -> Path:
        """Where the frames are kept."""
        return self.cache or self.out.with_name("detail-frames")


@dataclass(frozen=True, eq=False)
class DetailBatch:
    """B crops of C x C texels, cut out at row and column `corner`.

    maps (B, 7, C, C), speech (B, 16, D), displacement (B, C, C) metres, image (B, 3, C, C) from 0 to 1, coarse
    (B, 3, C, C) normals, seen (B, C, C) from 0 to 1 of what the picture shows truly.
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
    """Which frames (N,) aren't learned from."""
    return frames.person % HELD_OUT == HELD_OUT - 2


class DetailBatches:
    """Random crops of frames, made from the recipe's seed and the step."""

    def __init__(self, recipe: DetailRecipe, frames: DetailFrames, mask: Tensor) -> None:
        self.recipe, self.frames = recipe, frames
        folded = frames.displacement.float().abs().mean((1, 2)).double().numpy()
        chance = recipe.smooth + (1 - recipe.smooth) * folded / max(folded.mean(), 1e-9)
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
        image, normals, visibility, hidden, displacement = (
            _cut(getattr(frames, name), corner, recipe.crop)[rows]
            for name in ("image", "normals", "visibility", "hidden", "displacement")
        )
        mirrored = torch.from_numpy(rng.random(recipe.batch) < 0.5)
        if bool(mirrored.any()):  # the crop of the other side, turned round
            other = corner[0], recipe.network.resolution - recipe.crop - corner[1]
            turned = rows[mirrored]
            for name, part in (
                ("image", image),
                ("normals", normals),
                ("visibility", visibility),
                ("hidden", hidden),
                ("displacement", displacement),
            ):
                part[mirrored] = _cut(getattr(frames, name), other, recipe.crop)[turned].flip(-1)
            normals[mirrored, 0] *= -1
        coarse = unit(normals.float(), 1)
        shown_at_all, true = visibility.float() / 255, displacement.float() * 1e-6
        picture = _recoloured(image.float() / 255, rng)
        told = torch.from_numpy(rng.random(recipe.batch) < recipe.told)[:, None, None]
        picture, odd = _with_strangers(picture, rng, recipe.strangers)
        holes = _blobs(rng, recipe.crop, recipe.batch) & _chosen(rng, recipe.batch, recipe.holes)
        shown = shown_at_all * ~(hidden & told) * ~holes
        maps = DetailMaps(picture * (shown > 0)[:, None], coarse, shown).stacked()
        speech = frames.speech[rows].float()
        speech[torch.from_numpy(rng.random(recipe.batch) < recipe.silenced)] = 0.0
        seen = shown_at_all * ~hidden * ~odd * ~holes
        return DetailBatch(corner, maps, speech, true, picture, coarse, seen)


def _cut(maps: Tensor, corner: tuple[int, int], size: int) -> Tensor:
    return maps[..., corner[0] : corner[0] + size, corner[1] : corner[1] + size]


def _chosen(rng: np.random.Generator, count: int, share: float) -> Tensor:
    return torch.from_numpy(rng.random(count) < share)[:, None, None]


def _recoloured(image: Tensor, rng: np.random.Generator) -> Tensor:
    """Pictures (B, 3, R, R) under another exposure, white balance and contrast, with noise."""
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
    """Random areas (B, R, R) bool of a third of the window or less."""
    field = _noise(rng, size, count, int(rng.integers(3, 7)))[:, 0]
    level = torch.from_numpy(rng.uniform(0.6, 1.6, (count, 1, 1)).astype(np.float32))
    return field > level


def _with_strangers(image: Tensor, rng: np.random.Generator, share: float) -> tuple[Tensor, Tensor]:
    """Pictures (B, 3, R, R), some with strands, frames of glasses and patches on the skin; and where (B, R, R).

    They are flat pictures without any shape: what looks like them isn't relief.
    """
    count, size = len(image), image.shape[-1]
    strands = _noise(rng, size, count, int(rng.integers(3, 8)))[:, 0]
    patches = _noise(rng, size, count, int(rng.integers(3, 6)))[:, 0]
    width = torch.from_numpy(rng.uniform(0.01, 0.1, (count, 1, 1)).astype(np.float32))
    near = _blobs(rng, size, count)
    odd = ((strands.abs() < width) | (patches > 1.3)) & near & _chosen(rng, count, share)
    colour = torch.from_numpy(rng.uniform(0, 0.9, (count, 3, 1, 1)).astype(np.float32) ** 2)
    grain = 0.04 * _noise(rng, size, count, size // 4)
    return torch.where(odd[:, None], (colour + grain).clamp(0, 1), image), odd


class DetailObjective:
    """The losses of a batch."""

    def __init__(
        self, recipe: DetailRecipe, atlas: DetailAtlas, device: str, vgg: Path | None = None
    ) -> None:
        """For crops on a device; vgg is the file of VGG-19's weights.

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
            detailed = on_coarse(batch.coarse, predicted)
            seen = batch.seen * mask
            texture = texture_of_detail(batch.coarse, detailed, batch.image, seen)
            losses["photometric"] = weights.photometric * photometric_loss(texture, batch.image, seen)
            if self.mrf is None:
                losses["structure"] = weights.mrf * structure_loss(texture, batch.image, seen)
            else:
                shown = seen[:, None]
                losses["mrf"] = weights.mrf * self.mrf(texture * shown, batch.image * shown)
        return losses


def train(training: DetailTraining) -> DetailNetwork:
    """Train, from the checkpoint if there is one, and write the weights, which are given back.

    Raises:
        AvfaceError: if a file is damaged or can't be written, or the checkpoint belongs to another recipe.
    """
    recipe = training.recipe
    make_folder_of(training.out)
    torch.set_num_threads(training.threads)
    torch.manual_seed(recipe.seed)
    head = load_head(recipe.network.head)
    atlas = detail_atlas(head, recipe.network.resolution)
    network = DetailNetwork.of(head, recipe.network)
    if training.start is not None:
        network.load_state_dict(_weights_of(training.start, recipe.network))
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(recipe.averaging), use_buffers=True)
    optimiser = AdamW(network.parameters(), weight_decay=recipe.weight_decay)
    with Bar(*bar_columns()) as bar:
        making = bar.add_task("frames", total=None, note="")
        frames = read_frames(training, lambda done, total: bar.update(making, completed=done, total=total))
        bar.remove_task(making)
        batches = DetailBatches(recipe, frames.select(~held_out(frames)), atlas.mask)
        objective = DetailObjective(recipe, atlas, training.device, training.vgg)
        network.to(training.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        average.to(training.device)
        progress = Progress()
        if training.checkpoint.exists():
            progress = load_checkpoint(
                training.checkpoint, CHECKPOINT, asdict(recipe), network, average, optimiser
            )
        task = bar.add_task("detail", total=recipe.steps, completed=progress.step, note="")
        descent = Descent(training, network, average, optimiser, progress, bar, task)
        network.train()
        while (share := descent.share(progress.step / recipe.steps)) < 1:
            batch = batches[progress.step].to(training.device)
            with torch.autocast(training.device, torch.bfloat16, enabled=recipe.bfloat16):
                maps = batch.maps.contiguous(memory_format=torch.channels_last)
                found = network(maps, batch.speech, batch.corner)
            rate = warmed_cosine(recipe.learning_rate, progress.step + 1, recipe.warm_up, share)
            descent.step(objective(found.float(), batch), rate)
            if progress.step % training.checkpoint_every == 0:
                _keep(training, descent)
    _keep(training, descent)
    result = average.module
    assert isinstance(result, DetailNetwork)
    return result.cpu().eval()


def _weights_of(path: Path, config: DetailConfig) -> dict[str, Tensor]:
    found = load_detail(path)
    if found.config != config:
        raise AvfaceError(
            f"{path}: of another size than the network to train; name other weights to start with"
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
        workers=training.threads,
        on_person=on_person,
    )


def _keep(training: DetailTraining, descent: Descent) -> None:
    """Write checkpoint and weights."""
    descent.keep(training.checkpoint, CHECKPOINT)
    assert isinstance(descent.average.module, DetailNetwork)
    save_detail(descent.average.module, training.out, descent.metadata())


def main() -> None:
    """Train as the command says."""
    try:
        train(tyro.cli(DetailTraining, description=__doc__))
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
