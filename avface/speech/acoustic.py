"""The acoustic model: logits of 29 phone classes, speech activity and mouth openness from sound, 50 rows a second.

A convolutional network over log-mel spectra with a receptive field of 0.42 s before and after each row. Sound of any
length is processed in blocks that overlap by that much, so that the result doesn't depend on the blocks. Its training:
`avface.training.acoustic.train` and docs/model_cards/acoustic.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from avface.errors import AvfaceError
from avface.files.weight_file import Pretrained, WeightFormat
from avface.speech.dilated_block import DilatedBlock
from avface.speech.phones import SILENCE, SYMBOLS
from avface.speech.spectrum import SAMPLE_RATE, mel_filters, spectra

BANDS = 40
"""Mel bands."""
WINDOW, FFT, HOP = 400, 512, 160
"""Samples of the analysis window (25 ms), of the FFT and between spectra (10 ms)."""
LOW_FREQUENCY, HIGH_FREQUENCY = 60.0, 7600.0
"""Range of the mel bands in Hz."""
ROW_SECONDS = 2 * HOP / SAMPLE_RATE
"""Seconds between the model's rows (20 ms); row n lies at n * ROW_SECONDS."""
POWER_FLOOR = 1e-12
"""Power added to every band before the logarithm, nearly 100 dB below a sine at full scale."""
LOUDNESS_RANGE = 9.0
"""Loudness below a clip's loud parts from which on spectra have no weight in its mean, as the logarithm of a power
ratio (39 dB)."""
BLOCK_ROWS = 3000
"""Rows of a block: a minute."""


@dataclass(frozen=True)
class AcousticConfig:
    """Config of the network, saved with its weights."""

    channels: int = 160
    """Channels of every layer."""
    dilations: tuple[int, ...] = (1, 2, 4, 1, 2, 4, 1, 2)
    """Dilation in rows of the three taps of each residual block."""
    readout_taps: int = 5
    """Rows in the input of the linear layer of the mouth openness; odd."""

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise AvfaceError(f"channels={self.channels} must be above 0")
        if any(dilation < 1 for dilation in self.dilations):
            raise AvfaceError(f"dilations={self.dilations} must all be above 0")
        if self.readout_taps < 1 or self.readout_taps % 2 == 0:
            raise AvfaceError(f"readout_taps={self.readout_taps} must be odd and above 0")

    @property
    def context(self) -> int:
        """Receptive field: rows before and after a row."""
        return sum(self.dilations) + self.readout_taps // 2 + 2


@dataclass(frozen=True)
class AcousticRows:
    """Output of the model for R rows, 50 a second; row n is at n * 20 ms."""

    logits: Tensor
    """(R, 29) of `avface.speech.phones.SYMBOLS`; their softmax is the probability of each phone."""
    standardised: Tensor
    """(R, 29) logits standardised over the training data."""
    openness: Tensor
    """(R,) openness of the mouth, from 0 (closed) to 1 (wide open)."""

    @property
    def activity(self) -> Tensor:
        """(R,) probability of speech."""
        return 1 - self.logits.softmax(-1)[:, SILENCE]


def log_mel(sound: Tensor) -> Tensor:
    """Natural logarithm of the power in mel bands, (2R, 40), of (N,) samples at 16 kHz.

    There are two spectra a row, 10 ms apart; the first is centred on sample 0.
    """
    count = 2 * num_rows(len(sound))
    filters = mel_filters(BANDS, FFT, LOW_FREQUENCY, HIGH_FREQUENCY).to(sound.device).T
    scale = 2 / WINDOW
    blocks = [
        ((spectra(sound, FFT, WINDOW, HOP, first, min(2 * BLOCK_ROWS, count - first)) * scale) ** 2 @ filters)
        for first in range(0, count, 2 * BLOCK_ROWS)
    ]
    return torch.cat([(block + POWER_FLOOR).log() for block in blocks])


