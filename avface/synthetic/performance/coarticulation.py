"""From phonemes to lips and jaw: dominance functions over articulatory gestures, then ARKit units.

Each phoneme has a target and a dominance for each gesture (jaw down, lips together, lips forward, ...). Dominance
functions rise and decay exponentially around the phoneme, and targets are averaged with them as weights (Cohen &
Massaro 1993, "Modeling coarticulation in synthetic visual speech"). Where a phoneme's dominance is low, its neighbours
determine the gesture: /t/ has rounded lips before /u/. Lip closures have a virtual target beyond contact (Löfqvist &
Gracco 1997), so that a closure has a duration and is complete in fast speech too.

Gestures rather than units are blended because lip closure is not the opposite of any one unit: at the same jaw opening
the lips are together or apart. ARKit's mouthClose, which cancels jawOpen at the lips, follows from both.
"""
# ruff: noqa: RUF001 - IPA

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from avface.arrays import F64
from avface.synthetic.performance.espeak import Phoneme

GESTURES = ("jaw", "seal", "bite", "pucker", "funnel", "spread", "lower", "upper", "tongue")
"""jaw down; lips together; lower lip to the upper teeth; lips forward and narrow; lips forward and open; corners apart;
lower lip down; upper lip up; tongue between the teeth. 1 is the maximum of the units; for `seal`, lip contact."""

_ONSET = (18.0, 42.0, 34.0, 11.0, 12.0, 12.0, 22.0, 22.0, 28.0)
_DECAY = (20.0, 42.0, 34.0, 18.0, 18.0, 14.0, 22.0, 22.0, 28.0)
_SMOOTHING = (0.036, 0.014, 0.014, 0.022, 0.020, 0.020, 0.016, 0.016, 0.016)
"""By gesture: rates in 1/s at which dominance grows before and decays after a phoneme, and the standard deviation in
seconds of the articulator's low-pass filter. Rounding has long anticipation; the jaw is slow, lips are fast."""
JAW_DELAY = 0.015
"""Lag of the jaw behind the lips in seconds."""
_STEP = 0.005
"""Time step of the gestures in seconds."""
_EDGE = 0.03
"""Seconds at either end of a phoneme outside the plateau of its dominance."""

_Targets = dict[str, tuple[float, float]]
"""By gesture: target, and dominance at the peak."""


def _vowel(jaw: float, pucker: float = 0, funnel: float = 0, spread: float = 0) -> _Targets:
    rounded = 1.0 if pucker or funnel else 0.5
    return {
        "jaw": (jaw, 1.0),
        "seal": (0, 1.5),
        "bite": (0, 1.5),
        "pucker": (pucker, rounded),
        "funnel": (funnel, rounded),
        "spread": (spread, 0.8 if spread else 0.4),
        "lower": (0.04 + 0.35 * jaw, 0.6),
        "upper": (0.04 + 0.35 * jaw, 0.6),
        "tongue": (0, 1.0),
    }


def _consonant(jaw: tuple[float, float], **targets: tuple[float, float]) -> _Targets:
    default: _Targets = {
        "seal": (0, 0.7),
        "bite": (0, 0.7),
        "pucker": (0, 0.08),
        "funnel": (0, 0.08),
        "tongue": (0, 1.0),
    }
    return {**default, "jaw": jaw, **targets}


_BILABIAL = _consonant(
    (0.07, 0.9),
    seal=(1.4, 4.0),
    bite=(0, 3.0),
    lower=(0, 2.0),
    upper=(0, 2.0),
    funnel=(0, 0.5),
    spread=(0, 0.2),
)
_LABIODENTAL = _consonant(
    (0.06, 1.3), bite=(1.2, 5.0), seal=(0, 1.5), upper=(0.12, 2.0), lower=(0, 2.0), funnel=(0, 0.6)
)
_BILABIAL_GLIDE: _Targets = {**_BILABIAL, "seal": (0.75, 3.0)}
_LABIODENTAL_GLIDE: _Targets = {**_LABIODENTAL, "bite": (0.6, 3.0)}
_DENTAL = _consonant((0.12, 0.8), tongue=(0.3, 2.0), lower=(0.1, 0.6), upper=(0.05, 0.4))
_ALVEOLAR = _consonant((0.14, 0.6), lower=(0.18, 0.6), upper=(0.1, 0.4), spread=(0.08, 0.15))
_SIBILANT = _consonant((0.06, 1.4), lower=(0.28, 1.0), upper=(0.12, 0.5), spread=(0.18, 0.3))
_POSTALVEOLAR = _consonant((0.06, 1.5), pucker=(0.25, 0.8), funnel=(0.32, 0.9), lower=(0.15, 0.5))
_ALVEOLOPALATAL = _consonant((0.05, 1.5), pucker=(0.12, 0.3), funnel=(0.12, 0.3), lower=(0.15, 0.5))
_PALATAL = _consonant((0.13, 0.5), spread=(0.22, 0.4))
_RHOTIC = _consonant((0.1, 0.5), pucker=(0.22, 0.6), funnel=(0.16, 0.5))
_VELAR = _consonant((0.2, 0.3), lower=(0.1, 0.3), upper=(0.1, 0.3))
_GLOTTAL = _consonant((0.15, 0.08), seal=(0, 0.4))
_GLIDE = _consonant((0.05, 1.0), pucker=(0.8, 2.5), funnel=(0.04, 1.5), spread=(0, 1.0), seal=(0.1, 1.0))
_PAUSE: _Targets = {gesture: (0, 0.5) for gesture in GESTURES}

