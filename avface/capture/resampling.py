"""Captures resampled to other times or to a constant rate, for files and programs that count frames."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from avface.arrays import F64, Bool, Floats, Int
from avface.errors import AvfaceError

if TYPE_CHECKING:
    from avface.capture.capture import Capture
    from avface.capture.layer import Layer

    LayerT = TypeVar("LayerT", bound=Layer)

HIGHEST_RATE = 1000
"""Frames per second; a higher rate is a mistake and would fill the memory."""

SAME_TIME = 1e-6
"""Seconds. Times that differ by less are the same frame: containers round to microseconds and finer."""


def check_rate(rate: float, named: str) -> None:
    """Check a rate in frames per second; `named` begins the message, such as "frame rate 0".

    Raises:
        AvfaceError: if it isn't a number from 1 to `HIGHEST_RATE`.
    """
    if isinstance(rate, bool) or not (math.isfinite(rate) and 1 <= rate <= HIGHEST_RATE):
        raise AvfaceError(f"{named} must be a number of frames per second from 1 to {HIGHEST_RATE}")


def at_constant_rate(capture: Capture, rate: float) -> Capture:
    """The capture at `rate` frames per second from its first frame on; see `at_times`.

    The last frame is the first one at or after the capture's last, so that no motion is lost.

    Raises:
        AvfaceError: if the rate isn't a number from 1 to `HIGHEST_RATE`.
    """
    check_rate(rate, f"frame rate {rate}")
    return at_times(capture, constant_rate_times(capture.times, rate))


def constant_rate_times(times: Floats, rate: float) -> F64:
    """Times (N,) in seconds, 1 / rate apart, from the first of times (T,) to the first one at or after the last."""
    if not len(times):
        return np.zeros(0)
    count = math.ceil((times[-1] - times[0] - SAME_TIME) * rate) + 1
    return np.asarray(times[0] + np.arange(max(count, 1)) / rate, np.float64)


def at_times(capture: Capture, times: Floats) -> Capture:
    """The capture at other times (N,) in seconds, ascending.

    Rotations are interpolated along the shortest arc at constant angular velocity (slerp, Shoemake 1985), all other
    motion linearly, as players of scene files do between keys. Confidence and visibility are those of the nearest
    frame. Nothing is interpolated across a shot cut: up to it the last frame before it holds. A pose before the first
    frame or after the last is that of the frame.
    """
    times = np.asarray(times, np.float64)
    if not len(capture):
        return capture
    before, after, share, segment = _neighbours(capture, times)
    nearest = np.where(share < 0.5, before, after)

    def blended(values: Floats) -> Floats:
        part = share.reshape(-1, *[1] * (values.ndim - 1))
        mixed = (1 - part) * values[before].astype(np.float64) + part * values[after].astype(np.float64)
        return mixed.astype(values.dtype)

    def layer_at(layer: LayerT) -> LayerT:
        return replace(layer, **{name: blended(getattr(layer, name)) for name in layer.per_frame})

    kept, starts = np.unique(segment, return_index=True)
    return replace(
        capture,
        times=times,
        expression=blended(capture.expression),
        translation=blended(capture.translation),
        rotation=slerp(capture.rotation[before], capture.rotation[after], share),
        joints=slerp(capture.joints[before], capture.joints[after], share[:, None]),
        confidence=capture.confidence[nearest],
        visibility=capture.visibility[nearest] if capture.visibility_regions else capture.visibility,
        layers=tuple(layer_at(layer) for layer in capture.layers),
        segment_starts=starts.astype(np.int64) if len(times) else np.zeros(1, np.int64),
        segment_same_person=capture.segment_same_person[kept] if len(times) else np.ones(1, bool),
    )


def slerp(start: Floats, end: Floats, share: Floats) -> Floats:
    """Axis-angle vectors (..., 3) in radians a share (...) of the shortest arc from `start` to `end`, (..., 3) both.

    The vectors stay close to `start`, whose length can pass pi; a share of 0 or 1 gives the ends exactly.
    """
    import torch

    from avface.geometry.rotations import rotmat_to_rotvec, rotvec_to_rotmat

    first = torch.as_tensor(np.asarray(start, np.float64))
    last = torch.as_tensor(np.asarray(end, np.float64))
    part = torch.as_tensor(np.broadcast_to(np.asarray(share, np.float64), first.shape[:-1]).copy())[..., None]
    origin = rotvec_to_rotmat(first)
    arc = rotmat_to_rotvec(origin.transpose(-1, -2) @ rotvec_to_rotmat(last))
    vectors = rotmat_to_rotvec(origin @ rotvec_to_rotmat(part * arc))
    # of the vectors of one rotation, whose lengths differ by whole turns, the one nearest to the start
    angle = vectors.norm(dim=-1, keepdim=True)
    own = angle > 1e-9
    direction = torch.where(own, vectors / angle.clamp_min(1e-9), first / first.norm(dim=-1, keepdim=True))
    direction = torch.nan_to_num(direction)
    turns = (((first * direction).sum(-1, keepdim=True) - angle) / (2 * torch.pi)).round()
    vectors = vectors + 2 * torch.pi * turns * direction
    vectors = torch.where(part == 0, first, torch.where(part == 1, last, vectors))
    return vectors.numpy().astype(np.asarray(start).dtype)


def _neighbours(capture: Capture, times: F64) -> tuple[Int, Int, F64, Int]:
    """Frames (N,) before and after each time in its shot, the share (N,) of the way between them, and the shot (N,)."""
    known, starts = capture.times, capture.segment_starts
    segment = np.searchsorted(known[starts], times + SAME_TIME, side="right") - 1
    segment = np.maximum(segment, 0)
    last_frame = np.append(starts[1:], len(known))[segment] - 1
    before = np.searchsorted(known, times + SAME_TIME, side="right") - 1
    before = np.clip(before, starts[segment], last_frame)
    after = np.minimum(before + 1, last_frame)
    gap = known[after] - known[before]
    moving: Bool = (gap > 0) & (np.abs(times - known[before]) > SAME_TIME)
    share = np.where(moving, (times - known[before]) / np.where(gap > 0, gap, 1), 0.0)
    return before, after, np.clip(share, 0, 1), segment
