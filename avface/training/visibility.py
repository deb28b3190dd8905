"""Training of what tells hidden parts of a face (`avface.tracking.visibility`), on synthetic clips only.

    python -m avface.training.visibility CLIPS           # folders of synthetic clips: makes the shipped files again

Textures are taken at the points that the tracker saw (`ClipTruth.tracked`) and compared with their median; a network of
one hidden layer learns which texels the truth says are hidden. It is fitted twice: the second time the median leaves
out what the first one found, as it does in use.
"""

from __future__ import annotations

from collections.abc import Sequence
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
from avface.tracking.face_texture import HEIGHT, LAYOUT_FILE, TEXELS, WIDTH, FaceTexture
from avface.tracking.visibility import REFERENCE_FRAMES, WEIGHTS_FILE, FaceMean, VisibilityModel

HIDDEN_UNITS = 16


@dataclass(frozen=True)
class VisibilityTraining:
    """Fit the network. The defaults are the recipe of the shipped weights."""

    clips: Annotated[Path, tyro.conf.Positional]
    """Folder of folders with clip.mp4 and truth.npz, as `avface synthesize` writes them."""
    out: Path = WEIGHTS_FILE
    """File of the weights."""
    count: int = 110
    """Clips used, in the order of their names; later ones are left for testing."""
    frames: int = 24
    """Frames drawn from each clip."""
    examples: int = 3000
    """Texels drawn from these."""
    hidden_weight: float = 2.5
    """Of a hidden texel over one that isn't: what is missed costs more than what is taken away needlessly."""
    steps: int = 600
    """Steps of Adam, each with `batch` texels."""
    batch: int = 4096
    """Texels a step."""
    learning_rate: float = 0.01
    """At the beginning; falls to zero as a cosine."""
    seed: int = 0
    """Seed of texels drawn and first weights."""


@dataclass(frozen=True, eq=False)
class Example:
    """The textures (T, N, 4) of a synthetic clip in the frames with a face, and what is hidden (T, N)."""

    textures: U8
    hidden: Bool


def layout_places() -> F64:
    """Where the landmarks lie in the layout, (478, 2) in texels from the left and from the top."""
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
    triangles = Delaunay(place[:468])  # without the irises, which slide over the rest
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
    """The textures of a clip with its truth; None where the tracker saw too little."""
    truth = ClipTruth.load(folder / "truth.npz")
    textures, hidden = [], []
    for index, frame in enumerate(Clip.open(folder / "clip.mp4").frames()):
        texture = sampler.sample(frame.image, truth.tracked[index])
        if not texture[:, 3].any():
            continue
        mask = (255 * truth.occlusion_mask(index)).astype(np.uint8)
        textures.append(texture)
        hidden.append(sampler.sample(np.repeat(mask[..., None], 3, 2), truth.landmarks[index])[:, 0] >= 128)
    if len(textures) < 16:
        return None
    return Example(np.stack(textures), np.stack(hidden))


def face_mean(examples: Sequence[Example]) -> FaceMean:
    """The average of many faces, each clip's median less its own level; of clips without occluders."""
    model = VisibilityModel(FaceMean(np.zeros((TEXELS, 3), np.float32), np.ones((TEXELS, 3), np.float32)))
    looks = []
    for example in examples:
        if not example.hidden.any():
            median = model.reference(_thinned(example.textures)).median
            looks.append(median - np.median(median, 0))
    if len(looks) < 4:
        raise AvfaceError(
            f"only {len(looks)} clips without an occluder: at least 4 are needed; make more clips"
        )
    stack = np.stack(looks)
    return FaceMean(stack.mean(0), stack.std(0))


def _always_hidden(example: Example) -> Example | None:
    """The frames in which something is hidden: as if it were worn for the entire clip. None if there are few."""
    chosen = example.hidden.mean(1) > 0.05
    return Example(example.textures[chosen], example.hidden[chosen]) if chosen.sum() >= 16 else None


def _thinned(values: U8) -> U8:
    return values[np.unique(np.linspace(0, len(values) - 1, REFERENCE_FRAMES).astype(int))]


def train(config: VisibilityTraining, examples: Sequence[Example]) -> dict[str, F32]:
    """Fit the network to clips; returns the arrays of the file of weights."""
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    mean = face_mean(examples)
    model = VisibilityModel(mean)
    arrays = {"face_mean": mean.mean, "face_spread": mean.spread}
    values, labels = [], []
    worn = [part for example in examples if (part := _always_hidden(example)) is not None]
    for fitted in (False, True):
        for example in [*examples, *worn]:
            few = _thinned(example.textures)
            reference = model.clear_reference(few) if fitted else model.reference(few)
            frames = rng.permutation(len(example.textures))[: config.frames]
            evidence = model.features(example.textures[frames], reference)
            drawn = rng.integers(0, evidence[..., 0].size, config.examples)
            values.append(evidence.reshape(-1, evidence.shape[-1])[drawn])
            labels.append(example.hidden[frames].reshape(-1)[drawn])
        arrays.update(_fit(config, np.concatenate(values), np.concatenate(labels)))
        model.set_weights(arrays)
    return arrays


def _fit(config: VisibilityTraining, values: F32, labels: Bool) -> dict[str, F32]:
    mean, scale = values.mean(0), values.std(0) + 1e-3
    inputs, targets = torch.as_tensor((values - mean) / scale), torch.as_tensor(labels).float()
    network = nn.Sequential(nn.Linear(values.shape[1], HIDDEN_UNITS), nn.Tanh(), nn.Linear(HIDDEN_UNITS, 1))
    emphasis = torch.tensor(config.hidden_weight)
    optimiser = torch.optim.Adam(network.parameters(), config.learning_rate, weight_decay=1e-5)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
    for step in range(config.steps):
        chosen = torch.randint(0, len(inputs), (config.batch,))
        loss = nn.functional.binary_cross_entropy_with_logits(
            network(inputs[chosen])[:, 0], targets[chosen], pos_weight=emphasis
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 200 == 0:
            print(f"step {step + 1}: cross entropy {loss.item():.4f}", flush=True)
    state = {name: value.detach().numpy() for name, value in network.state_dict().items()}
    weight = state["0.weight"] / scale  # the network takes the evidence as it comes
    return {
        "hidden_weight": weight.astype(np.float32),
        "hidden_bias": (state["0.bias"] - weight @ mean).astype(np.float32),
        "output_weight": state["2.weight"],
        "output_bias": state["2.bias"],
    }


def main(config: VisibilityTraining) -> None:
    """Make layout and weights."""
    folders = sorted(path.parent for path in config.clips.glob("*/truth.npz"))[: config.count]
    if not folders:
        raise AvfaceError(f"{config.clips}: no folders with truth.npz; make clips with `avface synthesize`")
    write_layout()
    sampler = FaceTexture()
    examples = [example for folder in folders if (example := read_example(folder, sampler)) is not None]
    arrays = train(config, examples)
    with replacing(config.out) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)
    print(f"{config.out}: {config.out.stat().st_size / 1e3:.0f} kB, from {len(examples)} clips")


if __name__ == "__main__":
    main(tyro.cli(VisibilityTraining))
