"""The encoder of Moonshine tiny, a speech recogniser trained on real speech: sound -> states, 41.67 rows a second.

Three convolutions over the waveform and six transformer layers with rotary positions (Jeffries et al., Moonshine:
Speech recognition for live transcription and voice commands, 2024). Only the encoder is kept. Its weights, made by
`scripts/convert_moonshine.py` from the pip package moonshine-voice 0.1.0 (MIT), stay in the package's 8-bit
quantisation. Card: docs/model_cards/hearing.md.

Attention spans its whole input and the group norm, too. So sound is processed in blocks at fixed places with a margin
on either side: the states of a block don't depend on how much of the sound is at hand, nor on the length of the rest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from avface.errors import AvfaceError
from avface.files.weight_file import Pretrained, WeightFormat
from avface.speech.spectrum import SAMPLE_RATE

HOP = 384
"""Samples between rows."""
FIELD = 895
"""Samples that the convolutions of one row see."""
ROW_SECONDS = HOP / SAMPLE_RATE
"""Seconds between rows (24 ms)."""
LEAD = HOP
"""Samples by which the field of row 0 begins before the sound, so that its centre lies at `FIRST_ROW`."""
FIRST_ROW = ((FIELD - 1) / 2 - LEAD) / SAMPLE_RATE
"""Seconds at the centre of row 0 (4 ms)."""
PADDING = 21 * HOP
"""Samples of silence before and after a sound (half a second)."""
BLOCK_ROWS = 640
"""Rows of a block (15 s)."""
MARGIN_ROWS = 42
"""Rows of sound on either side of a block (1 s)."""


@dataclass(frozen=True)
class MoonshineConfig:
    """Config of the encoder, saved with its weights; the defaults are those of Moonshine tiny."""

    width: int = 288
    """Size of a state."""
    layers: int = 6
    """Number of transformer layers."""
    heads: int = 8
    """Attention heads of a layer."""
    rotated: int = 32
    """Dimensions of each head that rotate with the position."""
    base: float = 10_000.0
    """Base of the rotary frequencies."""

    def __post_init__(self) -> None:
        if min(self.width, self.layers, self.heads) < 1 or self.width % self.heads:
            raise AvfaceError(
                f"width={self.width} must be a multiple of heads={self.heads}, layers={self.layers} above 0"
            )
        if self.rotated < 2 or self.rotated % 2 or self.rotated > self.width // self.heads:
            raise AvfaceError(f"rotated={self.rotated} must be even and at most the width of a head")


class _Layer(nn.Module):
    """Attention with rotary positions, then a perceptron; each behind a layer norm and beside a residual connection."""

    def __init__(self, config: MoonshineConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm = nn.LayerNorm(width, bias=False)
        self.expand = nn.Linear(width, 4 * width)
        self.contract = nn.Linear(4 * width, width)

    def forward(self, states: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        """states (B, R, width); cosine and sine (R, rotated) of the positions."""
        normed = self.attention_norm(states)
        query, key, value = (
            each(normed).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(
            _rotated(query, cosine, sine), _rotated(key, cosine, sine), value
        )
        states = states + self.out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = states + self.contract(functional.gelu(self.expand(self.norm(states))))
        return out


def _rotated(vectors: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Rotate the first dimensions of vectors (..., R, D), pairs of neighbours, by the angles of cosine and sine."""
    turning = vectors[..., : cosine.shape[-1]]
    across = torch.stack((-turning[..., 1::2], turning[..., 0::2]), -1).flatten(-2)
    return torch.cat([turning * cosine + across * sine, vectors[..., cosine.shape[-1] :]], -1)


class MoonshineEncoder(nn.Module):
    """Sound at 16 kHz -> states of every layer."""

    def __init__(self, config: MoonshineConfig | None = None) -> None:
        super().__init__()
        self.config = config or MoonshineConfig()
        width = self.config.width
        self.waveform = nn.Conv1d(1, width, 127, 64, bias=False)
        self.waveform_norm = nn.GroupNorm(1, width)
        self.second = nn.Conv1d(width, 2 * width, 7, 3)
        self.third = nn.Conv1d(2 * width, width, 3, 2)
        self.layers = nn.ModuleList(_Layer(self.config) for _ in range(self.config.layers))
        self.norm = nn.LayerNorm(width, bias=False)

    def forward(self, sound: Tensor) -> list[Tensor]:
        """States (B, R, width) after each layer, the last one normalised, of sound (B, N), N >= 895.

        Row n sees the samples from 384 n to 384 n + 894; R = (N - 895) // 384 + 1.
        """
        states = self.waveform_norm(torch.tanh(self.waveform(sound[:, None])))
        states = functional.gelu(self.third(functional.gelu(self.second(states)))).transpose(1, 2)
        rotated = self.config.rotated
        exponents = torch.arange(0, rotated, 2, device=states.device) / rotated
        angles = torch.arange(states.shape[1], device=states.device)[:, None] * self.config.base**-exponents
        cosine, sine = (wave.repeat_interleave(2, -1).to(states) for wave in (angles.cos(), angles.sin()))
        out = []
        for layer in self.layers:
            states = layer(states, cosine, sine)
            out.append(states)
        return [*out[:-1], self.norm(states)]