_VOWELS: dict[str, _Targets] = {
    **dict.fromkeys("i", _vowel(0.09, spread=0.42)),
    **dict.fromkeys("ɪᵻɨ", _vowel(0.13, spread=0.25)),
    **dict.fromkeys("ɯ", _vowel(0.1, spread=0.18)),
    **dict.fromkeys("e", _vowel(0.2, spread=0.28)),
    **dict.fromkeys("ɛ", _vowel(0.3, spread=0.2)),
    **dict.fromkeys("æ", _vowel(0.42, spread=0.2)),
    **dict.fromkeys("a", _vowel(0.46, spread=0.05)),
    **dict.fromkeys("ɑ", _vowel(0.5)),
    **dict.fromkeys("ɐʌ", _vowel(0.34)),
    **dict.fromkeys("ə", _vowel(0.18)),
    **dict.fromkeys("ɜ", _vowel(0.22, funnel=0.06)),
    **dict.fromkeys("ɚ", _vowel(0.15, pucker=0.12, funnel=0.12)),
    **dict.fromkeys("ɒ", _vowel(0.42, funnel=0.2)),
    **dict.fromkeys("ɔ", _vowel(0.34, pucker=0.15, funnel=0.28)),
    **dict.fromkeys("o", _vowel(0.2, pucker=0.42, funnel=0.2)),
    **dict.fromkeys("ʊ", _vowel(0.13, pucker=0.45, funnel=0.1)),
    **dict.fromkeys("uʉɵ", _vowel(0.07, pucker=0.72, funnel=0.08)),
    **dict.fromkeys("yʏ", _vowel(0.07, pucker=0.68, funnel=0.07)),
    **dict.fromkeys("ø", _vowel(0.17, pucker=0.45, funnel=0.16)),
    **dict.fromkeys("œ", _vowel(0.28, pucker=0.25, funnel=0.24)),
}
_CONSONANTS: dict[str, _Targets] = {
    **dict.fromkeys("pbm", _BILABIAL),
    **dict.fromkeys("fvɱ", _LABIODENTAL),
    **dict.fromkeys("βɸ", _BILABIAL_GLIDE),
    **dict.fromkeys("ʋ", _LABIODENTAL_GLIDE),
    **dict.fromkeys("θð", _DENTAL),
    **dict.fromkeys("tdnlɾrɫɭ", _ALVEOLAR),
    **dict.fromkeys("sz", _SIBILANT),
    **dict.fromkeys("ʃʒʂ", _POSTALVEOLAR),
    **dict.fromkeys("ɕʑ", _ALVEOLOPALATAL),
    **dict.fromkeys("jɲʎçcɟʝ", _PALATAL),
    **dict.fromkeys("ɹ", _RHOTIC),
    **dict.fromkeys("kɡŋxɣʁχq", _VELAR),
    **dict.fromkeys("hɦʔ", _GLOTTAL),
    **dict.fromkeys("wʍɥ", _GLIDE),
}
_TARGETS_OF = {**_VOWELS, **_CONSONANTS}
VOWELS = frozenset(_VOWELS)
"""IPA letters of vowels."""


