"""Facial expression apart from speech: emotions, a neutral baseline, idle movements, brows on stressed syllables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from avface.arrays import F64
from avface.synthetic.performance.coarticulation import SpeakingStyle
from avface.synthetic.performance.random_curves import pulse, smooth_noise


@dataclass(frozen=True)
class Emotion:
    """The facial expression and speaking style of an emotion at full strength."""

    units: dict[str, float]
    """Weights of ARKit units; those with a left and a right half are named without the side."""
    speech: dict[str, float]
    """Factors of the fields of `SpeakingStyle`."""


EMOTIONS: dict[str, Emotion] = {
    "neutral": Emotion({}, {}),
    "happy": Emotion(
        {"mouthSmile": 0.7, "cheekSquint": 0.55, "eyeSquint": 0.25, "mouthDimple": 0.2, "mouthUpperUp": 0.18},
        {"spreading": 1.3, "strength": 1.1},
    ),
    "sad": Emotion(
        {
            "browInnerUp": 0.7,
            "mouthFrown": 0.55,
            "browDown": 0.15,
            "mouthShrugLower": 0.25,
            "eyeSquint": 0.15,
        },
        {"strength": 0.8, "spreading": 0.7},
    ),
    "angry": Emotion(
        {"browDown": 0.85, "noseSneer": 0.3, "eyeSquint": 0.3, "mouthPress": 0.2, "mouthFrown": 0.2},
        {"strength": 1.2, "press": 1.5, "lips": 1.3},
    ),
    "surprised": Emotion(
        {"browInnerUp": 0.75, "browOuterUp": 0.8, "eyeWide": 0.65, "jawOpen": 0.1, "mouthFunnel": 0.06},
        {"strength": 1.15},
    ),
    "disgusted": Emotion(
        {"noseSneer": 0.75, "mouthUpperUp": 0.35, "browDown": 0.5, "eyeSquint": 0.45, "mouthFrown": 0.25},
        {"lips": 1.2},
    ),
    "fearful": Emotion(
        {"browInnerUp": 0.8, "browOuterUp": 0.35, "browDown": 0.25, "eyeWide": 0.55, "mouthStretch": 0.4},
        {"strength": 0.9, "spreading": 1.3},
    ),
}
"""By name. The units of an emotion are the action units of EMFACS (Friesen & Ekman 1983)."""

_BASELINE_MAXIMA = {
    "browDown": 0.5,
    "browInnerUp": 0.08,
    "browOuterUp": 0.15,
    "eyeSquint": 0.45,
    "eyeWide": 0.2,
    "cheekSquint": 0.15,
    "noseSneer": 0.5,
    "mouthShrugUpper": 0.4,
    "mouthShrugLower": 0.2,
    "mouthDimple": 0.3,
    "mouthPress": 0.4,
    "mouthSmile": 0.45,
    "mouthFrown": 0.25,
    "mouthUpperUp": 0.35,
    "mouthRollUpper": 0.15,
    "mouthRollLower": 0.15,
    "mouthPucker": 0.1,
}
"""Maximum constant weights of a neutral face."""

_IDLE_MOVEMENTS: tuple[tuple[dict[str, float], float], ...] = (
    ({"mouthPress": 0.5, "mouthRollLower": 0.3, "mouthRollUpper": 0.3}, 1.0),
    ({"mouthPucker": 0.45, "mouthShrugLower": 0.1}, 0.7),
    ({"mouthSmile": 0.45, "cheekSquint": 0.3}, 1.0),
    ({"mouthSmileLeft": 0.4, "mouthDimpleLeft": 0.2}, 0.3),
    ({"mouthSmileRight": 0.4, "mouthDimpleRight": 0.2}, 0.3),
    ({"jawOpen": 0.18, "mouthLowerDown": 0.1}, 0.8),
    ({"mouthShrugLower": 0.45, "mouthPress": 0.2}, 0.5),
    ({"mouthLeft": 0.35}, 0.3),
    ({"mouthRight": 0.35}, 0.3),
    ({"jawLeft": 0.3}, 0.15),
    ({"jawRight": 0.3}, 0.15),
    ({"cheekPuff": 0.5, "mouthPucker": 0.15}, 0.2),
    ({"tongueOut": 0.45, "jawOpen": 0.12}, 0.3),
    ({"mouthFrown": 0.4, "mouthShrugLower": 0.2}, 0.4),
    ({"browInnerUp": 0.6, "browOuterUp": 0.5}, 0.8),
    ({"browDown": 0.5}, 0.6),
    ({"noseSneer": 0.4}, 0.3),
    ({"eyeSquint": 0.4}, 0.4),
)
"""Idle movements: weights of units, and relative frequency."""


def sided(unit: str, names: Sequence[str]) -> list[str]:
    """The unit of that name, or its left and right halves; none if the head has none."""
    return [name for name in (unit, f"{unit}Left", f"{unit}Right") if name in names]


def emotion_curves(
    rng: np.random.Generator, times: F64, names: Sequence[str], emotion: str, strength: float
) -> F64:
    """Weights (T, E) of an emotion whose level varies slowly; strength from 0 to 1 is its maximum."""
    level = 0.75 + 0.25 * np.tanh(smooth_noise(rng, times, 0.3))
    if rng.random() < 0.3:  # with an onset and an offset
        swing = pulse(
            times, float(rng.uniform(times[0] - 1, times[-1])), *rng.uniform([0.5, 0.8, 0.7], [1.5, 4, 2])
        )
        level = level * (0.25 + 0.75 * swing)
    weights = np.zeros((len(times), len(names)))
    for unit, weight in EMOTIONS[emotion].units.items():
        _add(rng, weights, names, unit, weight * float(rng.lognormal(0, 0.25)) * strength * level)
    return np.clip(weights, 0, 1)


def style_under_emotion(style: SpeakingStyle, emotion: str, strength: float) -> SpeakingStyle:
    """A speaker's style under an emotion of a strength from 0 to 1."""
    factors = EMOTIONS[emotion].speech
    changed = {name: getattr(style, name) * factor**strength for name, factor in factors.items()}
    return replace(style, **changed)


