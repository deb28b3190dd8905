"""Occlusion plans: during which frames an occluder is in front of the face, and whether it enters and leaves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avface.errors import AvfaceError
from avface.synthetic.occlusion.occluders.sampling import OCCLUDER_KINDS, WORN_KINDS, check_kinds


@dataclass(frozen=True)
class OcclusionConfig:
    """Frequency, duration and motion of occlusions. Steps are those of one frame at 25 frames a second."""

    kinds: tuple[str, ...] = OCCLUDER_KINDS
    """Kinds of occluder."""
    mouth_share: float = 0.7
    """Share of occluders that are placed over the mouth, among those that can be."""
    hold_share: float = 0.5
    """Share of short clips that are occluded in every frame; in the others the occluder enters or leaves."""
    occluded_share: float = 0.6
    """Share of the frames of longer clips that are occluded."""
    shortest: int = 16
    """Minimum length of an occlusion in frames; clips up to twice as long have just one occluder."""
    longest: int = 90
    """Maximum length of an occlusion in frames."""
    rotation_step: float = 3.0
    """Standard deviation in degrees of the random rotation in one frame, before smoothing."""
    translation_step: float = 0.02
    """Standard deviation of the random translation in one frame, in face sizes, before smoothing."""
    drift: float = 0.02
    """Maximum constant translation in one frame, in face sizes."""
    reach: float = 1.2
    """Size of the box that occluders stay within, in face boxes, except when they enter or leave."""
    shadow: float = 0.35
    """Share of the light that an occluder's shadow takes from the face beside it; 0 for none."""
    frame_rate: float = 25.0
    """Frames a second of the clip."""
    whole_face: bool = False
    """Whether occluders are enlarged, as if they were close to the lens, until they cover the whole face."""
    shortest_cover: int = 6
    """Minimum number of frames for which the whole face is covered, without the ramps."""
    longest_cover: int = 30
    """Maximum number of them."""

    def __post_init__(self) -> None:
        check_kinds(self.kinds)
        if self.whole_face and not set(self.kinds) - set(WORN_KINDS):
            raise AvfaceError(
                f"{', '.join(self.kinds)}: can't cover the whole face, because it is worn; give another kind of "
                "occluder"
            )
        for name in ("mouth_share", "hold_share", "occluded_share", "shadow"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"{name}={value} must be from 0 to 1")
        for name in ("rotation_step", "translation_step", "drift"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if not 1 <= self.shortest <= self.longest:
            raise ValueError(f"shortest={self.shortest} must be from 1 to longest={self.longest}")
        if not 1 <= self.shortest_cover <= self.longest_cover:
            raise ValueError(
                f"shortest_cover={self.shortest_cover} must be from 1 to longest_cover={self.longest_cover}"
            )
        for name in ("reach", "frame_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)} must be above 0")


@dataclass(frozen=True)
class OcclusionEvent:
    """The frames during which one occluder is in front of the face."""

    start: int
    """First frame."""
    stop: int
    """One past the last frame."""
    enters: bool
    """Whether it moves in from outside the picture; otherwise it is in place in the first frame."""
    leaves: bool
    """Whether it moves out of the picture at the end."""
    ramp: int | None = None
    """Frames in which it enters, and those in which it leaves; None for as many as its speed needs."""


def plan_occlusions(
    rng: np.random.Generator, frames: int, config: OcclusionConfig
) -> tuple[OcclusionEvent, ...]:
    """A random plan for a clip of `frames` frames: events in order that don't overlap."""
    if config.whole_face:
        return plan_whole_face(rng, frames, config)
    if frames <= 2 * config.shortest:
        if frames < 4 or rng.random() < config.hold_share:
            return (OcclusionEvent(0, frames, False, False),)
        if rng.random() < 0.5:
            return (OcclusionEvent(int(rng.integers(1, max(2, frames // 2))), frames, True, False),)
        return (OcclusionEvent(0, int(rng.integers(frames // 2 + 1, frames)), False, True),)
    events: list[OcclusionEvent] = []
    average = 0.5 * (config.shortest + config.longest)
    pause = average * (1 - config.occluded_share) / max(config.occluded_share, 1e-3)
    start = 0 if rng.random() < 0.3 else round(rng.exponential(pause))
    while start < frames - config.shortest:
        stop = min(start + int(rng.integers(config.shortest, config.longest + 1)), frames)
        events.append(OcclusionEvent(start, stop, start > 0, stop < frames))
        start = stop + 1 + round(rng.exponential(pause))
    if not events and config.occluded_share > 0:
        start = int(rng.integers(0, frames - config.shortest + 1))
        stop = min(start + int(rng.integers(config.shortest, config.longest + 1)), frames)
        events.append(OcclusionEvent(start, stop, start > 0, stop < frames))
    return tuple(events)


WHOLE_FACE_RAMP = 5
"""Frames at 25 a second in which something close to the lens enters, and in which it leaves."""
_CLEAR_FRAMES = 25
"""Mean number of frames at 25 a second between two covers of the whole face."""


def whole_face_event(start: int, covered: int, frame_rate: float = 25.0) -> OcclusionEvent:
    """An event that covers the whole face in `covered` frames, with ramps before and after; `start` is the first frame
    of the ramp."""
    ramp = _whole_face_ramp(frame_rate)
    return OcclusionEvent(start, start + covered + 2 * ramp, True, True, ramp)


def _whole_face_ramp(frame_rate: float) -> int:
    """`WHOLE_FACE_RAMP` at a frame rate."""
    return max(round(WHOLE_FACE_RAMP * frame_rate / 25), 1)


def plan_whole_face(
    rng: np.random.Generator, frames: int, config: OcclusionConfig
) -> tuple[OcclusionEvent, ...]:
    """A random plan that covers the whole face in runs of `shortest_cover` to `longest_cover` frames, with ramps.

    In clips that are too short for a run and two clear frames there is one that lasts for the clip.
    """
    rate = config.frame_rate
    ramps = 2 * _whole_face_ramp(rate)
    most = frames - ramps - 2
    if most < config.shortest_cover:
        return (OcclusionEvent(0, frames, False, False),)
    events: list[OcclusionEvent] = []
    start = 1 + int(rng.integers(0, (most - config.shortest_cover) // 3 + 1))
    while (room := frames - 1 - start - ramps) >= config.shortest_cover:
        covered = int(rng.integers(config.shortest_cover, min(config.longest_cover, room) + 1))
        events.append(whole_face_event(start, covered, rate))
        start = events[-1].stop + 2 + round(rng.exponential(_CLEAR_FRAMES * rate / 25))
    return tuple(events)