@dataclass(frozen=True)
class SpeakingStyle:
    """Articulation of one speaker; the defaults are an average speaker's."""

    strength: float = 1.0
    """Factor of the jaw's opening in vowels."""
    lead: float = 0.095
    """Lead of the lips over the sound in seconds."""
    rounding: float = 1.0
    """Factor of lip protrusion."""
    spreading: float = 1.0
    """Factor of lip spreading."""
    lips: float = 1.0
    """Factor of lip opening apart from the jaw."""
    lip_hold: float = 0.1
    """Share of the jaw's opening that the lips compensate."""
    press: float = 0.15
    """Weight of mouthPress in a lip closure."""
    roll: float = 0.12
    """Weight of mouthRoll in a lip closure."""
    asymmetry: float = 0.0
    """Relative surplus of the left half over the mean of both, -0.4 to 0.4."""
    rest_jaw: float = 0.02
    """Jaw opening in pauses."""
    rest_seal: float = 1.0
    """Lip closure in pauses, 0 to 1."""
    inhale: float = 0.08
    """Additional jaw opening of an inhalation before a phrase."""
    variation: float = 0.12
    """Standard deviation of the logarithm of a phoneme's random emphasis."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not (math.isfinite(value) and (value >= 0 or field.name in ("asymmetry", "lead"))):
                raise ValueError(f"{field.name}={value} must be a finite number, not negative")
        if not -1 <= self.asymmetry <= 1:
            raise ValueError(f"asymmetry={self.asymmetry} must be from -1 to 1")
        for name in ("lip_hold", "rest_jaw", "rest_seal"):
            if getattr(self, name) > 1:
                raise ValueError(f"{name}={getattr(self, name)} must be from 0 to 1")


def sample_style(rng: np.random.Generator) -> SpeakingStyle:
    """The style of a random speaker."""
    return SpeakingStyle(
        strength=float(np.clip(rng.lognormal(0.45, 0.25), 0.75, 2.3)),
        lead=float(rng.uniform(0.075, 0.125)),
        rounding=float(rng.uniform(0.6, 1.1)),
        spreading=float(rng.uniform(0.5, 1.3)),
        lips=float(rng.uniform(0.4, 1.8)),
        lip_hold=float(rng.uniform(0, 0.15)),
        press=float(rng.uniform(0.05, 0.3)),
        roll=float(rng.uniform(0, 0.2)),
        asymmetry=float(np.clip(rng.normal(0, 0.12), -0.4, 0.4)),
        rest_jaw=float(rng.uniform(0, 0.05)),
        rest_seal=float(rng.choice([1.0, rng.uniform(0, 0.8)], p=[0.4, 0.6])),
        inhale=float(rng.uniform(0, 0.2)),
    )


@dataclass(frozen=True)
class _Segment:
    """A letter of a phoneme with its targets, from start to end in seconds."""

    letter: str
    targets: _Targets
    start: float
    end: float


def ipa_letters(symbol: str) -> list[tuple[str, float]]:
    """The IPA letters of a phoneme of espeak-ng, each with its share of the duration.

    Affricates and diphthongs have two; "ɔːɹ" has /ɔ/ for two thirds and /ɹ/ for one. Diacritics that don't change the
    lips are dropped; a pause has none.
    """
    found: list[list] = []
    for character in symbol:
        if character in _TARGETS_OF:
            found.append([character, 1.0])
        elif character in "ː:" and found:
            found[-1][1] += 1.0
    total = sum(share for _, share in found)
    return [(letter, share / total) for letter, share in found]


def gesture_curves(
    phonemes: Sequence[Phoneme],
    end: float,
    times: F64,
    style: SpeakingStyle | None = None,
    emphasis: Sequence[float] | None = None,
) -> F64:
    """Gestures (T, 9), in the order of `GESTURES`, at times (T,) in seconds.

    end: seconds at which the last phoneme ends. emphasis (P,): factor of each phoneme's targets; 1 by default.
    """
    style = style or SpeakingStyle()
    segments = _segments(phonemes, end, style, [1.0] * len(phonemes) if emphasis is None else emphasis)
    grid = np.arange(times[0] - 0.1, times[-1] + 0.1 + _STEP, _STEP)
    near = [p for p in segments if p.end > grid[0] - 1 and p.start < grid[-1] + 1]
    middle = np.array([(p.start + p.end) / 2 for p in near])
    plateau = np.array([max(0.0, (p.end - p.start) / 2 - _EDGE) for p in near])
    offset = grid[:, None] + style.lead - middle
    distance = np.sign(offset) * np.maximum(np.abs(offset) - plateau, 0)
    curves = np.empty((len(times), len(GESTURES)))
    rest = {"jaw": style.rest_jaw, "seal": style.rest_seal}
    for g, gesture in enumerate(GESTURES):
        targets, dominance = np.array([p.targets.get(gesture, (0.0, 0.05)) for p in near]).reshape(-1, 2).T
        weight = dominance * np.exp(np.where(distance < 0, _ONSET[g] * distance, -_DECAY[g] * distance))
        rest_weight = 1e-3  # small, so that the rest pose counts only far from any phoneme
        blend = (weight @ targets + rest_weight * rest.get(gesture, 0.0)) / (weight.sum(1) + rest_weight)
        delay = JAW_DELAY if gesture == "jaw" else 0.0
        curves[:, g] = np.interp(times - delay, grid, _smoothed(blend, _SMOOTHING[g] / _STEP))
    # targets beyond contact are clipped
    return np.clip(curves, 0, 1)


def _segments(
    phonemes: Sequence[Phoneme], end: float, style: SpeakingStyle, emphasis: Sequence[float]
) -> list[_Segment]:
    """Letters and pauses in order of time, with this speaker's targets."""
    segments: list[_Segment] = []
    ends = [*(phoneme.start for phoneme in phonemes[1:]), end][: len(phonemes)]
    for phoneme, until, strength in zip(phonemes, ends, emphasis, strict=True):
        length = until - phoneme.start
        parts = ipa_letters(phoneme.symbol)
        if length <= 0 or (phoneme.symbol and not parts):
            continue
        if not parts:
            segments += _pause(phoneme.start, until, style)
        start = phoneme.start
        for letter, share in parts:
            targets = dict(_TARGETS_OF[letter])
            for gesture, scale in (
                ("jaw", style.strength * strength if letter in VOWELS else 1.0),
                ("pucker", style.rounding * strength**0.5),
                ("funnel", style.rounding * strength**0.5),
                ("spread", style.spreading * strength**0.5),
                ("lower", style.lips * strength),
                ("upper", style.lips * strength),
            ):
                if gesture in targets:
                    target, dominance = targets[gesture]
                    targets[gesture] = (min(target * scale, 0.95), dominance)
            segments.append(_Segment(letter, targets, start, start + share * length))
            start += share * length
    return segments


