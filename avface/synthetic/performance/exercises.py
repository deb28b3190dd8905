"""Performances that show every expression unit: alone, on one side, in pairs and in emotions, up to full strength.

Speech moves few units far and always the same ones together. Here two random streams of movements, of the upper and of
the lower face, run side by side, with blinks, gaze and head motion as in `performance.perform`, and without sound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avface.arrays import F64
from avface.head.model import HeadModel
from avface.speech.spectrum import SAMPLE_RATE
from avface.synthetic.performance.eyes import blink_curve, gaze_angles, gaze_units
from avface.synthetic.performance.facial_expression import EMOTIONS, sided
from avface.synthetic.performance.head_motion import head_motion
from avface.synthetic.performance.performance import (
    Performance,
    add_blinks,
    eye_joints,
    neck_position,
    set_gaze,
    without_opposites,
)
from avface.synthetic.performance.random_curves import pulse

UPPER = ("browDown", "browInnerUp", "browOuterUp", "eyeSquint", "eyeWide", "cheekSquint", "noseSneer")
"""Units of the upper face, without the side."""
LOWER = (
    *("jawOpen", "jawLeft", "jawRight", "jawForward", "mouthClose", "mouthLeft", "mouthRight"),
    *("mouthSmile", "mouthFrown", "mouthDimple", "mouthStretch", "mouthPress", "mouthPucker", "mouthFunnel"),
    *("mouthUpperUp", "mouthLowerDown", "mouthRollUpper", "mouthRollLower"),
    *("mouthShrugUpper", "mouthShrugLower", "cheekPuff", "tongueOut"),
)
"""Units of the lower face, without the side; the mouth's in a frame are mostly of one or two movements."""
RARE = ("jawForward", "cheekPuff", "tongueOut", "jawLeft", "jawRight")
"""Units that people move less often than others."""
WITH_OPEN_JAW = {"mouthClose": (0.9, 1.3), "tongueOut": (0.15, 0.6)}
"""Units that need an open jaw, with the range of the jaw's weight over theirs."""
TOGETHER: tuple[dict[str, float], ...] = (
    {"mouthSmile": 1.0, "mouthUpperUp": 0.5, "mouthLowerDown": 0.4, "cheekSquint": 0.7},
    {"mouthSmile": 1.0, "cheekSquint": 0.7, "eyeSquint": 0.4},
    {"mouthSmile": 1.0, "jawOpen": 0.5, "cheekSquint": 0.6},
    {"mouthFrown": 1.0, "mouthShrugLower": 0.6},
    {"mouthFrown": 0.7, "mouthShrugLower": 0.7, "mouthShrugUpper": 0.6},
    {"mouthPress": 1.0, "mouthRollLower": 0.4, "mouthRollUpper": 0.4},
    {"mouthFunnel": 1.0, "jawOpen": 0.5},
    {"mouthFunnel": 0.8, "mouthPucker": 0.5},
    {"mouthStretch": 1.0, "mouthLowerDown": 0.6},
    {"mouthUpperUp": 1.0, "noseSneer": 0.7},
    {"mouthUpperUp": 0.8, "mouthLowerDown": 0.8},
    {"jawOpen": 1.0, "mouthLowerDown": 0.3, "mouthUpperUp": 0.2},
    {"mouthPucker": 0.8, "mouthLeft": 0.5},
    {"mouthPucker": 0.8, "mouthRight": 0.5},
    {"browDown": 1.0, "noseSneer": 0.4, "eyeSquint": 0.3},
    {"browInnerUp": 0.9, "browOuterUp": 0.9},
    {"browInnerUp": 0.8, "browOuterUp": 0.7, "eyeWide": 0.6},
    {"browInnerUp": 1.0, "browDown": 0.4},
    {"eyeSquint": 0.9, "cheekSquint": 0.8},
)
"""Units that are often active together, with their shares."""
ONE_SIDED = 0.2
"""Share of movements of one half of the face."""


