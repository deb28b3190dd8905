"""Streaming speech features of consecutive frames."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from avface.arrays import F32, F64, Bool
from avface.speech.features import SpeechFeatures, SpeechKind, check_samples, framed
from avface.speech.moonshine import BLOCK_ROWS, FIRST_ROW, ROW_SECONDS, num_rows, sound_block
from avface.speech.readout import HearingRows, joined, pretrained_hearing
from avface.speech.spectrum import SAMPLE_RATE

CONTEXT_SECONDS = 1.0
"""Seconds of sound around consecutive frames that their features depend on, but for what is heard in blocks."""
_ROW = 320
"""Samples between rows of the acoustic model; parts of the sound begin at multiples, so that rows keep their place."""


class SoundStream:
    """A stream of sound of which only the current part is in memory; parts are requested in order."""

    def __init__(self, blocks: Iterable[F32]) -> None:
        self._blocks = iter(blocks)
        self._held = np.zeros(0, np.float32)
        self._first = 0
        self._ended = False
        self._heard: dict[int, HearingRows] = {}
        self._next_block = 0

    def features(
        self, times: F64, kind: SpeechKind, device: str | torch.device
    ) -> tuple[Bool, SpeechFeatures | None]:
        """Which frames (T,) have sound, and the speech features around them; None if none has.

        Raises:
            AvfaceError: if samples aren't finite numbers.
        """
        first = max(0, int((times[0] - CONTEXT_SECONDS) * SAMPLE_RATE)) // _ROW * _ROW
        last = int((times[-1] + CONTEXT_SECONDS) * SAMPLE_RATE)
        heard_rows = self._hear(first, last, str(device))
        self._read(last)
        samples = self._held[max(first - self._first, 0) : max(last - self._first, 0)]
        self._discard(min(first, self._first_needed()))
        heard = times < self._end / SAMPLE_RATE
        if heard_rows is None or not heard.any():
            return np.zeros_like(heard), None
        (rows, first_row), begin = heard_rows, first / SAMPLE_RATE
        sound = torch.from_numpy(samples).to(device)
        return heard, framed(rows, first_row - begin, sound, times - begin, kind)

    @property
    def _end(self) -> int:
        """One past the last sample read so far."""
        return self._first + len(self._held)

    def _hear(self, first: int, last: int, device: str) -> tuple[HearingRows, float] | None:
        """What is heard between two samples, and the seconds at the first row; None after the end of the sound."""
        hearing = pretrained_hearing(device)
        first_block = num_rows(first) // BLOCK_ROWS
        for number in [one for one in self._heard if one < first_block]:
            del self._heard[number]
        while self._next_block <= num_rows(last) // BLOCK_ROWS:
            needed = sound_block(self._next_block, None)
            self._read(needed.end)
            end = self._end if self._ended else None
            if end is not None and self._next_block * BLOCK_ROWS >= num_rows(end):
                break
            sound = torch.from_numpy(self._held).to(device)
            check_samples(sound)
            self._heard[self._next_block] = hearing.block(self._next_block, sound, end, self._first)
            self._next_block += 1
            self._discard(min(first, self._first_needed()))
        numbers = sorted(self._heard)
        if not numbers:
            return None
        rows = joined([self._heard[number] for number in numbers])
        return rows, FIRST_ROW + ROW_SECONDS * BLOCK_ROWS * numbers[0]

    def _first_needed(self) -> int:
        """First sample of the next block to hear."""
        return max(sound_block(self._next_block, None).begin, 0)

    def _read(self, last: int) -> None:
        """Read samples up to `last` - 1, or to the end of the sound."""
        held, count = [self._held], self._end
        while count < last and not self._ended:
            block = next(self._blocks, None)
            if block is None:
                self._ended = True
                break
            held.append(block)
            count += len(block)
        self._held = np.concatenate(held) if len(held) > 1 else self._held

    def _discard(self, first: int) -> None:
        """Discard samples before `first`."""
        skipped = min(max(first - self._first, 0), len(self._held))
        self._held, self._first = self._held[skipped:], self._first + skipped