def _pause(start: float, end: float, style: SpeakingStyle) -> list[_Segment]:
    """Targets of a pause: short ones have low dominance; long ones have the rest pose, then an inhalation."""
    length = end - start
    level = min(1.0, (length / 0.3) ** 2)
    rest = {g: (target, level * dominance) for g, (target, dominance) in _PAUSE.items()}
    rest["jaw"] = (style.rest_jaw, level)
    rest["seal"] = (style.rest_seal * min(1.3, length / 0.25), level)
    if length < 0.4:
        return [_Segment("", rest, start, end)]
    breath = {**rest, "jaw": (style.rest_jaw + style.inhale, 0.8), "seal": (0.0, 0.8)}
    return [_Segment("", rest, start, end - 0.22), _Segment("", breath, end - 0.22, end)]


def _smoothed(curve: F64, sigma: float) -> F64:
    """A Gaussian low-pass filter; sigma in samples."""
    from scipy.ndimage import gaussian_filter1d

    return np.asarray(gaussian_filter1d(curve, sigma, mode="nearest"))


def gestures_to_units(gestures: F64, names: Sequence[str], style: SpeakingStyle | None = None) -> F64:
    """Weights (T, E) of ARKit units, in the order of `names`, of gestures (T, 9). Units that no gesture uses are 0.

    Units that open the lips are suppressed by `seal`, so that a closure is complete in any combination.
    """
    style = style or SpeakingStyle()
    g = dict(zip(GESTURES, gestures.T, strict=True))
    apart = 1 - g["seal"]
    unbitten = apart * (1 - 0.8 * g["bite"])
    rounded = np.clip(g["pucker"] + g["funnel"], 0, 1)
    wide = g["spread"] * (1 - rounded)
    held = g["seal"] + (style.lip_hold + 0.6 * g["bite"]) * apart
    units = {
        "jawOpen": g["jaw"],
        "mouthClose": np.minimum(held, 1) * g["jaw"],
        "mouthFunnel": g["funnel"] * unbitten,
        "mouthPucker": g["pucker"] * (1 - 0.5 * g["bite"]),
        "mouthRollLower": style.roll * g["seal"] + 0.55 * g["bite"] * apart,
        "mouthRollUpper": 0.7 * style.roll * g["seal"],
        "tongueOut": g["tongue"] * unbitten,
    }
    sided = {
        "mouthPress": style.press * g["seal"],
        "mouthStretch": 0.45 * wide,
        "mouthSmile": 0.5 * wide,
        "mouthLowerDown": g["lower"] * unbitten,
        "mouthUpperUp": g["upper"] * apart,
    }
    for unit, weight in sided.items():
        units[f"{unit}Left"] = weight * (1 + style.asymmetry)
        units[f"{unit}Right"] = weight * (1 - style.asymmetry)
    zero = np.zeros(len(gestures))
    return np.clip(np.stack([units.get(name, zero) for name in names], 1), 0, 1)


def mouth_curves(
    phonemes: Sequence[Phoneme],
    end: float,
    times: F64,
    names: Sequence[str],
    style: SpeakingStyle | None = None,
) -> F64:
    """Weights (T, E) of a mouth's ARKit units for phonemes, at times (T,) in seconds.

    end: seconds at which the last phoneme ends. names: the units, in the order of the columns.
    """
    return gestures_to_units(gesture_curves(phonemes, end, times, style), names, style)