@dataclass(frozen=True)
class ExerciseConfig:
    """Rates and shares of the movements."""

    lower_pause: float = 0.35
    """Mean seconds between two movements of the lower face."""
    upper_pause: float = 0.7
    """The same of the upper face."""
    alone: float = 0.45
    """Share of movements of one unit."""
    pairs: float = 0.2
    """Share of movements of two units; the others are of units that are often active together, and of emotions."""


def exercise(
    rng: np.random.Generator,
    head: HeadModel,
    seconds: float,
    frame_rate: float = 25.0,
    config: ExerciseConfig | None = None,
) -> Performance:
    """A random performance of a length in seconds, rounded to whole frames; deterministic for a state of `rng`.

    Raises:
        ValueError: if the length is under one frame.
    """
    config = config or ExerciseConfig()
    frames = round(seconds * frame_rate)
    if frames < 1:
        raise ValueError(f"{seconds} s at {frame_rate} frames a second is less than one frame")
    times = np.arange(frames) / frame_rate
    names = head.expression_names
    expression = _stream(rng, times, names, LOWER, config.lower_pause, config)
    expression += _stream(rng, times, names, UPPER, config.upper_pause, config)
    expression = without_opposites(np.clip(expression, 0, 1), names)
    turn, shift = head_motion(rng, times, np.zeros((0, 2)), neck_position(head))
    gaze, saccades = gaze_angles(rng, times, turn, head.gaze_range)
    set_gaze(expression, names, gaze_units(gaze, head.gaze_range))
    add_blinks(rng, expression, names, blink_curve(rng, times, saccades))
    return Performance(
        frame_rate=frame_rate,
        expression=expression.astype(np.float32),
        joints=eye_joints(head, gaze),
        turn=turn.astype(np.float32),
        shift=shift.astype(np.float32),
        sound=np.zeros(round(seconds * SAMPLE_RATE), np.float32),
        phonemes=(),
        kind="silence",
        language="",
        voice="",
        emotion="neutral",
    )


def _stream(
    rng: np.random.Generator,
    times: F64,
    names: Sequence[str],
    units: Sequence[str],
    pause: float,
    config: ExerciseConfig,
) -> F64:
    """Weights (T, E) of movements one after the other, of some units."""
    weights = np.zeros((len(times), len(names)))
    at = float(times[0]) - rng.uniform(0, 1.5)
    while at < times[-1]:
        rise, hold, fall = rng.uniform([0.12, 0.05, 0.15], [0.4, 0.9, 0.6])
        course = pulse(times, at, rise, hold, fall)
        strength = rng.uniform(0.25, 1.0)
        for name, share in _movement(rng, names, units, config).items():
            weights[:, names.index(name)] += strength * share * float(rng.normal(1, 0.08)) * course
        at += rise + hold + 0.6 * fall + rng.exponential(pause)
    return weights


def _movement(
    rng: np.random.Generator, names: Sequence[str], units: Sequence[str], config: ExerciseConfig
) -> dict[str, float]:
    """Units, with sides, and their shares in one movement."""
    kind = rng.random()
    if kind < config.alone + config.pairs:
        frequency = np.array([0.4 if unit in RARE else 1.0 for unit in units])
        count = 1 if kind < config.alone else 2
        chosen = rng.choice(len(units), count, replace=False, p=frequency / frequency.sum())
        movement = {units[n]: 1.0 if not i else float(rng.uniform(0.4, 1)) for i, n in enumerate(chosen)}
    else:
        emotions = [emotion.units for emotion in EMOTIONS.values() if emotion.units]
        groups = [*TOGETHER, *emotions]
        movement = {
            unit: share * float(rng.lognormal(0, 0.25))
            for unit, share in groups[rng.integers(len(groups))].items()
            if unit in units
        }
    for unit, (low, high) in WITH_OPEN_JAW.items():
        if unit in movement:
            movement["jawOpen"] = max(movement.get("jawOpen", 0.0), movement[unit] * rng.uniform(low, high))
    side = str(rng.choice(["Left", "Right"])) if rng.random() < ONE_SIDED else ""
    return {
        name: share
        for unit, share in movement.items()
        for name in sided(unit, names)
        if not side or name == unit or name.endswith(side)
    }
