"""The acoustic model: from sound to 29 phone classes, speech activity and how far the mouth is open, 50 times a second.

A convolutional network over log-mel spectra. It sees 0.42 s before and after each row and nothing else, so sound of any
length is worked through in blocks that overlap by that much, and the result doesn't depend on where the blocks begin.
How it was trained, on synthetic speech only: `avface.training.acoustic.train` and docs/model_cards/acoustic.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from avface.errors import AvfaceError
from avface.files.weight_file import Pretrained, WeightFormat
from avface.speech.phones import SILENCE, SYMBOLS
from avface.speech.spectrum import SAMPLE_RATE, mel_filters, spectra

BANDS = 40
"""Mel bands."""
WINDOW, FFT, HOP = 400, 512, 160
"""Samples of the analysis window (25 ms), of the FFT and between spectra (10 ms)."""
LOWEST, HIGHEST = 60.0, 7600.0
"""Range of the mel bands in Hz."""
ROW_SECONDS = 2 * HOP / SAMPLE_RATE
"""Seconds between the model's rows (20 ms); row n lies at n * ROW_SECONDS."""
QUIET = 1e-12
"""Power added to every band, nearly 100 dB below a sine at full scale, so that digital silence has a logarithm."""
RANGE = 9.0
"""How far below a clip's loud parts spectra count for its average, as the logarithm of a power ratio (39 dB)."""
BLOCK_ROWS = 3000
"""Rows worked on at a time: a minute."""


@dataclass(frozen=True)
class AcousticConfig:
    """The size of the network. Saved with its weights."""

    channels: int = 160
    """Channels of every layer."""
    dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 4, 1, 2)
    """Distance in rows between the three taps of each residual block."""
    readout_taps: int = 5
    """Rows from which a linear layer reads off how far the mouth is open; odd."""

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise AvfaceError(f"channels={self.channels} must be above 0")
        if any(dilation < 1 for dilation in self.dilations):
            raise AvfaceError(f"dilations={self.dilations} must all be above 0")
        if self.readout_taps < 1 or self.readout_taps % 2 == 0:
            raise AvfaceError(f"readout_taps={self.readout_taps} must be odd and above 0")

    @property
    def context(self) -> int:
        """Rows before and after a row that its result depends on."""
        return sum(self.dilations) + self.readout_taps // 2 + 2


@dataclass(frozen=True)
class AcousticRows:
    """What the model says about R rows, 50 a second; row n is about the moment n * 20 ms."""

    logits: Tensor
    """(R, 29) one for each of `avface.speech.phones.SYMBOLS`; their softmax is the probability of the sound."""
    standardised: Tensor
    """(R, 29) the same, shifted and scaled so that each symbol has mean 0 and variance 1 over the training material."""
    openness: Tensor
    """(R,) how far the lips are apart, from 0 (shut) to 1 (wide open)."""

    @property
    def activity(self) -> Tensor:
        """(R,) probability that somebody speaks."""
        return 1 - self.logits.softmax(-1)[:, SILENCE]


def log_mel(sound: Tensor) -> Tensor:
    """Natural logarithm of the power in mel bands, (2R, 40), of (N,) samples at 16 kHz.

    There are two spectra a row, 10 ms apart; the first is centred on sample 0.
    """
    count = 2 * num_rows(len(sound))
    filters = mel_filters(BANDS, FFT, LOWEST, HIGHEST).to(sound.device).T
    scale = 2 / WINDOW
    blocks = [
        ((spectra(sound, FFT, WINDOW, HOP, first, min(2 * BLOCK_ROWS, count - first)) * scale) ** 2 @ filters)
        for first in range(0, count, 2 * BLOCK_ROWS)
    ]
    return torch.cat([(block + QUIET).log() for block in blocks])


