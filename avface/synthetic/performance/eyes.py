"""Blinks and gaze."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avface.arrays import F64
from avface.synthetic.performance.random_curves import minimum_jerk, pulse, smooth_noise

_DEGREE = np.pi / 180


def blink_curve(rng: np.random.Generator, times: F64, with_gaze: Sequence[float] = ()) -> F64:
    """Lid closure (T,), 0 to 1.

    A blink lasts 150 to 400 ms and closes in a third of that time. Intervals are log-normal with a median of 1.2 to 6 s
    per person; some blinks come in pairs, some are partial, and some accompany large saccades at times `with_gaze` in
    seconds.
    """
    median = float(np.clip(rng.lognormal(np.log(2.4), 0.45), 1.2, 6))
    starts: list[tuple[float, bool]] = []
    at = times[0] - rng.uniform(0, median)
    while at < times[-1]:
        starts.append((at, bool(rng.random() < 0.12)))
        if rng.random() < 0.08:
            starts.append((at + rng.uniform(0.3, 0.5), False))
        at += max(0.6, median * rng.lognormal(0, 0.55))
    starts += [(at - 0.03, False) for at in with_gaze if rng.random() < 0.35]
    shut = np.zeros(len(times))
    for start, partial in starts:
        length = float(np.clip(rng.lognormal(np.log(0.29), 0.25), 0.15, 0.4))
        depth = rng.uniform(0.35, 0.7) if partial else rng.uniform(0.92, 1.0)
        # at least as long as a frame of a video, so that the closed eye is visible
        course = pulse(times, start, 0.3 * length, max(0.045, 0.15 * length), 0.55 * length)
        shut = np.maximum(shut, depth * course)
    return shut


def gaze_angles(
    rng: np.random.Generator, times: F64, head_turn: F64, gaze_range: F64
) -> tuple[F64, list[float]]:
    """Gaze as pitch and yaw (T, 2) of the eyeballs in the head, in radians; positive down and left.

    Fixations with saccades between them; during fixations the eyes compensate the head's rotation (the vestibulo-ocular
    reflex). Most fixations are near the partner, in the mean direction of the head.

    head_turn: (T, 3) pitch, yaw, roll of the head in radians. gaze_range: (4,) maximum angles up, down, in and out.
    Returns the angles and the times of saccades beyond 12 degrees.
    """
    up, down, inward, outward = gaze_range
    facing = np.median(head_turn[:, :2], 0)
    reach = np.array([0.5 * min(up, down), 0.6 * min(inward, outward)])
    partner = facing - np.clip(
        facing, -reach, reach
    )  # at the camera unless the head is turned too far from it
    averted_share = float(rng.beta(2, 4))
    target = np.zeros((len(times), 2))
    large_jumps = []
    at, here = float(times[0]) - 1.0, partner
    target[:] = here
    while at < times[-1]:
        away = rng.random() < averted_share
        spread = np.array([5.0, 9.0]) if away else np.array([0.8, 1.5])
        there = partner + _DEGREE * spread * rng.normal(size=2)
        size = float(np.linalg.norm(there - here))
        duration = 0.021 + 0.0022 * size / _DEGREE  # main sequence of saccades
        target += minimum_jerk((times - at) / duration)[:, None] * (there - here)
        if size > 12 * _DEGREE:
            large_jumps.append(at)
        here = there
        at += float(np.clip(rng.lognormal(np.log(0.55 if away else 0.9), 0.6), 0.15, 4))
    tremor = 0.15 * _DEGREE * np.stack([smooth_noise(rng, times, 3.0) for _ in range(2)], 1)
    eye = target + tremor - head_turn[:, :2]
    side = min(inward, outward)  # one eye rotates inwards while the other rotates outwards
    most = np.stack([np.where(eye[:, 0] < 0, up, down), np.full(len(eye), side)], 1)
    return most * np.tanh(eye / most), large_jumps


def gaze_units(angles: F64, gaze_range: F64) -> dict[str, F64]:
    """Weights (T,) of the eyeLook units of both eyes at angles (T, 2) in radians, positive down and left."""
    up, down, inward, outward = gaze_range
    units = {}
    for side, to_left in (("Left", 1), ("Right", -1)):
        pitch, yaw = angles[:, 0], to_left * angles[:, 1]
        units[f"eyeLookUp{side}"] = np.clip(-pitch / up, 0, 1)
        units[f"eyeLookDown{side}"] = np.clip(pitch / down, 0, 1)
        units[f"eyeLookOut{side}"] = np.clip(yaw / outward, 0, 1)
        units[f"eyeLookIn{side}"] = np.clip(-yaw / inward, 0, 1)
    return units