def num_rows(samples: int) -> int:
    """Number of rows of so many samples at 16 kHz, at least one."""
    return max(1, -(-samples // (2 * HOP)))


def normalised(log_power: Tensor) -> Tensor:
    """The network's input (..., F, 41): mean-normalised mel bands, and the loudness; log_power (..., F, 40).

    The long-term mean, which depends on microphone, room and volume, is subtracted; it is taken over the loud spectra,
    since the rest may be noise. The loudness is relative to the clip's loud parts.
    """
    loudness = log_power.logsumexp(-1, keepdim=True)
    loud = loudness.quantile(0.95, -2, keepdim=True)
    weight = ((loudness - loud) / LOUDNESS_RANGE + 1).clamp(0, 1)
    average = (weight * log_power).sum(-2, keepdim=True) / weight.sum(-2, keepdim=True)
    bands = (log_power - average).clamp(-12, 8) / 3
    return torch.cat([bands, (loudness - loud).clamp(-15, 6) / 4 + 1], -1)


class AcousticModel(nn.Module):
    """Two convolutions that halve the rate, dilated residual blocks, and two linear heads."""

    def __init__(self, config: AcousticConfig | None = None) -> None:
        super().__init__()
        self.config = config or AcousticConfig()
        channels = self.config.channels
        self.entry = nn.Conv1d(BANDS + 1, channels, 5, padding=2)
        self.halve = nn.Conv1d(channels, channels, 3, stride=2, padding=1)
        self.blocks = nn.ModuleList(DilatedBlock(channels, dilation) for dilation in self.config.dilations)
        self.norm = nn.LayerNorm(channels)
        self.phones = nn.Conv1d(channels, len(SYMBOLS), 1)
        taps = self.config.readout_taps
        self.openness = nn.Conv1d(channels, 1, taps, padding=taps // 2)
        self.logit_mean: Tensor
        self.logit_scale: Tensor
        self.register_buffer("logit_mean", torch.zeros(len(SYMBOLS)))
        self.register_buffer("logit_scale", torch.ones(len(SYMBOLS)))

    def forward(self, spectra: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, R, 29) and openness (B, R), not clamped to [0, 1], of normalised spectra (B, 2R, 41)."""
        rows = nn.functional.gelu(self.entry(spectra.transpose(1, 2)))
        rows = self.halve(rows)
        for block in self.blocks:
            rows = block(rows)
        rows = self.norm(rows.transpose(1, 2)).transpose(1, 2)
        return self.phones(rows).transpose(1, 2), self.openness(rows)[:, 0]

    @torch.no_grad()
    def predict(self, sound: Tensor) -> AcousticRows:
        """Process (N,) samples at 16 kHz on the device of the model."""
        rows, margin = num_rows(len(sound)), self.config.context
        shortest = 2 * margin * 2 * HOP  # padded with silence to the length of training examples
        padded = nn.functional.pad(sound.to(self.phones.weight.device), (0, max(0, shortest - len(sound))))
        spectra = normalised(log_mel(padded))
        logits, openness = [], []
        for first in range(0, rows, BLOCK_ROWS):
            begin, end = max(first - margin, 0), min(first + BLOCK_ROWS + margin, len(spectra) // 2)
            kept = slice(first - begin, first - begin + min(BLOCK_ROWS, rows - first))
            phones, opened = self(spectra[None, 2 * begin : 2 * end])
            logits.append(phones[0, kept])
            openness.append(opened[0, kept].clamp(0, 1))
        rows_of_logits = torch.cat(logits)
        standardised = (rows_of_logits - self.logit_mean) / self.logit_scale
        return AcousticRows(rows_of_logits, standardised, torch.cat(openness))


FORMAT = WeightFormat(
    network="acoustic model",
    config=AcousticConfig,
    tag=" ".join(SYMBOLS),  # weights for other symbols are of no use
    training="avface train acoustic",
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
