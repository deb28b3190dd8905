"""By how much a clip's sound is early or late for its picture: heard against seen opening of the mouth.

Recordings are out of step by a frame or two now and then, and people's lips lead their voices by different times. What
is made of the sound fits the picture only at the right moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from avface.arrays import F32, F64, Floats
from avface.head.measures import box_size, mouth_opening
from avface.head.schemes import LIPS
from avface.speech.acoustic import ROW_SECONDS, pretrained_acoustic_model
from avface.speech.spectrum import SAMPLE_RATE
from avface.tracking import FaceTrack

LARGEST = 0.14
"""Seconds by which sound can be early or late."""
STEP = 0.02
"""Seconds between the lags that are compared."""
LEAST_FRAMES = 25
"""Frames in which the mouth is seen, from which on a lag is looked for."""
LEAST_AGREEMENT, LEAST_GAIN = 0.25, 0.05
"""Correlation that there must be at the lag, and by how much it must be better than without lag."""
RELUCTANCE = 0.05
"""What a lag of 0.1 s costs of correlation, growing with its square."""
HEARD_SECONDS = 60.0
"""How much of a long clip is compared, from its beginning: its landmarks and sound are in memory for that."""
VISIBLE = 0.75
"""Mean visibility of the landmarks of the lips from which on the lips are seen."""


def clip_sound_lag(track: FaceTrack, sound: Iterable[F32], device: str = "cpu") -> float:
    """Seconds by which a clip's sound comes later than its picture; 0 where that can't be told.

    sound: blocks of samples at 16 kHz, sample 0 at time 0 (`Clip.audio_blocks`); they are read for `HEARD_SECONDS`.
    """
    import torch

    held: list[F32] = []
    missing = round(HEARD_SECONDS * SAMPLE_RATE)
    for block in sound:
        held.append(block[:missing])
        missing -= len(held[-1])
        if not missing:
            break
    if not held:
        return 0.0
    heard = pretrained_acoustic_model(device).listen(torch.from_numpy(np.concatenate(held))).openness
    count = int(np.searchsorted(track.times, HEARD_SECONDS))
    opening = np.full(count, np.nan)
    points = np.asarray(track.landmarks[:count], np.float64)
    found = np.flatnonzero(track.seen[:count])
    if track.visibility is not None:
        visibility = np.asarray(track.visibility[:count], np.float32)[:, LIPS].mean(1)
        found = found[visibility[found] >= VISIBLE]
    if len(found):
        opening[found] = mouth_opening(points[found], box_size(points[found]))
    return sound_lag(heard.cpu().numpy(), track.times[:count], opening)


def sound_lag(heard: Floats, times: F64, seen: F64) -> float:
    """Seconds by which the sound comes later than the picture: a frame's sound is at its time plus these.

    Args:
        heard: (R,) opening of the lips by the acoustic model, a row each `ROW_SECONDS` from time 0.
        times: (T,) seconds of the frames.
        seen: (T,) opening of the lips in the picture, in any unit; nan where they aren't seen.
    """
    chosen = np.isfinite(seen)
    if chosen.sum() < LEAST_FRAMES or not len(heard):
        return 0.0
    opening, at = seen[chosen], times[chosen]
    lags = STEP * np.arange(-round(LARGEST / STEP), round(LARGEST / STEP) + 1)
    rows = ROW_SECONDS * np.arange(len(heard))
    agreement = agreement_by_lag(rows, heard, at, opening, lags)
    if agreement is None:
        return 0.0
    best = int(np.argmax(agreement - RELUCTANCE * (lags / 0.1) ** 2))
    enough = agreement[best] >= LEAST_AGREEMENT and agreement[best] >= agreement[len(lags) // 2] + LEAST_GAIN
    return float(lags[best]) if enough else 0.0


def agreement_by_lag(
    rows: Floats,
    heard: Floats,
    times: Floats,
    seen: Floats,
    lags: Floats,
) -> F64 | None:
    """Correlations (L,) of what is heard with what is seen, were it heard lags (L,) seconds later than it is seen; None
    where one of them doesn't change.

    Shapes: heard (R,) at seconds rows (R,), seen (T,) at seconds times (T,), T > 0.
    """
    said = np.stack([np.interp(times + lag, rows, heard) for lag in lags])
    if np.std(seen) == 0 or (said.std(1) == 0).any():
        return None
    return np.array([np.corrcoef(one, seen)[0, 1] for one in said])


def in_step(sound: Iterable[F32], lag: float) -> Iterator[F32]:
    """Sound that comes `lag` seconds later than the picture, in step with it: its beginning cut off, or silence before
    it."""
    missing = round(lag * SAMPLE_RATE)
    if missing < 0:
        yield np.zeros(-missing, np.float32)
    for block in sound:
        kept = block[max(missing, 0) :]
        missing -= min(max(missing, 0), len(block))
        if len(kept):
            yield kept