def num_rows(samples: int) -> int:
    """Rows that belong to so many samples at 16 kHz: at least one."""
    return max(1, -(-samples // (2 * HOP)))


def normalised(log_power: Tensor) -> Tensor:
    """What the network sees, (..., F, 41): mel bands less their average, and the loudness; log_power (..., F, 40).

    Microphone, room and volume colour the long-term average, so it is taken out: over the loud spectra, since the rest
    may be noise. The loudness stands relative to the clip's loud parts.
    """
    loudness = log_power.logsumexp(-1, keepdim=True)
    loud = loudness.quantile(0.95, -2, keepdim=True)
    weight = ((loudness - loud) / RANGE + 1).clamp(0, 1)
    average = (weight * log_power).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)
    bands = (log_power - average).clamp(-12, 8) / 3
    return torch.cat([bands, (loudness - loud).clamp(-15, 6) / 4 + 1], -1)


class _Block(nn.Module):
    """A residual block: three taps, then a mix of channels."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)
        self.taps = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.mix = nn.Conv1d(channels, channels, 1)

    def forward(self, rows: Tensor) -> Tensor:
        normed = self.norm(rows.transpose(1, 2)).transpose(1, 2)
        out: Tensor = rows + self.mix(nn.functional.gelu(self.taps(normed)))
        return out


class AcousticModel(nn.Module):
    """Two convolutions that halve the rate, residual blocks with dilation, and two read-outs."""

    def __init__(self, config: AcousticConfig | None = None) -> None:
        super().__init__()
        self.config = config or AcousticConfig()
        channels = self.config.channels
        self.entry = nn.Conv1d(BANDS + 1, channels, 5, padding=2)
        self.halve = nn.Conv1d(channels, channels, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(_Block(channels, dilation) for dilation in self.config.dilations)
        self.norm = nn.LayerNorm(channels)
        self.phones = nn.Conv1d(channels, len(SYMBOLS), 1)
        taps = self.config.readout_taps
        self.openness = nn.Conv1d(channels, 1, taps, padding=taps // 2)
        self.logit_mean: Tensor
        self.logit_scale: Tensor
        self.register_buffer("logit_mean", torch.zeros(len(SYMBOLS)))
        self.register_buffer("logit_scale", torch.ones(len(SYMBOLS)))

    def forward(self, spectra: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, R, 29) and openness, not yet cut off at 0 and 1, (B, R), of normalised spectra (B, 2R, 41)."""
        rows = nn.functional.gelu(self.entry(spectra.transpose(1, 2)))
        rows = self.halve(rows)
        for block in self.blocks:
            rows = block(rows)
        rows = self.norm(rows.transpose(1, 2)).transpose(1, 2)
        return self.phones(rows).transpose(1, 2), self.openness(rows)[:, 0]

    @torch.no_grad()
    def predict(self, sound: Tensor) -> AcousticRows:
        """What is heard in (N,) samples at 16 kHz, on the device of the model."""
        rows, margin = num_rows(len(sound)), self.config.context
        shortest = 2 * margin * 2 * HOP  # no training example is as short as a few rows: silence follows
        padded = nn.functional.pad(sound.to(self.phones.weight.device), (0, max(0, shortest - len(sound))))
        seen = normalised(log_mel(padded))
        logits, openness = [], []
        for first in range(0, rows, BLOCK_ROWS):
            begin, end = max(first - margin, 0), min(first + BLOCK_ROWS + margin, len(seen) // 2)
            kept = slice(first - begin, first - begin + min(BLOCK_ROWS, rows - first))
            phones, opened = self(seen[None, 2 * begin : 2 * end])
            logits.append(phones[0, kept])
            openness.append(opened[0, kept].clamp(0, 1))
        rows_of_logits = torch.cat(logits)
        standardised = (rows_of_logits - self.logit_mean) / self.logit_scale
        return AcousticRows(rows_of_logits, standardised, torch.cat(openness))


FORMAT = WeightFormat(
    network="acoustic model",
    config=AcousticConfig,
    tag=" ".join(SYMBOLS),  # weights for other symbols are of no use
    training="python -m avface.training.acoustic.train",
    tag_key="symbols",
    half_precision=True,
)
"""The weight file of this model."""


def save_acoustic_model(model: AcousticModel, path: Path, metadata: Mapping[str, str] | None = None) -> None:
    """Write the weights in half precision with the config and any further metadata; the file appears whole.

    Raises:
        AvfaceError: if it can't be written.
    """
    FORMAT.save(path, model, model.config, metadata)


def load_acoustic_model(path: str | Path) -> AcousticModel:
    """Read a model that `save_acoustic_model` wrote, in evaluation mode and without gradients.

    Raises:
        AvfaceError: if the file is missing, damaged or of another network.
    """
    return FORMAT.read(path).network(AcousticModel).requires_grad_(False)


pretrained_acoustic_model = Pretrained("speech", "acoustic.safetensors", load_acoustic_model)
"""The weights that come with avface."""
