"""The protocol of stages, and the inputs that all stages of a reconstruction share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np

from avface.arrays import F32, Bool, Int
from avface.errors import AvfaceError

if TYPE_CHECKING:
    from avface.capture import Capture
    from avface.head.model import HeadModel
    from avface.media import Clip
    from avface.solve import SolverConfig
    from avface.tracking import FaceTrack

Progress = Callable[[str, int, "int | None"], None]
"""Called with (name, frames done, total frames or None); names are "track", "solve" and those of later stages."""


DEFAULT_STAGES = ("coarse", "lips")
"""Names of the stages that run by default."""
FOCAL_LENGTHS = (0.1, 100.0)
"""Range of focal lengths over the longer side of the picture: angles of view from 157 to half a degree."""


def no_progress(name: str, done: int, total: int | None) -> None:
    """Report nothing."""


def check_device(device: str) -> None:
    """Check that torch can compute on a device.

    Raises:
        AvfaceError: if it can't.
    """
    if not isinstance(device, str):
        raise AvfaceError(f"device {device!r}: must be the name of a device, such as cpu or cuda")
    if device != "cpu":
        import torch

        try:
            torch.zeros(1, device=device).item()  # devices without memory, such as meta, have no value
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise AvfaceError(f"device {device}: can't be used ({reason}); try cpu") from None


@dataclass(frozen=True)
class Request:
    """The arguments of `avface.reconstruct`, with their meaning there.

    Raises:
        AvfaceError: if an argument can't work, whatever the video.
    """

    path: Path
    head: str | Path = "open"
    face: int | tuple[float, float] | None = None
    focal_length: float | None = None
    device: str = "cpu"
    audio: bool = True
    audio_track: int | None = None
    rotate: int = 0
    video: bool = True
    networks: str | Path | None = None
    stages: Sequence[str] = DEFAULT_STAGES
    solver: SolverConfig | None = None
    progress: Progress = no_progress

    def __post_init__(self) -> None:
        for given in (self.path, self.head, self.networks):
            if given is not None and not isinstance(given, (str, Path)):
                raise AvfaceError(f"{given!r}: must be a path, as str or Path")
            if "\0" in str(given):
                raise AvfaceError(f"{str(given)!r}: no file can have this name")
        focal = self.focal_length
        if focal is not None and not (_is_number(focal) and 0 < focal < math.inf):
            raise AvfaceError(
                f"focal length {focal!r}: must be a finite number above 0 pixels; leave it out to have it estimated"
            )
        _check_face(self.face)
        if not callable(self.progress):
            raise AvfaceError(f"progress {self.progress!r}: must be a function of (name, frames done, total)")
        if isinstance(self.rotate, bool) or self.rotate not in (0, 90, 180, 270):
            raise AvfaceError(f"rotate {self.rotate!r}: must be 0, 90, 180 or 270 degrees clockwise")
        track = self.audio_track
        if track is not None and (isinstance(track, bool) or not isinstance(track, Integral) or track < 0):
            raise AvfaceError(
                f"audio track {track!r}: must be a whole number; sound tracks are numbered from 0"
            )
        check_device(self.device)

    def check_size(self, width: int, height: int) -> None:
        """Check what depends on the size of the video's pictures, in pixels.

        Raises:
            AvfaceError: if the focal length is none that a camera has, or the point of the face is outside.
        """
        focal, side = self.focal_length, max(width, height)
        low, high = (factor * side for factor in FOCAL_LENGTHS)
        if focal is not None and not low <= focal <= high:
            raise AvfaceError(
                f"{self.path}: focal length {focal:g}: must be from {low:g} to {high:g} pixels for pictures of "
                f"{width} x {height}; leave it out to have it estimated"
            )
        if isinstance(self.face, tuple):
            x, y = self.face
            if not (-0.5 <= x <= width - 0.5 and -0.5 <= y <= height - 0.5):
                raise AvfaceError(
                    f"{self.path}: face {x:g},{y:g}: is outside the pictures of {width} x {height} pixels"
                )


def _is_number(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _check_face(face: object) -> None:
    """Refuse what is neither None, a number of a person, nor a point."""
    if face is None:
        return
    if isinstance(face, tuple):
        if len(face) != 2 or not all(_is_number(value) and math.isfinite(value) for value in face):
            raise AvfaceError(f"face {face}: a point must be two finite numbers (x, y) in pixels")
    elif not isinstance(face, Integral) or isinstance(face, bool):
        raise AvfaceError(
            f"face {face!r}: must be the number of a person, or a point as a tuple (x, y) in pixels"
        )
    elif face < 0:
        raise AvfaceError(f"face {face}: people are numbered from 0, the most prominent first")


class Stage(Protocol):
    """One step from a clip to a capture, loaded for one head.

    A class satisfies the protocol by its members, and is registered in `avface.stages.STAGES`. Results of a stage that
    aren't fields of `Capture` go into an `avface.capture.Layer`.
    """

    name: ClassVar[str]
    """As in `reconstruct(stages=...)`."""
    needs: ClassVar[tuple[str, ...]]
    """Names of the stages that must run before it."""
    needs_audio: ClassVar[bool]
    """Whether it is skipped for clips without sound."""

    @classmethod
    def load(cls, head: HeadModel, request: Request) -> Stage | None:
        """Load weights and libraries, in the background while the clip is tracked.

        None if the stage isn't available for this head; it is skipped then.

        Raises:
            AvfaceError: if files can't be used, or the request needs something that this head lacks.
        """

    def run(self, capture: Capture, inputs: StageInputs) -> Capture:
        """The capture with the results of this stage.

        Raises:
            AvfaceError: if the clip can't be used.
        """


@dataclass(frozen=True, eq=False)
class StageInputs:
    """Inputs of a stage besides the capture of the stages before it."""

    request: Request
    clip: Clip
    track: FaceTrack
    """The person's track, refined by optical flow."""
    head: HeadModel

    @property
    def has_audio(self) -> bool:
        """Whether the clip has sound that may be used."""
        return self.request.audio and self.clip.info.has_audio

    @cached_property
    def audio_lag(self) -> float:
        """Delay of the sound against the picture in seconds, positive if it is late; 0 without sound, or if the mouth
        may not be seen."""
        from avface.networks.fusion.av_sync import estimate_audio_lag

        if not (self.has_audio and self.request.video):
            return 0.0
        return estimate_audio_lag(self.track, self.clip.audio_blocks(), self.request.device)

    def audio(self) -> Iterator[F32]:
        """Blocks of samples at 16 kHz from the start of the clip, aligned with the picture; only if `has_audio`."""
        from avface.networks.fusion.av_sync import align_audio

        return align_audio(self.clip.audio_blocks(), self.audio_lag)

    @property
    def focal_length(self) -> float:
        """Pixels; the mean of its prior if none is given."""
        from avface.solve import SolverConfig

        config = self.request.solver or SolverConfig()
        return self.request.focal_length or config.focal_prior * max(self.track.image_size)

    def shots(self) -> Int:
        """(T,) number of the shot of each frame."""
        numbers = np.zeros(len(self.track.times), np.int64)
        for number, segment in enumerate(self.track.segments):
            numbers[segment.start : segment.end] = number
        return numbers

    def same_person(self) -> Bool:
        """(T,) whether the shot of each frame shows the person."""
        return np.array([segment.same_person for segment in self.track.segments], bool)[self.shots()]

    def counter(self, name: str) -> Callable[[int], None]:
        """A function that adds to the number of frames done and reports it under a name."""
        done, total = 0, len(self.track.times)

        def count(more: int) -> None:
            nonlocal done
            done += more
            self.request.progress(name, done, total)

        self.request.progress(name, 0, total)
        return count
