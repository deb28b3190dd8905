"""Training of the occlusion detection (`avface.tracking.visibility`) on synthetic clips: `avface train visibility`.

    avface train visibility CLIPS           # folders of synthetic clips: makes the shipped files again

Textures are sampled at the tracked points (`ClipTruth.tracked`) and compared with their median; a network of one hidden
layer is trained on the occlusion masks of the ground truth. It is fitted twice: the second time, the median leaves out
what the first fit detected, as at inference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from torch import nn

from avface.arrays import F32, F64, U8, Bool
from avface.errors import AvfaceError
from avface.files import replacing
from avface.head import load_head
from avface.media import Clip
from avface.synthetic.truth import ClipTruth
from avface.tracking.face_texture import HEIGHT, LAYOUT_FILE, WIDTH, FaceTexture
from avface.tracking.visibility import REFERENCE_FRAMES, WEIGHTS_FILE, FaceMean, VisibilityModel
from avface.training.loop.config import check_not_negative, check_positive

HIDDEN_UNITS = 16
"""Width of the hidden layer."""
LEAST_FRAMES = 16
"""Frames with a face that a clip needs."""
LEAST_CLEAR = 4
"""Clips without an occluder that the mean face needs."""


@dataclass(frozen=True)
class VisibilityTraining:
    """Fit the occlusion detection. The defaults are the recipe of the shipped weights."""

    clips: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="CLIPS")]
    """Folder of folders with clip.mp4 and truth.npz, as `avface synthesize` writes them."""
    out: Path = WEIGHTS_FILE
    """File of the weights; the layout of the texture is always made for the installed package."""
    count: int = 110
    """Number of clips, in the order of their names; later ones are left for testing."""
    frames: int = 24
    """Frames sampled from each clip."""
    examples: int = 3000
    """Texels sampled from these."""
    occluded_weight: float = 2.5
    """Weight of an occluded texel in the cross entropy: misses cost more than false alarms."""
    steps: int = 600
    """Steps of Adam."""
    batch: int = 4096
    """Texels per step."""
    learning_rate: float = 0.01
    """Initial learning rate; cosine decay to zero."""
    seed: int = 0
    """Seed of sampled texels and initial weights."""

    def __post_init__(self) -> None:
        check_positive(
            self, "count", "frames", "examples", "occluded_weight", "steps", "batch", "learning_rate"
        )
        check_not_negative(self, "seed")


Command = VisibilityTraining
"""What `avface train visibility` parses."""


@dataclass(frozen=True, eq=False)
class Example:
    """Textures (T, N, 4) of a synthetic clip in the frames with a face, and their occluded texels (T, N)."""

    textures: U8
    occluded: Bool


def layout_places() -> F64:
    """Places of the landmarks in the layout, (478, 2) in texels from the left and from the top."""
    head = load_head("open")
    embedding = head.embedding("mediapipe478")
    template = head.template.double().numpy()
    landmarks = embedding.on(template)
    place = np.stack([np.arctan2(landmarks[:, 0], landmarks[:, 2] + 0.02), -landmarks[:, 1]], 1)
    low, high = place[:468].min(0), place[:468].max(0)
    return np.asarray((place - low) / (high - low) * [WIDTH - 1, HEIGHT - 1])


def write_layout(path: Path = LAYOUT_FILE) -> None:
    """Make the texture's layout from the open head: see `avface.tracking.face_texture`."""
    from scipy.spatial import Delaunay

    place = layout_places()
    triangles = Delaunay(place[:468])  # without the irises, which move over the rest
    texels = np.stack(np.meshgrid(np.arange(WIDTH), np.arange(HEIGHT)), -1).reshape(-1, 2).astype(float)
    found = triangles.find_simplex(texels)
    texels, inside = texels[found >= 0], found >= 0
    change = triangles.transform[found[inside]]
    two = np.einsum("nij,nj->ni", change[:, :2], texels - change[:, 2])
    nearest = ((place[:, None] - texels) ** 2).sum(-1).argmin(1)
    with replacing(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            inside=inside.reshape(HEIGHT, WIDTH),
            corners=triangles.simplices[found[inside]].astype(np.uint16),
            weights=np.concatenate([two, 1 - two.sum(1, keepdims=True)], 1).astype(np.float32),
            landmark_texel=nearest.astype(np.uint16),
        )


def read_example(folder: Path, sampler: FaceTexture) -> Example | None:
    """Textures and occlusion masks of a clip; None if too few frames were tracked."""
    truth = ClipTruth.load(folder / "truth.npz")
    textures, occluded = [], []
    for index, frame in enumerate(Clip.open(folder / "clip.mp4").frames()):
        texture = sampler.sample(frame.image, truth.tracked[index])
        if not texture[:, 3].any():
            continue
        mask = (255 * truth.occlusion_mask(index)).astype(np.uint8)
        textures.append(texture)
        occluded.append(sampler.sample(np.repeat(mask[..., None], 3, 2), truth.landmarks[index])[:, 0] >= 128)
    if len(textures) < LEAST_FRAMES:
        return None
    return Example(np.stack(textures), np.stack(occluded))


