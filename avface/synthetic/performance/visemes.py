"""ARKit curves of phonemes by visemes, for the demo clip; `coarticulation` is the detailed model."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64
from avface.synthetic.performance.espeak import Phoneme

VISEMES: dict[str, dict[str, float]] = {
    "pause": {"jawOpen": 0.02},
    "bilabial": {"jawOpen": 0.03, "mouthPress": 0.35, "mouthRollLower": 0.25, "mouthRollUpper": 0.15},
    "labiodental": {"jawOpen": 0.06, "mouthRollLower": 0.45, "mouthUpperUp": 0.12},
    "dental": {"jawOpen": 0.12, "mouthStretch": 0.05},
    "alveolar": {"jawOpen": 0.09, "mouthStretch": 0.1, "mouthLowerDown": 0.12},
    "sibilant": {"jawOpen": 0.05, "mouthStretch": 0.12, "mouthSmile": 0.12, "mouthLowerDown": 0.2},
    "postalveolar": {"jawOpen": 0.08, "mouthFunnel": 0.4, "mouthPucker": 0.15},
    "velar": {"jawOpen": 0.14},
    "rhotic": {"jawOpen": 0.1, "mouthFunnel": 0.25, "mouthPucker": 0.15},
    "rounded glide": {"jawOpen": 0.06, "mouthPucker": 0.65},
    "open": {"jawOpen": 0.45, "mouthLowerDown": 0.1},
    "open front": {"jawOpen": 0.38, "mouthStretch": 0.15, "mouthSmile": 0.1},
    "open rounded": {"jawOpen": 0.32, "mouthFunnel": 0.35},
    "close rounded": {"jawOpen": 0.12, "mouthPucker": 0.55, "mouthFunnel": 0.15},
    "close front": {"jawOpen": 0.1, "mouthSmile": 0.28, "mouthStretch": 0.12},
    "mid front": {"jawOpen": 0.24, "mouthSmile": 0.18, "mouthStretch": 0.08},
    "central": {"jawOpen": 0.18},
}
"""Weights of the ARKit units by viseme; units with a left and a right half are named without the side."""

CLASSES = {
    "bilabial": "p b m",
    "labiodental": "f v",
    "dental": "θ ð",
    "alveolar": "t d n l ɾ",
    "sibilant": "s z",
    "postalveolar": "ʃ ʒ tʃ dʒ",
    "velar": "k ɡ ŋ h x",
    "rhotic": "ɹ r ɚ ɜ",
    "rounded glide": "w",
    "open": "a ɑ ʌ ɐ aɪ aʊ",
    "open front": "æ",
    "open rounded": "ɔ o ɒ oʊ ɔɪ",
    "close rounded": "u ʊ",
    "close front": "i ɪ j ᵻ",
    "mid front": "e ɛ eɪ",
    "central": "ə",
}
_CLASS_OF = {symbol: name for name, symbols in CLASSES.items() for symbol in symbols.split()}
LEAD = 0.06
"""Lead of the lips over the sound in seconds."""
SMOOTHING = 0.035
"""Standard deviation in seconds of the Gaussian that blends visemes."""


def viseme(symbol: str) -> dict[str, float]:
    """Weights of a phoneme in IPA by its longest known prefix; "" is a pause."""
    for length in range(len(symbol), 0, -1):
        if symbol[:length] in _CLASS_OF:
            return VISEMES[_CLASS_OF[symbol[:length]]]
    return VISEMES["central"] if symbol else VISEMES["pause"]


def viseme_curves(phonemes: tuple[Phoneme, ...], times: F64, expression_names: tuple[str, ...]) -> F64:
    """Weights (T, E) of the mouth at times (T,) in seconds: the phonemes' visemes, `LEAD` ahead and smoothed."""
    step = 0.005
    grid = np.arange(times[0] - 0.5, times[-1] + 0.5, step)
    starts = np.array([phoneme.start for phoneme in phonemes]) - LEAD
    current = np.searchsorted(starts, grid) - 1
    targets = np.zeros((len(phonemes) + 1, len(expression_names)))
    for row, symbol in enumerate(["", *[phoneme.symbol for phoneme in phonemes]]):
        for unit, weight in viseme(symbol).items():
            for side in ("", "Left", "Right"):
                if f"{unit}{side}" in expression_names:
                    targets[row, expression_names.index(f"{unit}{side}")] = weight
    curves = targets[current + 1]
    reach = np.arange(-4 * SMOOTHING, 4 * SMOOTHING + step, step)
    kernel = np.exp(-0.5 * (reach / SMOOTHING) ** 2)
    kernel /= kernel.sum()
    smooth = np.stack([np.convolve(column, kernel, "same") for column in curves.T], 1)
    return np.stack([np.interp(times, grid, column) for column in smooth.T], 1)
