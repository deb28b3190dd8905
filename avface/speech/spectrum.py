"""Mel spectra of sound at 16 kHz."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

SAMPLE_RATE = 16_000
"""Sample rate of all sound that is processed, synthesised or stored in datasets, in Hz."""


@functools.cache
def mel_filters(bands: int, size: int, low: float, high: float) -> Tensor:
    """Triangular filters (bands, size // 2 + 1) of unit area over the bins of an FFT of `size` samples.

    Their corners are evenly spaced between `low` and `high` Hz on Slaney's mel scale: linear up to 1 kHz, logarithmic
    above (Slaney, Auditory Toolbox, 1998; the default of librosa).
    """
    step = 27 / torch.tensor(6.4, dtype=torch.float64).log()

    def mel(hertz: Tensor) -> Tensor:
        return torch.where(hertz < 1000, 3 * hertz / 200, 15 + step * (hertz.clamp_min(1) / 1000).log())

    def hertz(mels: Tensor) -> Tensor:
        return torch.where(mels < 15, 200 * mels / 3, 1000 * ((mels - 15) / step).exp())

    ends = mel(torch.tensor([low, high], dtype=torch.float64))
    corners = hertz(torch.linspace(float(ends[0]), float(ends[1]), bands + 2, dtype=torch.float64))
    bins = torch.arange(size // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / size
    below, centre, above = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising, falling = (bins - below) / (centre - below), (above - bins) / (above - centre)
    filters = torch.minimum(rising, falling).clamp_min(0) * 2 / (above - below)
    return filters.float()


def spectra(sound: Tensor, size: int, window: int, hop: int, first: int, count: int) -> Tensor:
    """Magnitudes (count, size // 2 + 1) of Hann windows, of which number n is centred on sample (first + n) * hop.

    sound: (N,) samples, zero-padded. Only the samples that are used are copied.
    """
    begin = first * hop - size // 2
    end = begin + (count - 1) * hop + size
    inside = sound[max(begin, 0) : max(end, 0)]
    padded = torch.nn.functional.pad(inside, (max(-begin, 0), 0))
    padded = torch.nn.functional.pad(padded, (0, end - begin - len(padded)))
    hann = torch.hann_window(window, device=sound.device)
    out = torch.stft(padded, size, hop, window, hann, center=False, return_complex=True)
    return out.abs().T