@dataclass(frozen=True)
class SoundBlock:
    """Which samples a block of rows is computed from."""

    begin: int
    """First sample; before the sound, and behind it, is silence."""
    end: int
    """One past the last sample."""
    kept: slice
    """The block's rows among those that the encoder makes of these samples."""


def num_rows(samples: int) -> int:
    """Rows of so many samples at 16 kHz, at least one."""
    return max(1, -(-samples // HOP))


def sound_block(number: int, samples: int | None) -> SoundBlock:
    """Block `number` of a sound of so many samples; None while its end hasn't been reached yet."""
    first, last = number * BLOCK_ROWS, (number + 1) * BLOCK_ROWS
    begin = max(HOP * (first - MARGIN_ROWS) - LEAD, -PADDING)
    end = HOP * (last + MARGIN_ROWS - 1) - LEAD + FIELD
    if samples is not None:
        end = min(end, max(samples, 1) + PADDING)
        last = min(last, num_rows(samples))
    skipped = first - (begin + LEAD) // HOP
    return SoundBlock(begin, end, slice(skipped, skipped + last - first))


def block_sound(sound: Tensor, block: SoundBlock, first: int = 0) -> Tensor:
    """The samples (M,) of a block; sound (N,) begins at sample `first`, with silence around it."""
    inside = sound[max(block.begin - first, 0) : max(block.end - first, 0)]
    before = max(first - block.begin, 0)
    return functional.pad(inside, (before, block.end - block.begin - before - len(inside)))


def encoded_blocks(encoder: MoonshineEncoder, sound: Tensor) -> Iterator[list[Tensor]]:
    """The states of each block of a sound (N,), (R, width) of each layer."""
    for number in range(-(-num_rows(len(sound)) // BLOCK_ROWS)):
        yield encoded_block(encoder, sound, sound_block(number, len(sound)))


@torch.no_grad()
def encoded_block(
    encoder: MoonshineEncoder, sound: Tensor, block: SoundBlock, first: int = 0
) -> list[Tensor]:
    """The states (R, width) of each layer for one block; sound as in `block_sound`."""
    return [states[0, block.kept] for states in encoder(block_sound(sound, block, first)[None])]


FORMAT = WeightFormat(
    network="speech encoder",
    config=MoonshineConfig,
    tag="avface moonshine encoder 1",
    training="python scripts/convert_moonshine.py",
)
"""The weight file of the encoder."""
QUANTISED, SCALE, ZERO_POINT = ".quantised", ".scale", ".zero_point"
"""Endings of the names of a quantised weight's tensors: (O, I) uint8, and two numbers each."""


def save_moonshine(
    path: Path, config: MoonshineConfig, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> None:
    """Write the tensors as they are, quantised weights under names that end in `QUANTISED`, `SCALE`, `ZERO_POINT`.

    Raises:
        AvfaceError: if the file can't be written.
    """
    FORMAT.save_tensors(path, tensors, config, metadata)


def load_moonshine(path: str | Path) -> MoonshineEncoder:
    """Read an encoder, in evaluation mode and without gradients.

    Raises:
        AvfaceError: if the file is missing, damaged or of another network.
    """
    file = FORMAT.read(path)
    return file.with_tensors(dequantised(file.tensors)).network(MoonshineEncoder).requires_grad_(False)


def dequantised(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with quantised weights as numbers: (quantised - zero point) * scale; incomplete ones as they are."""
    plain = dict(tensors)
    for name in tensors:
        stem = name.removesuffix(QUANTISED)
        if stem != name and {stem + SCALE, stem + ZERO_POINT} <= tensors.keys():
            levels, scale, zero = (plain.pop(stem + ending) for ending in (QUANTISED, SCALE, ZERO_POINT))
            plain[stem] = (levels.float() - zero.float()) * scale.float()
    return plain


pretrained_moonshine = Pretrained("speech", "moonshine.safetensors", load_moonshine)
"""The weights that come with avface."""
