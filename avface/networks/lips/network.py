"""The lips network: 3D offsets of the lips' vertices from speech features (AVFace, section 3.2).

A SIREN whose layers are modulated by the sound (FiLM). Layers, sizes and initialisation are those of the geometry
network of Neural Head Avatars (Grassal et al. 2022), which AVFace follows; NHA's condition is the pose, here it is an
embedding of the speech features. One network for all speakers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from avface.arrays import F32, F64, Floats, Int
from avface.errors import AvfaceError
from avface.files.weight_file import Pretrained, WeightFormat
from avface.geometry.interpolation import smoothstep
from avface.head.lips import lip_region
from avface.head.model import HeadModel
from avface.networks.audio import AudioConfig, AudioNet

EFFECTS = ("press", "tuck", "round", "spread")
"""Deformations of the lips that expression units lack: pressed together, tucked under the teeth, everted and thickened,
thinned."""
GATE_ACTIVITY = (0.2, 0.6)
"""Speech activity from which on the gate begins to open, and from which on it is fully open."""
GATE_HOLD = 0.22
"""Seconds before and after speech in which the gate is fully open; articulation precedes the voice."""
GATE_FADE = 0.12
"""Seconds over which the gate opens and closes."""
_GRID = 0.01


@dataclass(frozen=True)
class LipsConfig:
    """Config of the lips network, saved with its weights."""

    head: str = "open"
    """Name of the head model."""
    vertices: int = 392
    """Number of vertices N of its lip region; `LipsNetwork.of` takes that of the head."""
    points: int = 96
    """Number of control vertices K, for which the network predicts offsets; those of the others are interpolated."""
    audio: AudioConfig = field(default_factory=AudioConfig)
    """Input of the audio encoder."""
    embedding: int = 64
    """Size of the audio embedding."""
    feature: int = 32
    """Size of the learned feature of each control vertex."""
    hidden: int = 128
    """Width of the modulated layers."""
    layers: int = 6
    """Number of modulated layers."""
    mapping: int = 256
    """Width of the layers that map the embedding to frequencies and phases."""
    scale: float = 0.01
    """Bound of the offset of a control vertex in each direction, in metres (of a tanh)."""

    def __post_init__(self) -> None:
        for name in ("vertices", "points", "embedding", "feature", "hidden", "layers", "mapping", "scale"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")
        if self.points > self.vertices:
            raise AvfaceError(f"points={self.points} must be at most vertices={self.vertices}")


@dataclass(frozen=True, eq=False)
class LipMotion:
    """Prediction of the network for T frames.

    offsets (..., T, N, 3) metres, to be added to the region's vertices before skinning; effects (..., T, 4) from 0 to
    1, the strength of each of `EFFECTS`.
    """

    offsets: Tensor
    effects: Tensor

    @property
    def closure(self) -> Tensor:
        """Closure of the lips, (..., T) from 0 to 1, from the effect "press"."""
        return closure(self.effects[..., 0])


def closure(press: Tensor) -> Tensor:
    """Closure from 0 to 1 of lips with the effect "press" of this strength; lips close before they press."""
    return smoothstep(0.3, 0.7, press)


class SineLayer(nn.Module):
    """sin(frequency * (W x + b) + phase), with a frequency and a phase for each output."""

    def __init__(self, inputs: int, outputs: int, first: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        bound = 1 / inputs if first else math.sqrt(6 / inputs) / 25
        nn.init.uniform_(self.linear.weight, -bound, bound)

    def forward(self, x: Tensor, frequency: Tensor, phase: Tensor) -> Tensor:
        """x (B or 1, N, inputs), frequency and phase (B, outputs) -> (B, N, outputs)."""
        if len(x) == 1:  # shared by all frames: the output is modulated instead of the weights
            return torch.sin(torch.addcmul(phase[:, None], frequency[:, None], self.linear(x)))
        weight = frequency[:, None] * self.linear.weight.T
        bias = torch.addcmul(phase, frequency, self.linear.bias)
        return torch.sin(torch.baddbmm(bias[:, None], x, weight))


class LipsNetwork(nn.Module):
    """Speech features -> offsets of the lips.

    The input of each of the K control vertices is its position on the average face, normalised to [-1, 1] (`place`),
    and a learned feature. The offsets of the N vertices of the region are interpolated by `spread` (N, K) and fade to 0
    at the region's edge by `falloff` (N,). `numbers` (N,) are indices of the head's vertices. A new network predicts
    offsets of 0.
    """

    place: Tensor
    spread: Tensor
    falloff: Tensor
    numbers: Tensor

    def __init__(self, config: LipsConfig) -> None:
        """Initialise from a config; the buffers of the head's lips are set by `of` or by loading weights."""
        super().__init__()
        self.config = config
        self.register_buffer("place", torch.zeros(config.points, 3))
        self.register_buffer("spread", torch.zeros(config.vertices, config.points))
        self.register_buffer("falloff", torch.zeros(config.vertices))
        self.register_buffer("numbers", torch.zeros(config.vertices, dtype=torch.int64))
        self.feature = nn.Parameter(torch.randn(config.points, config.feature) * 0.02)
        self.audio = AudioNet(config.audio, config.embedding)
        widths = [config.embedding, config.mapping, config.mapping, config.mapping]
        mapping: list[nn.Module] = []
        for before, after in pairwise(widths):
            mapping += [nn.Linear(before, after), nn.LeakyReLU(0.2)]
        mapping.append(nn.Linear(config.mapping, 2 * config.layers * config.hidden))
        for layer in mapping[::2]:
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight, a=0.2, mode="fan_in", nonlinearity="leaky_relu")
        assert isinstance(mapping[-1], nn.Linear)
        with torch.no_grad():
            mapping[-1].weight *= 0.25
        self.mapping = nn.Sequential(*mapping)
        inputs = [3 + config.feature] + [config.hidden] * (config.layers - 1)
        self.body = nn.ModuleList(
            SineLayer(width, config.hidden, number == 0) for number, width in enumerate(inputs)
        )
        self.out = nn.Linear(config.hidden, 3)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)
        self.hearing = nn.Linear(config.embedding, len(EFFECTS))

    @classmethod
    def of(cls, head: HeadModel, config: LipsConfig | None = None) -> LipsNetwork:
        """A new network for a head's lips.

        Raises:
            AvfaceError: if the head has no lip region (`lip_region`).
        """
        region = lip_region(head)
        network = cls(replace(config or LipsConfig(), head=head.name, vertices=len(region)))
        config = network.config
        points = head.template.detach().cpu().double().numpy()[region.vertices]
        chosen = _farthest_points(points, config.points)
        low, high = points.min(0), points.max(0)
        network.place.copy_(torch.from_numpy(2 * (points[chosen] - low) / (high - low) - 1))
        network.spread.copy_(torch.from_numpy(_biharmonic_weights(points, region.faces, chosen)))
        network.falloff.copy_(torch.from_numpy(region.falloff))
        network.numbers.copy_(torch.from_numpy(region.vertices))
        return network

    def forward(self, speech: Tensor, gate: Tensor) -> LipMotion:
        """Predict frames independently.

        speech (..., 16, D) features around each frame; gate (...) as `speech_gate` makes it.
        """
        lead = speech.shape[:-2]
        embedded = self.audio(speech).reshape(-1, self.config.embedding)
        modulation = self.mapping(embedded).view(-1, 2, self.config.layers, self.config.hidden)
        frequency, phase = 15 * modulation[:, 0] + 30, modulation[:, 1]
        x = torch.cat([self.place, self.feature], -1)[None]
        for number, layer in enumerate(self.body):
            x = layer(x, frequency[:, number], phase[:, number])
        weight = self.config.scale * gate.reshape(-1, 1) * self.falloff
        offsets = (self.spread @ torch.tanh(self.out(x))) * weight[..., None]
        effects = torch.sigmoid(self.hearing(embedded)) * gate.reshape(-1, 1)
        return LipMotion(offsets.view(*lead, self.config.vertices, 3), effects.view(*lead, len(EFFECTS)))

    def predict_effects(self, speech: Tensor, gate: Tensor) -> Tensor:
        """The effects alone, (..., 4), see `forward`."""
        effects: Tensor = torch.sigmoid(self.hearing(self.audio(speech))) * gate[..., None]
        return effects

    def saturated(self, offsets: Tensor) -> Tensor:
        """Share of offsets (..., N, 3) beyond nine tenths of their bound, over vertices with full falloff."""
        full = offsets[..., self.falloff > 0.99, :]
        return (full.abs() > 0.9 * self.config.scale).float().mean()


