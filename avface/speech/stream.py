"""Streaming speech features of consecutive frames."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from avface.arrays import F32, F64, Bool
from avface.speech.features import SpeechFeatures, SpeechKind, speech_features
from avface.speech.spectrum import SAMPLE_RATE

CONTEXT_SECONDS = 1.0
"""Seconds of sound before and after consecutive frames that their features depend on."""
_ROW = 320
"""Samples between rows of speech features; parts of the sound begin at multiples, so that rows keep their place."""


class SoundStream:
    """A stream of sound of which only the current part is in memory; parts are requested in order."""

    def __init__(self, blocks: Iterable[F32]) -> None:
        self._blocks = iter(blocks)
        self._held = np.zeros(0, np.float32)
        self._first = 0
        self._ended = False

    def features(
        self, times: F64, kind: SpeechKind, device: str | torch.device
    ) -> tuple[Bool, SpeechFeatures | None]:
        """Which frames (T,) have sound, and the speech features around them; None if none has."""
        first = max(0, int((times[0] - CONTEXT_SECONDS) * SAMPLE_RATE)) // _ROW * _ROW
        samples = self._part(first, int((times[-1] + CONTEXT_SECONDS) * SAMPLE_RATE))
        heard = times < (first + len(samples)) / SAMPLE_RATE
        if not heard.any():
            return heard, None
        return heard, speech_features(samples, times - first / SAMPLE_RATE, kind, device)

    def _part(self, first: int, last: int) -> F32:
        """Samples first to last - 1, or to the end of the sound; earlier ones are discarded."""
        held, count = [self._held], self._first + len(self._held)
        while count < last and not self._ended:
            block = next(self._blocks, None)
            if block is None:
                self._ended = True
                break
            held.append(block)
            count += len(block)
        joined = np.concatenate(held) if len(held) > 1 else self._held
        skipped = min(first - self._first, len(joined))
        self._held, self._first = joined[skipped:], self._first + skipped
        return self._held[: max(last - self._first, 0)] if self._first == first else self._held[:0]
