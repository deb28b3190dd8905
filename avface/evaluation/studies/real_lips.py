"""What the lip refinement does to real people's lips: do they agree with what is seen, and shut when they should?

python -m avface.evaluation.studies.real_lips path/to/clips
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import numpy as np
import torch
import tyro

from avface.arrays import F32, F64, Floats
from avface.capture import Capture
from avface.errors import AvfaceError
from avface.evaluation.metrics import nme
from avface.evaluation.tables import aligned
from avface.head.lip_contact import LipContact
from avface.head.lips import lip_region
from avface.head.measures import mouth_opening
from avface.head.schemes import LIPS
from avface.media import VIDEO_SUFFIXES, Clip
from avface.networks.fusion.av_sync import correlation_by_lag, estimate_audio_lag, align_audio
from avface.speech.acoustic import ROW_SECONDS, pretrained_acoustic_model
from avface.speech.phones import SYMBOLS

BILABIALS = ("p", "m")
"""The acoustic model's symbols of sounds with shut lips; "p" stands for "b", too."""
SURE = 0.5
"""Probability from which a sound is taken for one of them."""
BEFORE, AFTER = 0.1, 0.02
"""Seconds before the sound begins and after it ends in which the lips may be shut."""
SEEN_SHUT = 1.5
"""Per cent of the face's height: a smaller tracked gap is shut lips."""
LATEST = 0.24
"""Seconds by which closures can be heard earlier or later than they are seen."""
LAG_STEP = 0.02
"""Seconds between the lags that are compared."""
STAGES = ("coarse", "lips")
"""What is compared: without refinement, and with it."""


@dataclass(frozen=True)
class BilabialGaps:
    """Sounds with shut lips that are heard, and the mean over them of the smallest distance between the inner lips
    around each, in per cent of the face's height; nan without any. The head's is that of its surface, without
    `landmark_bias`, and also a distance where the lips are inside each other."""

    count: int
    tracked: float
    coarse: float
    refined: float


@dataclass(frozen=True)
class RealLips:
    """Figures of one clip, of the head without lip refinement (coarse) and with it (refined)."""

    name: str
    """The file."""
    error_coarse: float
    """Mean distance of the 40 landmarks of the lips from the tracker's, in per cent of the face's size."""
    error_refined: float
    shut: BilabialGaps
    """Of sounds around which the tracker sees the lips shut, see `SEEN_SHUT`."""
    others: BilabialGaps
    """Of the others: heard wrongly, or the tracker misses it."""
    opening_coarse: float
    """Correlation of the gap with the tracked one over all frames."""
    opening_refined: float
    inside_coarse: float
    """Mean over the frames of how deep upper and lower lip are inside each other, mm."""
    inside_refined: float
    heard_early: float
    """Seconds by which closures are heard before they are seen, where both agree best; negative: after."""
    heard_best: float
    """Correlation there of closures that are heard with those that are seen."""
    heard_now: float
    """The same without a lag."""