def baseline_curves(rng: np.random.Generator, times: F64, names: Sequence[str]) -> F64:
    """Weights (T, E) of a random neutral face: constant levels with small fluctuations."""
    weights = np.zeros((len(times), len(names)))
    for unit, maximum in _BASELINE_MAXIMA.items():
        level = maximum * max(0.0, float(rng.uniform(-1.2, 1)))
        fluctuation = 0.12 * level * smooth_noise(rng, times, 1.5)
        _add(rng, weights, names, unit, level + fluctuation)
    return np.clip(weights, 0, 1)


def idle_curves(rng: np.random.Generator, times: F64, names: Sequence[str], rate: float) -> F64:
    """Weights (T, E) of idle movements at a Poisson rate per second."""
    weights = np.zeros((len(times), len(names)))
    shares = np.array([share for _, share in _IDLE_MOVEMENTS])
    for _ in range(rng.poisson(rate * (times[-1] - times[0] + 2))):
        units, _ = _IDLE_MOVEMENTS[rng.choice(len(_IDLE_MOVEMENTS), p=shares / shares.sum())]
        rise, hold, fall = rng.uniform([0.15, 0.0, 0.2], [0.4, 1.2, 0.7])
        course = rng.uniform(0.4, 1.1) * pulse(
            times, float(rng.uniform(times[0] - 1.5, times[-1])), rise, hold, fall
        )
        for unit, weight in units.items():
            _add(rng, weights, names, unit, weight * course)
    return np.clip(weights, 0, 1)


def brow_curves(rng: np.random.Generator, times: F64, names: Sequence[str], stresses: F64) -> F64:
    """Weights (T, E) of brow raises, seldom frowns, on the stressed syllables of speech.

    stresses (N, 2): time in seconds, and strength; 1 is a strong one.
    """
    weights = np.zeros((len(times), len(names)))
    liveliness = float(rng.lognormal(-1.8, 0.7))
    frowns = rng.random() < 0.25
    for at, strength in stresses:
        if rng.random() > 0.35:
            continue
        rise, hold, fall = rng.uniform([0.1, 0.0, 0.15], [0.22, 0.25, 0.5])
        course = min(0.8, liveliness * strength) * pulse(times, at - rise, rise, hold, fall)
        if frowns and rng.random() < 0.5:
            _add(rng, weights, names, "browDown", course)
        else:
            _add(rng, weights, names, "browInnerUp", course)
            _add(rng, weights, names, "browOuterUp", float(rng.uniform(0.3, 1)) * course)
    return np.clip(weights, 0, 1)


def _add(rng: np.random.Generator, weights: F64, names: Sequence[str], unit: str, course: F64) -> None:
    """Add a unit's weights (T,), scaled by random factors near 1 on its two halves."""
    for name in sided(unit, names):
        weights[:, names.index(name)] += course * float(rng.normal(1, 0.12))