def _farthest_points(points: F64, count: int) -> Int:
    """Indices (count,) of points (N, 3) by farthest point sampling, sorted."""
    chosen = [int(np.linalg.norm(points - points.mean(0), axis=1).argmax())]
    distance = np.linalg.norm(points - points[chosen[0]], axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return np.sort(chosen)


def _biharmonic_weights(points: F64, faces: Int, chosen: Int) -> F64:
    """Weights (N, K) of biharmonic interpolation on a mesh from K chosen vertices to all N.

    They minimise the squared graph Laplacian with inverse edge lengths as weights. Lips that touch without a common
    edge don't influence each other.
    """
    edges = np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]])
    laplacian = np.zeros((len(points), len(points)))
    stiff = 1 / np.maximum(np.linalg.norm(points[edges[:, 0]] - points[edges[:, 1]], axis=1), 1e-4)
    for one, other in (edges.T, edges.T[::-1]):
        laplacian[one, other] = -stiff
    np.fill_diagonal(laplacian, -laplacian.sum(1))
    laplacian /= np.maximum(laplacian.diagonal(), 1e-9)[:, None]
    energy = laplacian.T @ laplacian + 1e-9 * np.eye(len(points))
    free = np.setdiff1d(np.arange(len(points)), chosen)
    shares = np.zeros((len(points), len(chosen)))
    shares[chosen, np.arange(len(chosen))] = 1
    shares[free] = -np.linalg.solve(energy[np.ix_(free, free)], energy[np.ix_(free, chosen)])
    return shares