def face_mean(examples: Sequence[Example]) -> FaceMean:
    """Mean and spread of the medians of clips without occluders, each less its own level."""
    none = np.zeros((examples[0].textures.shape[1], 3), np.float32)
    model = VisibilityModel(FaceMean(none, none + 1))
    medians = []
    for example in examples:
        if not example.occluded.any():
            median = model.reference(_thinned(example.textures)).median
            medians.append(median - np.median(median, 0))
    if len(medians) < LEAST_CLEAR:
        raise AvfaceError(
            f"only {len(medians)} clips without an occluder: at least {LEAST_CLEAR} are needed; make more clips"
        )
    stack = np.stack(medians)
    return FaceMean(stack.mean(0), stack.std(0))


def _always_occluded(example: Example) -> Example | None:
    """The occluded frames alone, as if the occluder were worn for the entire clip. None if there are few."""
    chosen = example.occluded.mean(1) > 0.05
    if chosen.sum() < LEAST_FRAMES:
        return None
    return Example(example.textures[chosen], example.occluded[chosen])


def _thinned(values: U8) -> U8:
    return values[np.unique(np.linspace(0, len(values) - 1, REFERENCE_FRAMES).astype(int))]


def fit(config: VisibilityTraining, examples: Sequence[Example]) -> dict[str, F32]:
    """Fit the network to clips; returns the arrays of the weight file."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    mean = face_mean(examples)
    model = VisibilityModel(mean)
    arrays = {"face_mean": mean.mean, "face_spread": mean.spread}
    values, labels = [], []
    worn = [part for example in examples if (part := _always_occluded(example)) is not None]
    for fitted in (False, True):
        for example in [*examples, *worn]:
            few = _thinned(example.textures)
            reference = model.clear_reference(few) if fitted else model.reference(few)
            frames = rng.permutation(len(example.textures))[: config.frames]
            evidence = model.features(example.textures[frames], reference)
            drawn = rng.integers(0, evidence[..., 0].size, config.examples)
            values.append(evidence.reshape(-1, evidence.shape[-1])[drawn])
            labels.append(example.occluded[frames].reshape(-1)[drawn])
        arrays.update(_fit(config, np.concatenate(values), np.concatenate(labels)))
        model.set_weights(arrays)
    return arrays


def _fit(config: VisibilityTraining, values: F32, labels: Bool) -> dict[str, F32]:
    mean, scale = values.mean(0), values.std(0) + 1e-3
    inputs, targets = torch.as_tensor((values - mean) / scale), torch.as_tensor(labels).float()
    network = nn.Sequential(nn.Linear(values.shape[1], HIDDEN_UNITS), nn.Tanh(), nn.Linear(HIDDEN_UNITS, 1))
    emphasis = torch.tensor(config.occluded_weight)
    optimiser = torch.optim.Adam(network.parameters(), config.learning_rate, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    for _ in range(config.steps):
        chosen = torch.randint(0, len(inputs), (config.batch,))
        loss = nn.functional.binary_cross_entropy_with_logits(
            network(inputs[chosen])[:, 0], targets[chosen], pos_weight=emphasis
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    state = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    weight = state["0.weight"] / scale  # the standardisation is folded into the first layer
    return {
        "hidden_weight": weight.astype(np.float32),
        "hidden_bias": (state["0.bias"] - weight @ mean).astype(np.float32),
        "output_weight": state["2.weight"],
        "output_bias": state["2.bias"],
    }


def train(
    training: VisibilityTraining, on_clip: Callable[[int, int], None] = lambda done, total: None
) -> int:
    """Make layout and weights; returns the number of clips that were used.

    `on_clip` is called with the number of clips that were read and the total.

    Raises:
        AvfaceError: if the folder has no clips with truth, too few of them are without an occluder, or a file can't be
            written.
    """
    folders = sorted(path.parent for path in training.clips.glob("*/truth.npz"))[: training.count]
    if not folders:
        raise AvfaceError(f"{training.clips}: no folders with truth.npz; make clips with `avface synthesize`")
    write_layout()
    sampler = FaceTexture()
    examples = []
    for number, folder in enumerate(folders):
        example = read_example(folder, sampler)
        if example is not None:
            examples.append(example)
        on_clip(number + 1, len(folders))
    arrays = fit(training, examples)
    with replacing(training.out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return len(examples)
