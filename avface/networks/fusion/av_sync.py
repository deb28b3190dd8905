"""Audio-visual synchronisation: the lag of a clip's sound, by cross-correlation of the mouth opening.

The opening that the speech readout hears is correlated with the opening of the tracked lips. Some recordings are
asynchronous by some frames, and the time by which lips lead the voice differs from person to person. A lag is trusted
as far as the evidence goes: the estimate is the mean of its posterior distribution, whose prior prefers small lags.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from avface.arrays import F32, F64, Floats
from avface.head.measures import box_size, mouth_opening
from avface.head.schemes import LIPS
from avface.speech.moonshine import FIRST_ROW, ROW_SECONDS
from avface.speech.readout import pretrained_hearing
from avface.speech.spectrum import SAMPLE_RATE
from avface.tracking import FaceTrack

MAX_LAG = 0.3
"""Largest lag, either way, in seconds."""
LAG_STEP = 0.02
"""Seconds between candidate lags."""
MIN_FRAMES = 25
"""Least number of frames with visible lips for an estimate."""
LAG_SIGMA = 0.1
"""Standard deviation of the prior of the lag, in seconds."""
INDEPENDENT_SECONDS = 0.25
"""Seconds of speech that count as one independent observation of the correlation."""
LEAST_VARIATION = 0.02
"""Standard deviation of the heard opening below which no mouth is heard to move, as in silence."""
LEAST_LAG = 0.01
"""Lags closer to 0 are taken for 0, in seconds."""
MAX_SECONDS = 60.0
"""Seconds of a long clip that are compared, from its beginning: their landmarks and sound are held in memory."""
VISIBLE = 0.75
"""Mean visibility of the lip landmarks from which on a frame counts."""


def estimate_audio_lag(track: FaceTrack, sound: Iterable[F32], device: str = "cpu") -> float:
    """Lag of a clip's sound in seconds, positive if it is late for the picture; 0 without sufficient evidence.

    sound: blocks of samples at 16 kHz, sample 0 at time 0 (`Clip.audio_blocks`), of which `MAX_SECONDS` are read.
    """
    import torch

    held: list[F32] = []
    missing = round(MAX_SECONDS * SAMPLE_RATE)
    for block in sound:
        held.append(block[:missing])
        missing -= len(held[-1])
        if not missing:
            break
    if not held:
        return 0.0
    predicted = pretrained_hearing(device).hear(torch.from_numpy(np.concatenate(held)).to(device)).opening
    count = int(np.searchsorted(track.times, MAX_SECONDS))
    opening = np.full(count, np.nan)
    points = np.asarray(track.landmarks[:count], np.float64)
    found = np.flatnonzero(track.seen[:count])
    if track.visibility is not None:
        visibility = np.asarray(track.visibility[:count], np.float32)[:, LIPS].mean(1)
        found = found[visibility[found] >= VISIBLE]
    if len(found):
        opening[found] = mouth_opening(points[found], box_size(points[found]))
    return audio_lag(predicted.cpu().numpy(), track.times[:count], opening)


def audio_lag(predicted: Floats, times: F64, tracked: F64) -> float:
    """Lag of the sound in seconds: the sound of a frame at time t is at t plus the lag.

    The likelihood of a lag is that of the correlation r there under normal errors, (1 - r^2)^(-n / 2) for n independent
    observations (r below 0 counts as 0).

    Args:
        predicted: (R,) opening of the lips by the speech readout, a row each `ROW_SECONDS` from `FIRST_ROW`.
        times: (T,) seconds of the frames.
        tracked: (T,) opening of the lips in the picture, in any unit; nan where they aren't visible.
    """
    visible = np.isfinite(tracked)
    if visible.sum() < MIN_FRAMES or not len(predicted) or predicted.std() < LEAST_VARIATION:
        return 0.0
    lags = LAG_STEP * np.arange(-round(MAX_LAG / LAG_STEP), round(MAX_LAG / LAG_STEP) + 1)
    rows = FIRST_ROW + ROW_SECONDS * np.arange(len(predicted))
    correlation = correlation_by_lag(rows, predicted, times[visible], tracked[visible], lags)
    if correlation is None:
        return 0.0
    count = visible.sum() * float(np.median(np.diff(times))) / INDEPENDENT_SECONDS
    evidence = -count / 2 * np.log(1 - correlation.clip(0, 0.999) ** 2)
    log_posterior = evidence - (lags / LAG_SIGMA) ** 2 / 2
    weights = np.exp(log_posterior - log_posterior.max())
    lag = float(weights @ lags / weights.sum())
    return lag if abs(lag) >= LEAST_LAG else 0.0


def correlation_by_lag(
    rows: Floats,
    predicted: Floats,
    times: Floats,
    tracked: Floats,
    lags: Floats,
) -> F64 | None:
    """Pearson correlation (L,) of predictions from sound with tracked values at lags (L,) of the sound, in seconds.

    None if one of the two is constant. Shapes: predicted (R,) at seconds rows (R,), tracked (T,) at seconds times (T,),
    T > 0.
    """
    shifted = np.stack([np.interp(times + lag, rows, predicted) for lag in lags])
    if np.std(tracked) == 0 or (shifted.std(1) == 0).any():
        return None
    return np.array([np.corrcoef(one, tracked)[0, 1] for one in shifted])


def align_audio(sound: Iterable[F32], lag: float) -> Iterator[F32]:
    """Blocks of sound shifted by minus `lag` seconds: its beginning is cut off, or silence precedes it."""
    missing = round(lag * SAMPLE_RATE)
    if missing < 0:
        yield np.zeros(-missing, np.float32)
    for block in sound:
        kept = block[max(missing, 0) :]
        missing -= min(max(missing, 0), len(block))
        if len(kept):
            yield kept
