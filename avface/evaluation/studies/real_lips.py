"""Evaluation of the lip refinement on real clips: correlation with tracked landmarks, and closures at bilabials.

python -m avface.evaluation.studies.real_lips path/to/clips
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from avface.arrays import F32, F64, Floats, runs
from avface.capture import Capture
from avface.errors import AvfaceError
from avface.evaluation.clips import real_videos
from avface.evaluation.metrics import nme
from avface.evaluation.tables import aligned
from avface.head.lip_contact import LipContact
from avface.head.lips import lip_region
from avface.head.measures import mouth_opening
from avface.head.schemes import LIPS
from avface.media import Clip
from avface.networks.fusion.av_sync import align_audio, correlation_by_lag, estimate_audio_lag
from avface.speech.moonshine import FIRST_ROW, ROW_SECONDS
from avface.speech.phones import SYMBOLS
from avface.speech.readout import pretrained_hearing

BILABIALS = ("p", "m")
"""Symbols of bilabials; "p" includes "b"."""
BILABIAL_PROBABILITY = 0.5
"""Probability from which a row counts as a bilabial."""
BEFORE, AFTER = 0.1, 0.02
"""Margins in seconds before the start and after the end of a bilabial in which the lips may be closed."""
CLOSED_GAP = 1.5
"""Tracked gap in per cent of the face's height below which lips count as closed."""
MAX_LAG = 0.24
"""Largest lag in seconds between audible and visible closures."""
LAG_STEP = 0.02
"""Step in seconds between candidate lags."""
STAGES = ("coarse", "lips")
"""The compared stages: without and with refinement."""


@dataclass(frozen=True)
class BilabialGaps:
    """Number of detected bilabials, and means over them of the smallest distance between the inner lips around each, in
    per cent of the face's height; nan without any. The head's distance is that of its surface, without
    `landmark_bias`, and positive where the lips penetrate."""

    count: int
    tracked: float
    coarse: float
    refined: float


@dataclass(frozen=True)
class RealLips:
    """Figures of one clip: of the head without (coarse) and with lip refinement (refined)."""

    name: str
    """File name."""
    error_coarse: float
    """NME of the 40 lip landmarks against the tracker's, in per cent of the face's size."""
    error_refined: float
    closed: BilabialGaps
    """Bilabials with tracked closure, see `CLOSED_GAP`."""
    others: BilabialGaps
    """The other bilabials: false detections, or closures that the tracker misses."""
    opening_coarse: float
    """Correlation of the gap with the tracked gap over all frames."""
    opening_refined: float
    penetration_coarse: float
    """Mean penetration of upper and lower lip over the frames, mm."""
    penetration_refined: float
    audio_lead: float
    """Lead in seconds of audible over visible closures at their best correlation; negative: delay."""
    lead_correlation: float
    """Correlation of audible and visible closures at that lead."""
    zero_lag_correlation: float
    """Correlation of audible and visible closures at lag 0."""


def measure_real_lips(video: Path) -> RealLips:
    """Reconstruct a clip with lip refinement and compare its lips with the tracked ones.

    Raises:
        AvfaceError: if the video can't be read, or has no audio or no face.
    """
    from avface.networks.lips.refinement import pretrained_lip_refinement
    from avface.pipeline import reconstruct
    from avface.tracking import track

    clip = Clip.open(video)
    observed = track(clip.frames())
    lag = estimate_audio_lag(observed, clip.audio_blocks())
    sound = list(align_audio(clip.audio_blocks(), lag))
    if not sound:
        raise AvfaceError(f"{video}: has no audio")
    capture = reconstruct(video, stages=("coarse", "lips"))
    refinement = pretrained_lip_refinement(capture.head_model, "cpu")
    if refinement is None:
        raise AvfaceError("the weights of the lip refinement are missing; install avface again")
    tracked = np.asarray(observed.landmarks[:], np.float64)
    heard = refinement.audio_closures(capture.times, sound)
    return compare_lips(capture, tracked, bilabial_sounds(np.concatenate(sound)), heard, video.name)