def speech_gate(activity: Floats, times: F64) -> F32:
    """Gate of the offsets, (T,): 1 in and around speech, exactly 0 in silence and without sound, smooth in between.

    activity (T,) as `avface.speech.SpeechFeatures.speech_activity`; times (T,) ascending seconds of the frames.
    """
    from scipy.ndimage import convolve1d, maximum_filter1d

    times = np.asarray(times, np.float64)
    if not len(times):
        return np.zeros(0, np.float32)
    margin = GATE_HOLD + 2 * GATE_FADE
    grid = np.arange(times[0] - margin, times[-1] + margin + _GRID, _GRID)
    low, high = GATE_ACTIVITY
    active = np.clip((np.interp(grid, times, activity) - low) / (high - low), 0, 1)
    window = 2 * round((GATE_HOLD + GATE_FADE / 2) / _GRID) + 1
    near = maximum_filter1d(active, window, mode="nearest")
    kernel = np.hanning(2 * round(GATE_FADE / 2 / _GRID) + 3)
    # exactly 0 in silence: only products and sums of zeros
    smooth = convolve1d(near, kernel / kernel.sum(), mode="nearest")
    return np.interp(times, grid, smooth).clip(0, 1).astype(np.float32)


@torch.no_grad()
def predict_lips(
    network: LipsNetwork,
    speech: Floats,
    gate: F32,
    batch: int = 64,
) -> LipMotion:
    """Offsets (T, N, 3) and effects (T, 4) of a clip.

    speech (T, 16, D) as `speech_features` gives it, gate (T,) as `speech_gate`. Frames whose gate is 0 aren't computed.
    """
    device = network.place.device
    opened = torch.from_numpy(gate)
    offsets = torch.zeros(len(gate), network.config.vertices, 3)
    effects = torch.zeros(len(gate), len(EFFECTS))
    moving = opened.nonzero()[:, 0]
    for rows in moving.split(batch) if len(moving) else ():
        features = torch.from_numpy(np.asarray(speech, np.float32)[rows.numpy()]).to(device)
        motion = network(features, opened[rows].to(device))
        offsets[rows], effects[rows] = motion.offsets.cpu(), motion.effects.cpu()
    return LipMotion(offsets, effects)


FORMAT = WeightFormat(
    network="lips network",
    config=LipsConfig,
    tag="avface lips network 1",
    training="avface train lips",
)
"""The weight file of this network."""


def save_lips(network: LipsNetwork, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the weights with the config and any further metadata; the file appears whole.

    Raises:
        AvfaceError: if it can't be written.
    """
    FORMAT.save(path, network, network.config, metadata)


def load_lips(path: str | Path) -> LipsNetwork:
    """Read a network that `save_lips` wrote, in evaluation mode.

    Raises:
        AvfaceError: if the file is missing, damaged or of another network.
    """
    return FORMAT.read(path).network(LipsNetwork)


pretrained_lips = Pretrained("networks", "lips.safetensors", load_lips)
"""The weights that come with avface, for the open head."""


def check_lips(network: LipsNetwork, head: HeadModel) -> None:
    """Check that a network was trained for the lips of a head.

    Raises:
        AvfaceError: if it wasn't.
    """
    region = lip_region(head)
    if not np.array_equal(network.numbers.cpu().numpy(), region.vertices):
        raise AvfaceError(
            f"these lips are of the {network.config.head} head, not of {head.name}; train them for it"
        )
