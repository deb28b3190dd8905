"""The options of a preparation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avface.errors import AvfaceError

SPEECH_KINDS = ("moonshine", "own", "wav2vec2", "mel", None)
"""Values of `PrepareConfig.speech`."""


@dataclass(frozen=True)
class PrepareConfig:
    """Options of a preparation. They are stored in the index; a resumed run must have the same."""

    frame_rate: float = 25.0
    """Frames per second; videos with another rate are resampled by repeating or dropping frames."""
    size: int = 224
    """Width and height of the crops in pixels."""
    margin: float = 1.6
    """Side of the crop over the mean of width and height of the face (box of the iBUG points); constant in a take."""
    quality: int = 95
    """JPEG quality of the crops."""
    shortest: int = 16
    """Minimum length of a take in frames; the networks' windows have 16."""
    longest_gap: int = 4
    """Maximum number of consecutive frames without a face within a take; their landmarks are interpolated."""
    smallest_face: float = 32.0
    """Minimum face size in pixels, mean of width and height; frames with a smaller face are dropped."""
    speech: Literal["moonshine", "own", "wav2vec2", "mel"] | None = "moonshine"
    """Speech features of each frame, see `avface.speech`; None stores the sound alone."""
    validation: float = 0.05
    """Share of the identities in the validation split."""
    test: float = 0.05
    """Share of the identities in the test split; an official test split of a corpus is used instead."""
    shard_megabytes: float = 128.0
    """Maximum size of a shard, unless a single item is larger. Whole shards are distributed among readers."""

    def __post_init__(self) -> None:
        if self.speech not in SPEECH_KINDS:
            raise AvfaceError(f"speech={self.speech!r} must be moonshine, own, wav2vec2, mel or None")
        if not 1 <= self.frame_rate <= 240:
            raise AvfaceError(f"frame_rate={self.frame_rate} must be between 1 and 240 frames a second")
        if not 16 <= self.size <= 4096:
            raise AvfaceError(f"size={self.size} must be between 16 and 4096 pixels")
        if not 0.5 <= self.margin <= 10:
            raise AvfaceError(f"margin={self.margin} must be between 0.5 and 10 face sizes")
        if not 1 <= self.quality <= 100:
            raise AvfaceError(f"quality={self.quality} must be between 1 and 100")
        if self.shortest < 1:
            raise AvfaceError(f"shortest={self.shortest} must be at least 1 frame")
        if not self.shard_megabytes > 0:
            raise AvfaceError(f"shard_megabytes={self.shard_megabytes} must be above 0")
        for name in ("longest_gap", "smallest_face"):
            if not getattr(self, name) >= 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must not be negative")
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test <= 1):
            raise AvfaceError(
                f"validation={self.validation} and test={self.test} must be shares that are together at most 1"
            )
