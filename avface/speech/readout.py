"""The speech readout: what the states of the speech encoder say about mouth and voice, 41.67 rows a second.

The encoder (`avface.speech.moonshine`) was trained on real speech, the readout on synthetic speech, where phones and
lips are known: logits of 29 phone classes, opening and closure of the lips, loudness of the voice. `Hearing` runs both
over a sound of any length, `avface.speech.stream` over sound that arrives in parts; their rows are the same. Training:
`avface.training.hearing.train`; card: docs/model_cards/hearing.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import torch
from torch import Tensor, nn

from avface.errors import AvfaceError
from avface.files.weight_file import Pretrained, WeightFormat
from avface.speech.dilated_block import DilatedBlock
from avface.speech.moonshine import (
    MoonshineEncoder,
    encoded_block,
    encoded_blocks,
    pretrained_moonshine,
    sound_block,
)
from avface.speech.phones import SILENCE, SYMBOLS

LAYERS = (2, 3, 5)
"""Layers of the encoder whose states are read, from 0."""


@dataclass(frozen=True)
class ReadoutConfig:
    """Config of the readout, saved with its weights."""

    states: int = 288
    """Size of the encoder's states."""
    channels: int = 128
    """Channels of every layer."""
    dilations: tuple[int, ...] = (1, 2, 4)
    """Dilation in rows of the three taps of each residual block."""
    opening_taps: int = 5
    """Rows in the input of the linear filters of the lips' opening; odd."""

    def __post_init__(self) -> None:
        if min(self.states, self.channels) < 1:
            raise AvfaceError(f"states={self.states} and channels={self.channels} must be above 0")
        if any(dilation < 1 for dilation in self.dilations):
            raise AvfaceError(f"dilations={self.dilations} must all be above 0")
        if self.opening_taps < 1 or self.opening_taps % 2 == 0:
            raise AvfaceError(f"opening_taps={self.opening_taps} must be odd and above 0")


@dataclass(frozen=True)
class ReadoutOutput:
    """What the readout says of B sounds with R rows each; logits but for the opening and the loudness."""

    phones: Tensor
    """(B, R, 29) logits of `avface.speech.phones.SYMBOLS`."""
    opening: Tensor
    """(B, R) of the lips, about 0 to 1."""
    closed: Tensor
    """(B, R) logit of closed lips in speech."""
    loudness: Tensor
    """(B, R) of the voice, about 0 to 1."""


@dataclass(frozen=True)
class HearingRows:
    """What is heard in R rows; row n lies at `FIRST_ROW` + n * `ROW_SECONDS` of `avface.speech.moonshine`."""

    features: Tensor
    """(R, 29) phone logits, standardised over the training data."""
    phones: Tensor
    """(R, 29) probability of each phone."""
    activity: Tensor
    """(R,) probability of speech."""
    opening: Tensor
    """(R,) opening of the lips, 0 (closed) to 1 (wide open)."""
    closure: Tensor
    """(R,) probability that lips are closed in speech: p, b, m."""
    loudness: Tensor
    """(R,) of the voice, 0 to 1 for its loud parts."""

    def __len__(self) -> int:
        return len(self.opening)

    def outputs(self) -> Tensor:
        """(R, 4) activity, opening, closure and loudness."""
        return torch.stack([self.activity, self.opening, self.closure, self.loudness], 1)


