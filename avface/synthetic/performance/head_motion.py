"""Head motion during speech and silence."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64
from avface.synthetic.performance.random_curves import minimum_jerk, pulse, smooth_noise

_DEGREE = np.pi / 180


def head_motion(rng: np.random.Generator, times: F64, stresses: F64, pivot: F64) -> tuple[F64, F64]:
    """Rotation (T, 3) in radians and translation (T, 3) in metres of a head.

    A posture, slow drift, nods on stressed syllables and occasional larger turns, with little power above 5 Hz. The
    head rotates about the neck, so its origin moves too.

    times: (T,) evenly spaced seconds. stresses: (N, 2) seconds and strength of stressed syllables. pivot: (3,) the
    neck in the head's frame.
    Returns pitch, yaw, roll from facing the camera (rotation Ry(yaw) Rx(pitch) Rz(roll) in the head's axes: positive is
    down, to the subject's left, and towards its right shoulder) and the translation in the camera's axes.
    """
    liveliness = float(np.clip(rng.lognormal(0.5, 0.6), 0.3, 3.5))
    turned_away = rng.random() < 0.2
    posture = np.array(
        [rng.normal(0, 4), rng.uniform(-40, 40) if turned_away else rng.normal(0, 8), rng.normal(0, 3)]
    )
    turn = np.tile(posture, (len(times), 1))
    for axis, (drift, sway) in enumerate(((1.6, 0.6), (2.6, 0.7), (1.6, 0.45))):
        turn[:, axis] += liveliness * drift * rng.lognormal(0, 0.3) * smooth_noise(rng, times, 0.35)
        turn[:, axis] += liveliness * sway * rng.lognormal(0, 0.3) * smooth_noise(rng, times, 1.6)
    turn[:, 0] += liveliness * _nods(rng, times, stresses)
    turn += liveliness * _larger_turns(rng, times)
    turn *= _DEGREE
    shift = _shift_of_turn(turn, pivot) * rng.uniform(0.5, 1.0)
    for axis, size in enumerate((0.009, 0.006, 0.010)):
        shift[:, axis] += liveliness * size * rng.lognormal(0, 0.4) * smooth_noise(rng, times, 0.4)
        shift[:, axis] += liveliness * 0.15 * size * smooth_noise(rng, times, 1.5)
    return turn, shift


def _nods(rng: np.random.Generator, times: F64, stresses: F64) -> F64:
    """Pitch (T,) in degrees: nods on a share of the stressed syllables."""
    share, size = rng.uniform(0.1, 0.6), rng.lognormal(np.log(1.8), 0.4)
    nods = np.zeros(len(times))
    for at, strength in stresses:
        if rng.random() < share:
            rise, fall = rng.uniform([0.16, 0.25], [0.3, 0.5])
            nods += size * strength * rng.lognormal(0, 0.3) * pulse(times, at - 0.8 * rise, rise, 0.0, fall)
    return nods


def _larger_turns(rng: np.random.Generator, times: F64) -> F64:
    """Rotation (T, 3) in degrees to another posture, every six seconds on average."""
    turn, here = np.zeros((len(times), 3)), np.zeros(3)
    at = float(times[0] + rng.exponential(6))
    while at < times[-1]:
        there = rng.normal(size=3) * [4, 10, 3]
        duration = float(rng.uniform(0.45, 0.8) + 0.02 * np.linalg.norm(there - here))
        turn += minimum_jerk((times - at) / duration)[:, None] * (there - here)
        here = there
        at += duration + rng.exponential(6)
    return turn


def _shift_of_turn(turn: F64, pivot: F64) -> F64:
    """Translation (T, 3) of the head's origin, in the camera's axes, rotated about a pivot (3,) in its own frame."""
    import torch

    from avface.geometry.axes import flip_axes
    from avface.geometry.rotations import euler_to_rotmat

    rotation = euler_to_rotmat("YXZ", torch.as_tensor(turn)[:, [1, 0, 2]]).numpy()
    moved = pivot - rotation @ pivot
    return flip_axes(moved - moved.mean(0))
