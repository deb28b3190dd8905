"""Mel spectra of Wav2Lip, the "mel" of AVFace's ablation.

Source: Wav2Lip, `hparams.py` and `audio.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from avface.speech.spectrum import mel_filters, spectra

BANDS = 80
"""Mel bands."""
FFT, HOP = 800, 200
"""Samples of a window (50 ms) and between windows: 80 spectra a second."""
RATE = 80
"""Spectra a second."""
_PRE_EMPHASIS = 0.97
_LOWEST, _HIGHEST = 55.0, 7600.0
_BLOCK = 4800  # spectra of a block: a minute


def mel_spectra(sound: Tensor) -> Tensor:
    """Spectra (R, 80) from -4 (-100 dB and below) to 4 of (N,) samples at 16 kHz; number n is centred on n / 80 s."""
    emphasised = sound.clone()
    emphasised[1:] -= _PRE_EMPHASIS * sound[:-1]
    filters = mel_filters(BANDS, FFT, _LOWEST, _HIGHEST).to(sound.device).T
    count = len(sound) // HOP + 1
    blocks = []
    for first in range(0, count, _BLOCK):
        power = spectra(emphasised, FFT, FFT, HOP, first, min(_BLOCK, count - first)) @ filters
        decibels = 20 * power.clamp_min(1e-5).log10() - 20
        blocks.append((8 * (decibels + 100) / 100 - 4).clamp(-4, 4))
    return torch.cat(blocks)