def compare_lips(
    capture: Capture,
    tracked: F64,
    sounds: Sequence[tuple[float, float]],
    heard: Floats,
    name: str,
) -> RealLips:
    """Compare a capture's lips, without and with refinement, with tracked landmarks.

    tracked (T, 478, 2) pixels, nan without a face; sounds: (start, end) in seconds of the bilabials; heard (T,) closure
    predicted from audio, 0 to 1.

    Raises:
        AvfaceError: if the capture's head has no lips for `lip_region`.
    """
    seen = np.isfinite(tracked).all((1, 2))
    height = tracked[..., 1].max(1) - tracked[..., 1].min(1)
    region = lip_region(capture.head_model)
    contact = LipContact.of(capture.head_model, region)
    # The tracker's bias of a person applies to open lips; closed lips touch wherever their landmarks are.
    surface = replace(capture, landmark_bias=np.zeros((0, 3), np.float32))
    errors, gaps, penetrations = [], [100 * mouth_opening(tracked, height)], []
    for stage in STAGES:
        points = capture.landmarks(stage=stage).astype(np.float64)
        errors.append(float(nme(points[seen][:, LIPS], tracked[seen][:, LIPS], tracked[seen]).mean()))
        gaps.append(100 * mouth_opening(surface.landmarks(stage=stage), height))
        vertices = capture.vertices(space="head", stage=stage)[:, region.vertices]
        penetrations.append(1000 * float(contact.penetration(torch.as_tensor(vertices))[seen].mean()))
    moments = [
        seen & (capture.times >= start - BEFORE) & (capture.times <= end + AFTER) for start, end in sounds
    ]
    smallest = np.array([[gap[chosen].min() for gap in gaps] for chosen in moments if chosen.any()])
    smallest = smallest.reshape(-1, 1 + len(STAGES))
    closed = smallest[:, 0] < CLOSED_GAP
    opening = [float(np.corrcoef(gap[seen], gaps[0][seen])[0, 1]) for gap in gaps[1:]]
    lead, best, at_zero = closure_lead(capture.times, heard, gaps[0])
    return RealLips(
        name,
        error_coarse=errors[0],
        error_refined=errors[1],
        closed=_bilabial_gaps(smallest[closed]),
        others=_bilabial_gaps(smallest[~closed]),
        opening_coarse=opening[0],
        opening_refined=opening[1],
        penetration_coarse=penetrations[0],
        penetration_refined=penetrations[1],
        audio_lead=lead,
        lead_correlation=best,
        zero_lag_correlation=at_zero,
    )


def closure_lead(times: F64, heard: Floats, gap: F64) -> tuple[float, float, float]:
    """Lead in seconds of audible over visible closures at their best correlation, that correlation, and the correlation
    at lag 0; nan where one is constant.

    times (T,) seconds, heard (T,) audible closure from 0 to 1, gap (T,) between the inner lips in per cent of the
    face's height, nan where they aren't visible.
    """
    seen = np.isfinite(gap)
    closure = np.exp(-((gap[seen] / CLOSED_GAP) ** 2))
    count = round(MAX_LAG / LAG_STEP)
    lags = LAG_STEP * np.arange(-count, count + 1)
    correlation = correlation_by_lag(times, heard, times[seen], closure, -lags) if len(closure) else None
    if correlation is None:
        return float("nan"), float("nan"), float("nan")
    best = int(correlation.argmax())
    return float(lags[best]), float(correlation[best]), float(correlation[count])


def _bilabial_gaps(smallest: F64) -> BilabialGaps:
    """Means of the gaps (B, 3) of B bilabials: tracked, coarse, refined."""
    means = smallest.mean(0) if len(smallest) else np.full(1 + len(STAGES), np.nan)
    return BilabialGaps(len(smallest), *means.tolist())


def bilabial_sounds(sound: F32) -> list[tuple[float, float]]:
    """(start, end) in seconds of the bilabials that are detected in (N,) samples at 16 kHz."""
    phones = pretrained_hearing().hear(torch.from_numpy(sound)).phones
    probability = phones[:, [SYMBOLS.index(symbol) for symbol in BILABIALS]].sum(1).numpy()
    found = runs(probability > BILABIAL_PROBABILITY)
    begin = FIRST_ROW - ROW_SECONDS / 2
    return [(max(begin + ROW_SECONDS * start, 0.0), begin + ROW_SECONDS * end) for start, end in found]


def table(clips: Sequence[RealLips]) -> str:
    """The figures as text, with their means over the clips and the sums of the numbers of bilabials."""
    head = [
        "lips of real clips", "NME coarse", "lips", "closed", "tracked", "coarse", "lips",
        "others", "tracked", "coarse", "lips", "r coarse", "lips", "penetration coarse", "lips",
        "audio lead, s", "r", "r at 0",
    ]  # fmt: skip
    figures = [_figures(clip) for clip in clips]
    means = [
        sum(column) if isinstance(column[0], int) else _mean(column) for column in zip(*figures, strict=True)
    ]
    rows = [[clip.name[:30], *map(_cell, row)] for clip, row in zip(clips, figures, strict=True)]
    return aligned([head, *rows, ["mean", *map(_cell, means)]], [1, len(clips) + 1])


def _figures(clip: RealLips) -> list[float]:
    """Figures of a clip in the order of the table."""
    return [
        clip.error_coarse, clip.error_refined, *astuple(clip.closed), *astuple(clip.others),
        clip.opening_coarse, clip.opening_refined, clip.penetration_coarse, clip.penetration_refined,
        clip.audio_lead, clip.lead_correlation, clip.zero_lag_correlation,
    ]  # fmt: skip


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if np.isfinite(value)]
    return sum(known) / len(known) if known else float("nan")


def _cell(value: float) -> str:
    if not np.isfinite(value):
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.2f}"


@dataclass(frozen=True)
class RealLipsEvaluation:
    """Print figures of the lip refinement on real clips."""

    clips: tyro.conf.Positional[Path | None] = None
    """Folder of videos; by default that of the environment's AVFACE_CLIPS."""


def main() -> None:
    """Print the figures that the command asks for."""
    asked = tyro.cli(RealLipsEvaluation, description=__doc__)
    try:
        print(table([measure_real_lips(video) for video in real_videos(asked.clips)]))
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