def measure_real_lips(video: Path) -> RealLips:
    """Reconstruct a clip with lip refinement and compare its lips with the tracked ones.

    Raises:
        AvfaceError: if the video can't be read, or has no sound or no face.
    """
    from avface.networks.lips.refinement import pretrained_lip_refinement
    from avface.pipeline import reconstruct
    from avface.tracking import track

    clip = Clip.open(video)
    observed = track(clip.frames())
    lag = estimate_audio_lag(observed, clip.audio_blocks())
    sound = list(align_audio(clip.audio_blocks(), lag))
    if not sound:
        raise AvfaceError(f"{video}: has no sound")
    capture = reconstruct(video, stages=("coarse", "lips"))
    refinement = pretrained_lip_refinement(capture.head_model, "cpu")
    if refinement is None:
        raise AvfaceError("avface came without weights for lips; install it again")
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

    tracked (T, 478, 2) pixels, nan where no face was found; sounds: (start, end) in seconds of those with shut lips;
    heard (T,) from 0 to 1 how far lips are heard to be shut.

    Raises:
        AvfaceError: if the capture's head has no lips as `lip_region` wants them.
    """
    seen = np.isfinite(tracked).all((1, 2))
    height = tracked[..., 1].max(1) - tracked[..., 1].min(1)
    region = lip_region(capture.head_model)
    contact = LipContact.of(capture.head_model, region)
    # The tracker's habits with a person hold while lips are apart. Shut lips touch, wherever it marks them.
    surface = replace(capture, landmark_bias=np.zeros((0, 3), np.float32))
    errors, gaps, inside = [], [100 * mouth_opening(tracked, height)], []
    for stage in STAGES:
        points = capture.landmarks(stage=stage).astype(np.float64)
        errors.append(float(nme(points[seen][:, LIPS], tracked[seen][:, LIPS], tracked[seen]).mean()))
        gaps.append(100 * mouth_opening(surface.landmarks(stage=stage), height))
        vertices = capture.vertices(space="head", stage=stage)[:, region.vertices]
        inside.append(1000 * float(contact.penetration(torch.as_tensor(vertices))[seen].mean()))
    moments = [
        seen & (capture.times >= start - BEFORE) & (capture.times <= end + AFTER) for start, end in sounds
    ]
    smallest = np.array([[gap[chosen].min() for gap in gaps] for chosen in moments if chosen.any()])
    smallest = smallest.reshape(-1, 1 + len(STAGES))
    shut = smallest[:, 0] < SEEN_SHUT
    opening = [float(np.corrcoef(gap[seen], gaps[0][seen])[0, 1]) for gap in gaps[1:]]
    early, best, now = heard_before_seen(capture.times, heard, gaps[0])
    return RealLips(
        name,
        error_coarse=errors[0],
        error_refined=errors[1],
        shut=_bilabial_gaps(smallest[shut]),
        others=_bilabial_gaps(smallest[~shut]),
        opening_coarse=opening[0],
        opening_refined=opening[1],
        inside_coarse=inside[0],
        inside_refined=inside[1],
        heard_early=early,
        heard_best=best,
        heard_now=now,
    )


def heard_before_seen(times: F64, heard: Floats, gap: F64) -> tuple[float, float, float]:
    """Seconds by which lips are heard to shut before they are seen to, where both agree best, their correlation there
    and without a lag; nan where one of them never changes.

    times (T,) seconds, heard (T,) from 0 to 1, gap (T,) between the inner lips in per cent of the face's height, nan
    where they aren't seen.
    """
    seen = np.isfinite(gap)
    shut = np.exp(-((gap[seen] / SEEN_SHUT) ** 2))
    count = round(LATEST / LAG_STEP)
    lags = LAG_STEP * np.arange(-count, count + 1)
    agreement = correlation_by_lag(times, heard, times[seen], shut, -lags) if len(shut) else None
    if agreement is None:
        return float("nan"), float("nan"), float("nan")
    best = int(agreement.argmax())
    return float(lags[best]), float(agreement[best]), float(agreement[count])


def _bilabial_gaps(smallest: F64) -> BilabialGaps:
    """The means of gaps (B, 3) of sounds: tracked, coarse, refined."""
    means = smallest.mean(0) if len(smallest) else np.full(1 + len(STAGES), np.nan)
    return BilabialGaps(len(smallest), *means.tolist())


def bilabial_sounds(sound: F32) -> list[tuple[float, float]]:
    """(start, end) in seconds of the sounds with shut lips that are heard in (N,) samples at 16 kHz."""
    rows = pretrained_acoustic_model("cpu").predict(torch.from_numpy(sound)).logits.softmax(-1)
    chance = rows[:, [SYMBOLS.index(symbol) for symbol in BILABIALS]].sum(1).numpy()
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chance > SURE, [0]])))
    return [(ROW_SECONDS * start, ROW_SECONDS * end) for start, end in edges.reshape(-1, 2).tolist()]


def table(clips: Sequence[RealLips]) -> str:
    """The figures as text, with their means over the clips; numbers of sounds are sums."""
    head = [
        "lips of real clips", "NME coarse", "lips", "seen shut", "tracked", "coarse", "lips",
        "others", "tracked", "coarse", "lips", "r coarse", "lips", "inside coarse", "lips",
        "heard early, s", "r", "r at 0",
    ]  # fmt: skip
    figures = [_figures(clip) for clip in clips]
    means = [
        sum(column) if isinstance(column[0], int) else _mean(column) for column in zip(*figures, strict=True)
    ]
    rows = [[clip.name[:30], *map(_cell, row)] for clip, row in zip(clips, figures, strict=True)]
    return aligned([head, *rows, ["mean", *map(_cell, means)]], [1, len(clips) + 1])


def _figures(clip: RealLips) -> list[float]:
    """The numbers of a clip in the order of the table."""
    return [
        clip.error_coarse, clip.error_refined, *astuple(clip.shut), *astuple(clip.others),
        clip.opening_coarse, clip.opening_refined, clip.inside_coarse, clip.inside_refined,
        clip.heard_early, clip.heard_best, clip.heard_now,
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
    """Print what the lip refinement does on real clips."""

    clips: tyro.conf.Positional[Path | None] = None
    """Folder of videos; that of the environment's AVFACE_CLIPS if none is given."""


def main() -> None:
    """Print the figures that the command asks for."""
    asked = tyro.cli(RealLipsEvaluation, description=__doc__)
    folder = asked.clips or Path(os.environ.get("AVFACE_CLIPS", "clips"))
    try:
        videos = sorted(path for path in folder.glob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
        if not videos:
            raise AvfaceError(f"{folder}: no videos there; name a folder of talking people with AVFACE_CLIPS")
        print(table([measure_real_lips(video) for video in videos]))
    except AvfaceError as error:
        raise SystemExit(f"avface: error: {error}") from None


if __name__ == "__main__":
    main()
