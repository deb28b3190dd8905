"""Damage of a video: counted while it is decoded, reported at its end."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from avface.media.container import ReadErrors

SHORTFALL = Fraction(1, 2)
"""Seconds by which frames may end before the stated duration without counting as truncated."""

SAME_INTERVAL = Fraction(2, 1000)
"""Seconds within which two intervals between frames count as equal."""


@dataclass(frozen=True)
class Damage:
    """Losses in a video, known once its frames have been read to the end."""

    frames_decoded: int
    """Decoded frames."""
    frames_expected: int | None
    """Frames that the file should have, or None if unknown."""
    frames_concealed: int
    """Decoded frames with error concealment: damaged parts filled in from other frames."""
    packets_bad: int
    """Packets that could not be read, were incomplete, or could not be decoded."""
    message: str | None
    """One line for the user, or None when nothing was lost."""


@dataclass
class DamageTally:
    """Counts the frames of one run through a video."""

    step: Fraction
    """Usual interval between frames, in seconds."""
    errors: ReadErrors = field(default_factory=ReadErrors)
    """Read errors, counted by the reader."""
    _decoded: int = 0
    _concealed: int = 0
    _regular: int = 0
    _skipped: int = 0
    _last: Fraction | None = None

    def add(self, time: Fraction, concealed: bool) -> None:
        """Count a frame shown at `time` (seconds since the first)."""
        if self._last is not None:
            interval = time - self._last
            self._regular += abs(interval - self.step) < SAME_INTERVAL
            self._skipped += max(0, round(interval / self.step) - 1)
        self._decoded += 1
        self._concealed += concealed
        self._last = time

    def damage(self, name: str, indexed: int | None, duration: Fraction | None) -> Damage:
        """The damage relative to the file's index or duration.

        name: the file, for the message. indexed: frames in the container's index, duration: seconds; None
        if unknown. Without an index, frames count as missing where an otherwise constant rate has a gap, and
        where they end before the duration; a gap in a variable rate cannot be told from a pause.
        """
        expected = indexed
        if expected is None and self._last is not None:
            expected = self._decoded
            if self._regular >= 0.9 * (self._decoded - 1):
                expected += self._skipped
            end = self._last + self.step
            if duration is not None and duration - end > max(3 * self.step, SHORTFALL):
                expected = round(expected * duration / end)
        lost = max(0, (expected or 0) - self._decoded)
        message = None
        if lost or self._concealed or self.errors.count:
            share = f"{self._decoded} of {expected} frames could be decoded"
            parts = [share if lost else f"{self._decoded} frames decoded"]
            if self._concealed:
                parts.append(f"{self._concealed} of them with damaged parts")
            if self.errors.count:
                parts.append(f"bad packets: {self.errors.count} ({', '.join(self.errors.reasons)})")
            message = f"{name}: the file is damaged or cut short: {', '.join(parts)}"
        return Damage(self._decoded, expected, self._concealed, self.errors.count, message)
