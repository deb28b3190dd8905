"""The options of a preparation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from avface.errors import AvfaceError


@dataclass(frozen=True)
class PrepareConfig:
    """How a corpus becomes shards. Kept in the index; a run that goes on must have the same."""

    frame_rate: float = 25.0
    """Frames per second; videos with another rate are resampled by repeating frames or leaving them out."""
    size: int = 224
    """Pixels of the square crops."""
    margin: float = 1.6
    """Side of the crop over the mean of width and height of the face (the iBUG points' box); one size a take."""
    quality: int = 95
    """JPEG quality of the crops."""
    shortest: int = 16
    """Fewest frames of a take; nets see windows of 16."""
    longest_gap: int = 4
    """Most frames in a row in which the face may be lost within a take; landmarks there are filled in."""
    smallest_face: float = 32.0
    """Pixels, mean of width and height: frames with a smaller face are left out."""
    speech: Literal["deepspeech", "mel", "wav2vec2"] | None = "deepspeech"
    """Features of the sound for each frame, see `avface.speech`; None stores the sound alone."""
    validation: float = 0.05
    """Share of the identities in the validation split."""
    test: float = 0.05
    """Share of the identities in the test split; where a corpus has an official one, that is kept instead."""
    shard_megabytes: float = 128.0
    """A shard is closed when the next item would make it larger. Readers share out whole shards."""

    def __post_init__(self) -> None:
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
                raise AvfaceError(f"{name}={getattr(self, name)} can't be below 0")
        if not (self.validation >= 0 and self.test >= 0 and self.validation + self.test <= 1):
            raise AvfaceError(
                f"validation={self.validation} and test={self.test} must be shares that add up to 1 at most"
            )