class SpeechReadout(nn.Module):
    """Linear layer on the standardised states, dilated residual blocks, linear heads."""

    state_mean: Tensor
    state_scale: Tensor
    logit_mean: Tensor
    logit_scale: Tensor

    def __init__(self, config: ReadoutConfig | None = None) -> None:
        super().__init__()
        self.config = config or ReadoutConfig()
        inputs, channels = len(LAYERS) * self.config.states, self.config.channels
        self.register_buffer("state_mean", torch.zeros(inputs))
        self.register_buffer("state_scale", torch.ones(inputs))
        self.entry = nn.Linear(inputs, channels)
        self.blocks = nn.ModuleList(DilatedBlock(channels, dilation) for dilation in self.config.dilations)
        self.norm = nn.LayerNorm(channels)
        self.phones = nn.Linear(channels, len(SYMBOLS))
        taps = self.config.opening_taps
        self.lips = nn.Conv1d(channels, 3, taps, padding=taps // 2)
        self.register_buffer("logit_mean", torch.zeros(len(SYMBOLS)))
        self.register_buffer("logit_scale", torch.ones(len(SYMBOLS)))

    def forward(self, states: Tensor) -> ReadoutOutput:
        """states (B, R, L, D) of the encoder's layers `LAYERS`."""
        rows = self.entry((states.flatten(2) - self.state_mean) / self.state_scale).transpose(1, 2)
        for block in self.blocks:
            rows = block(rows)
        rows = self.norm(rows.transpose(1, 2))
        opening, closed, loudness = self.lips(rows.transpose(1, 2)).unbind(1)
        return ReadoutOutput(self.phones(rows), opening, closed, loudness)

    @torch.no_grad()
    def rows(self, states: Tensor) -> HearingRows:
        """What is heard, from the states (R, L, D) of one sound; lips rest where nobody speaks."""
        out = self(states[None])
        logits = out.phones[0]
        phones = logits.softmax(-1)
        activity = 1 - phones[:, SILENCE]
        return HearingRows(
            (logits - self.logit_mean) / self.logit_scale,
            phones,
            activity,
            out.opening[0].clamp(0, 1),
            out.closed[0].sigmoid() * activity,
            out.loudness[0].clamp(0, 1),
        )


FORMAT = WeightFormat(
    network="speech readout",
    config=ReadoutConfig,
    tag="avface speech readout 1",
    training="avface train hearing",
    half_precision=True,
)
"""The weight file of the readout."""


def save_readout(readout: SpeechReadout, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the weights in half precision with the config and any further metadata; the file appears whole.

    Raises:
        AvfaceError: if it can't be written.
    """
    FORMAT.save(path, readout, readout.config, metadata)


def load_readout(path: str | Path) -> SpeechReadout:
    """Read a readout that `save_readout` wrote, in evaluation mode and without gradients.

    Raises:
        AvfaceError: if the file is missing, damaged or of another network.
    """
    return FORMAT.read(path).network(SpeechReadout).requires_grad_(False)


pretrained_readout = Pretrained("speech", "hearing.safetensors", load_readout)
"""The weights that come with avface."""
HEARING_FILES = (pretrained_moonshine.path, pretrained_readout.path)
"""The files on which speech features depend."""


def states_read(states: list[Tensor]) -> Tensor:
    """Those states (R, L, D) of the encoder's layers, (R, D) each, that the readout takes."""
    return torch.stack([states[layer] for layer in LAYERS], 1)


@dataclass(frozen=True, eq=False)
class Hearing:
    """Encoder and readout."""

    encoder: MoonshineEncoder
    readout: SpeechReadout

    def hear(self, sound: Tensor) -> HearingRows:
        """What is heard in (N,) samples at 16 kHz, on their device."""
        blocks = encoded_blocks(self.encoder, sound)
        return joined([self.readout.rows(states_read(states)) for states in blocks])

    def block(self, number: int, sound: Tensor, end: int | None, first: int = 0) -> HearingRows:
        """Block `number` of a sound that ends after `end` samples (None: later than this block needs).

        sound (N,) begins at sample `first`.
        """
        block = sound_block(number, end)
        return self.readout.rows(states_read(encoded_block(self.encoder, sound, block, first)))


def pretrained_hearing(device: str = "cpu") -> Hearing:
    """Encoder and readout that come with avface, loaded once.

    Raises:
        AvfaceError: if a file is missing or damaged.
    """
    return Hearing(pretrained_moonshine(device), pretrained_readout(device))


def joined(parts: list[HearingRows]) -> HearingRows:
    """Consecutive rows as one."""
    return HearingRows(
        *(torch.cat([getattr(part, one.name) for part in parts]) for one in fields(HearingRows))
    )
