"""What a stage is, and what all stages of a reconstruction share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
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
"""Called with (name, frames done, frames in all or None) as work goes on; names are "track", "solve" and those of later
stages."""


def no_progress(name: str, done: int, total: int | None) -> None:
    """Report nothing."""


@dataclass(frozen=True)
class Request:
    """The arguments of `avface.reconstruct`, with their meaning there. Refuses, on its own, what can't work."""

    path: Path
    head: str | Path = "open"
    face: int | tuple[float, float] | None = None
    focal_length: float | None = None
    device: str = "cpu"
    audio: bool = True
    video: bool = True
    networks: str | Path | None = None
    stages: Sequence[str] = ("coarse",)
    solver: SolverConfig | None = None
    progress: Progress = no_progress

    def __post_init__(self) -> None:
        if self.focal_length is not None and not self.focal_length > 0:
            raise AvfaceError(
                f"focal length {self.focal_length}: must be above 0 pixels; leave it out to have it estimated"
            )


class Stage(Protocol):
    """One step from a clip to a capture, loaded for one head.

    A class satisfies the protocol by its members; it is registered in `avface.stages.STAGES`. What a stage finds that
    isn't a field of `Capture` goes into a `avface.capture.Layer`.
    """

    name: ClassVar[str]
    """As in `reconstruct(stages=...)`."""
    needs: ClassVar[tuple[str, ...]]
    """Names of the stages that must run before it."""
    needs_audio: ClassVar[bool]
    """Whether it is skipped for clips without sound."""

    @classmethod
    def load(cls, head: HeadModel, request: Request) -> Stage | None:
        """Load weights and libraries; runs in the background while the clip is tracked.

        None if the stage is not available for this head: it is skipped then.

        Raises:
            AvfaceError: if files can't be used, or the request asks for what this head hasn't.
        """

    def run(self, capture: Capture, inputs: StageInputs) -> Capture:
        """The capture with what this stage adds.

        Raises:
            AvfaceError: if the clip can't be used.
        """


@dataclass(frozen=True, eq=False)
class StageInputs:
    """What stages know of a clip besides the capture so far."""

    request: Request
    clip: Clip
    track: FaceTrack
    """The person, refined by optical flow."""
    head: HeadModel

    @property
    def has_audio(self) -> bool:
        """Whether there is sound, and it is to be used."""
        return self.request.audio and self.clip.info.has_audio

    @cached_property
    def audio_lag(self) -> float:
        """Seconds by which the sound is late for the picture; 0 where the mouth isn't to be seen."""
        from avface.networks.fusion.av_sync import estimate_audio_lag

        if not (self.has_audio and self.request.video):
            return 0.0
        return estimate_audio_lag(self.track, self.clip.audio_blocks(), self.request.device)

    def audio(self) -> Iterator[F32]:
        """Blocks of samples at 16 kHz, aligned with the picture, from the beginning each time; only if `has_audio`."""
        from avface.networks.fusion.av_sync import align_audio

        return align_audio(self.clip.audio_blocks(), self.audio_lag)

    @property
    def focal_length(self) -> float:
        """Pixels: the given one, or the mean of its prior."""
        from avface.solve import SolverConfig

        config = self.request.solver or SolverConfig()
        return self.request.focal_length or config.focal_prior * max(self.track.image_size)

    def shots(self) -> Int:
        """(T,) number of the shot that each frame is in."""
        numbers = np.zeros(len(self.track.times), np.int64)
        for number, segment in enumerate(self.track.segments):
            numbers[segment.start : segment.end] = number
        return numbers

    def same_person(self) -> Bool:
        """(T,) whether a frame's shot shows the person."""
        return np.array([segment.same_person for segment in self.track.segments], bool)[self.shots()]

    def counter(self, name: str) -> Callable[[int], None]:
        """Reports progress under a name; called with how many more frames are done."""
        done, total = 0, len(self.track.times)

        def count(more: int) -> None:
            nonlocal done
            done += more
            self.request.progress(name, done, total)

        self.request.progress(name, 0, total)
        return count
