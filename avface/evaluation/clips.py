"""Reconstruct every video of a folder: landmark accuracy, motion and speed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import F64, Floats
from avface.errors import AvfaceError
from avface.evaluation.machine import describe_machine
from avface.evaluation.metrics import WORST_ERROR, auc, gain, jitter, lag, nme
from avface.evaluation.tables import aligned
from avface.head.measures import box_size, mouth_opening
from avface.head.schemes import IBUG_LIPS_INNER, IBUG_LIPS_OUTER, LIPS, ibug68_from_mediapipe
from avface.media import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from avface.capture import Capture
    from avface.tracking import FaceTrack

CLIPS_VARIABLE = "AVFACE_CLIPS"
"""Environment variable with the folder of real clips for studies and benchmarks."""
LAG_SECONDS = 0.4
"""Largest lag of the mouth's opening, in seconds before and after the reference."""
NOISE_EVERY = 5
"""Step in frames between samples of the tracker's noise."""


_IBUG_LIPS = np.concatenate([IBUG_LIPS_OUTER, IBUG_LIPS_INNER])

_Column = tuple[str, str, str]
"""Heading, figure of `ClipResult` (or "name"), number format."""
_ACCURACY: tuple[_Column, ...] = (
    ("accuracy, % of face size", "name", ""),
    ("frames", "frames", ".0f"),
    ("found %", "found", ".1f"),
    ("surface", "surface478", ".2f"),
    ("lips", "surface_lips", ".2f"),
    ("NME478", "nme478", ".2f"),
    ("noise", "noise478", ".2f"),
    ("lips", "lips", ".2f"),
    ("noise", "noise_lips", ".2f"),
    ("NME68", "nme68", ".2f"),
    ("lips68", "lips68", ".2f"),
    ("AUC10", "auc10", ".3f"),
    ("AUC7", "auc7", ".3f"),
)
_MOTION: tuple[_Column, ...] = (
    ("motion, shape, speed", "name", ""),
    ("jitter %", "jitter", ".3f"),
    ("of ref.", "jitter_ratio", ".2f"),
    ("lag", "lag", ".3g"),
    ("r", "lag_correlation", ".3f"),
    ("gap gain", "gap_gain", ".2f"),
    ("max |shape|", "largest_shape_weight", ".2f"),
    ("fps", "fps", ".1f"),
    ("MediaPipe", "mediapipe_fps", ".1f"),
    ("ratio", "speed_ratio", ".2f"),
)

Progress = Callable[[str, str, int, "int | None"], None]
"""Called with (file name, stage, frames done, total frames or None); stages are "reference", "mediapipe", "track",
"solve"."""


@dataclass(frozen=True)
class ClipResult:
    """Figures of one clip. Errors and jitter are in per cent of the face's size; undefined figures are nan."""

    name: str
    """File name."""
    frames: int
    """Frames of the video."""
    measured: int
    """Frames with a reference; the others don't count in any error."""
    found: float
    """Per cent of all frames with a detected face."""
    surface478: float
    """NME of MediaPipe's 478 points where they are fixed to the head's surface, mean over frames: what shape, pose and
    expression explain."""
    surface_lips: float
    """The same of MediaPipe's 40 lip points."""
    nme478: float
    """NME of MediaPipe's 478 points with the tracker's bias on the person, which is estimated with the shape."""
    nme68: float
    """NME of iBUG's 68 points, normalised by their own box."""
    lips: float
    """NME of MediaPipe's 40 lip points, normalised by the box of the 478."""
    lips68: float
    """NME of iBUG's 20 lip points, normalised by the box of the 68."""
    auc10: float
    """Area under the cumulative curve of the 68 points' errors up to 10 %."""
    auc7: float
    """The same up to 7 %."""
    jitter: float
    """Mean second difference in time of the 478 points."""
    jitter_ratio: float
    """Ratio to the jitter of the reference in the same frames."""
    lag: int
    """Delay in frames of the mouth's opening against the reference's."""
    lag_correlation: float
    """Correlation of the two openings at that lag."""
    gap_gain: float
    """Slope of the opening against the reference's."""
    largest_shape_weight: float
    """Largest absolute weight of a shape component, in standard deviations."""
    fps: float
    """Frames per second of `avface.reconstruct`, from the file to the capture, in a warm process."""
    mediapipe_fps: float
    """Frames per second of MediaPipe alone on the same file: decoding and its own face mesh."""
    noise478: float
    """Noise of the tracker: NME478 between its static and its video mode, on every fifth frame."""
    noise_lips: float
    """Noise of the tracker on the lips."""

    @property
    def speed_ratio(self) -> float:
        """Ratio to the frames per second of MediaPipe alone."""
        return self.fps / self.mediapipe_fps


@dataclass(frozen=True)
class ClipsReport:
    """Figures of all clips of a folder, as a text table (`table`) and as JSON (`to_json`)."""

    clips: tuple[ClipResult, ...]
    """Results of the measured clips, sorted by name."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reasons why videos couldn't be measured, by file name."""
    machine: str = ""
    """Machine of the speed measurement."""

    def mean(self, by_frame: bool = False) -> dict[str, float]:
        """Mean of each figure over the clips; with `by_frame` weighted by their numbers of measured frames.

        For `lag` the mean of absolute values, for `largest_shape_weight` the maximum, for `frames` and `measured` the
        sum. nan is left out of means.
        """
        means: dict[str, float] = {}
        weights = np.array([clip.measured if by_frame else 1 for clip in self.clips], np.float64)
        for name in _figures():
            values = np.array([getattr(clip, name) for clip in self.clips], np.float64)
            if name in ("frames", "measured"):
                means[name] = float(values.sum())
            elif name == "largest_shape_weight":
                means[name] = float(values.max())
            else:
                known = np.isfinite(values)
                total = weights[known].sum()
                sized = np.abs(values) if name == "lag" else values
                means[name] = float((weights * sized)[known].sum() / total) if total else float("nan")
        return means

    def table(self) -> str:
        """Two plain text tables with one row per clip and the means: accuracy, then motion and speed."""
        rows: list[dict[str, str | float]] = [{"name": clip.name, **_values(clip)} for clip in self.clips]
        rows.append({"name": "mean of clips", **self.mean()})
        rows.append({"name": "mean of frames", **self.mean(by_frame=True)})
        parts = [_table(rows, _ACCURACY), _table(rows, _MOTION)]
        parts += ["not measured: " + reason for reason in self.failed.values()]
        missing = sum(clip.frames - clip.measured for clip in self.clips)
        if missing:
            parts.append(f"{missing} frames without a reference are left out of all errors")
        return "\n\n".join([*parts, *([self.machine] if self.machine else [])])

    def to_json(self) -> str:
        """Everything in the tables as a JSON object: clips, mean_of_clips, mean_of_frames, failed, machine.

        Undefined figures are null.
        """
        content = {
            "clips": [{"name": clip.name, **_known(_values(clip))} for clip in self.clips],
            "mean_of_clips": _known(self.mean()),
            "mean_of_frames": _known(self.mean(by_frame=True)),
            "failed": self.failed,
            "machine": self.machine,
        }
        return json.dumps(content, indent=2, allow_nan=False)


def evaluate_clips(
    directory: Path,
    *,
    head: str | Path = "open",
    progress: Progress = lambda clip, stage, done, total: None,
) -> ClipsReport:
    """Reconstruct every video of a folder and compare it with the tracker's landmarks.

    The reference is the output of avface's own tracker on the same video, to which the reconstruction was fitted. The
    errors therefore measure how well the head model can follow the picture under its priors, not the accuracy of the
    tracker; `noise478` and `noise_lips` are the noise of the tracker. `reconstruct` doesn't return its track, so the
    tracker, which is deterministic, runs once more for the reference.

    In frames with a reference errors are capped at 100 % of the face's size; a frame without a detected face
    (confidence 0, or nan) has that error, whatever the solver filled in. Frames without a reference are left out and
    counted.

    Args:
        directory: A folder of videos; other files and folders in it are ignored.
        head: Name or file of the head model.
        progress: Called as the work advances.

    Returns:
        A report. Videos that can't be reconstructed are listed in `failed`.

    Raises:
        AvfaceError: if the folder is missing or has no videos, or none of them can be measured.
    """
    directory = Path(directory)
    results: list[ClipResult] = []
    failed: dict[str, str] = {}
    for path in find_videos(directory):
        try:
            results.append(_evaluate_clip(path, head, progress))
        except AvfaceError as problem:
            failed[path.name] = str(problem)
    if not results:
        raise AvfaceError(
            f"{directory}: none of its videos could be measured; the first: {next(iter(failed.values()))}"
        )
    return ClipsReport(tuple(results), failed, describe_machine())


def find_videos(directory: Path) -> list[Path]:
    """Videos directly in a folder, sorted by name.

    Raises:
        AvfaceError: if the folder is missing or has none.
    """
    if not directory.is_dir():
        raise AvfaceError(f"{directory}: no such folder; give a folder of videos")
    videos = sorted(
        path for path in directory.iterdir() if path.is_file() and path.suffix.lower() in VIDEO_SUFFIXES
    )
    if not videos:
        raise AvfaceError(f"{directory}: no videos in it ({', '.join(VIDEO_SUFFIXES)})")
    return videos


def clips_folder(folder: Path | None, default: Path = Path("clips")) -> Path:
    """A folder of real clips: the given one, else that of the environment's AVFACE_CLIPS, else the default."""
    return folder or Path(os.environ.get(CLIPS_VARIABLE, default))


def real_videos(folder: Path | None) -> list[Path]:
    """Videos directly in `clips_folder(folder)`, sorted by name.

    Raises:
        AvfaceError: if there are none.
    """
    folder = clips_folder(folder)
    videos = sorted(path for path in folder.glob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not videos:
        raise AvfaceError(f"{folder}: no videos in it; name a folder of talking people with {CLIPS_VARIABLE}")
    return videos


def _evaluate_clip(path: Path, head: str | Path, progress: Progress) -> ClipResult:
    """Figures of one video. The reference comes first: it warms up the process for the measurement of speed."""
    import avface.solve  # noqa: F401 - its import doesn't count
    from avface.evaluation.mediapipe_alone import StaticSample, run_mediapipe
    from avface.media import Clip
    from avface.pipeline import reconstruct
    from avface.tracking import track

    clip = Clip.open(path)
    total = clip.info.frame_count
    sample = StaticSample(NOISE_EVERY)
    reference = track(
        sample.through(clip.frames()), on_frame=lambda done: progress(path.name, "reference", done, total)
    )
    progress(path.name, "mediapipe", 0, total)
    mediapipe_frames, mediapipe_seconds = run_mediapipe(path)
    start = time.perf_counter()
    capture = reconstruct(
        path, head=head, progress=lambda stage, done, all_: progress(path.name, stage, done, all_)
    )
    fps = len(capture) / (time.perf_counter() - start)
    static = sample.nearest_to(reference.landmarks[:])
    return measure(path.name, capture, reference, static, fps, mediapipe_frames / mediapipe_seconds)


def measure(
    name: str,
    capture: Capture,
    reference: FaceTrack,
    static: Floats,
    fps: float,
    mediapipe_fps: float,
) -> ClipResult:
    """Figures of one clip from its capture, its reference track and MediaPipe's static landmarks (T, 478, 2), nan where
    not sampled.

    Raises:
        ValueError: if capture and reference differ in their number of frames.
    """
    if len(capture) != len(reference):
        raise ValueError(f"{name}: the capture has {len(capture)} frames, the reference {len(reference)}")
    known = np.array(reference.seen)
    seen = np.asarray(capture.confidence) > 0
    truth = np.asarray(reference.landmarks, np.float64)
    points = np.asarray(capture.landmarks(scheme="mediapipe478"), np.float64)
    unbiased = replace(capture, landmark_bias=np.zeros((0, 3), np.float32))
    on_surface = np.asarray(unbiased.landmarks(scheme="mediapipe478"), np.float64)
    truth68, points68 = ibug68_from_mediapipe(truth), ibug68_from_mediapipe(points)

    def errors(predicted: F64, target: F64, box_of: F64) -> F64:
        """Errors of the frames with a reference, capped; the largest error where no face was detected."""
        raw = nme(predicted[known], target[known], box_of[known])
        return np.where(seen[known] & np.isfinite(raw), np.minimum(raw, WORST_ERROR), WORST_ERROR)

    errors68 = errors(points68, truth68, truth68)
    both = (known & seen)[:, None, None]
    size = box_size(truth)
    cuts = [segment.start for segment in reference.segments[1:]]
    jitter_own = jitter(np.where(both, points, np.nan), size, cuts)
    jitter_reference = jitter(np.where(both, truth, np.nan), size, cuts)
    opening, true_opening = (
        mouth_opening(np.where(both, each, np.nan), size) for each in (on_surface, truth)
    )
    delay, correlation = 0, float("nan")
    if len(capture) >= 3:
        max_lag = min(round(LAG_SECONDS * capture.frame_rate), len(capture) // 4)
        delay, correlation = lag(opening, true_opening, max_lag)
    return ClipResult(
        name=name,
        frames=len(capture),
        measured=int(known.sum()),
        found=100 * float(seen.mean()),
        surface478=float(errors(on_surface, truth, truth).mean()),
        surface_lips=float(errors(on_surface[:, LIPS], truth[:, LIPS], truth).mean()),
        nme478=float(errors(points, truth, truth).mean()),
        nme68=float(errors68.mean()),
        lips=float(errors(points[:, LIPS], truth[:, LIPS], truth).mean()),
        lips68=float(errors(points68[:, _IBUG_LIPS], truth68[:, _IBUG_LIPS], truth68).mean()),
        auc10=auc(errors68, 10),
        auc7=auc(errors68, 7),
        jitter=jitter_own,
        jitter_ratio=jitter_own / jitter_reference if jitter_reference else float("nan"),
        lag=delay,
        lag_correlation=correlation,
        gap_gain=gain(opening, true_opening),
        largest_shape_weight=float(np.abs(capture.shape).max()),
        fps=fps,
        mediapipe_fps=mediapipe_fps,
        noise478=_mean_known(nme(static, truth)),
        noise_lips=_mean_known(nme(static[:, LIPS], truth[:, LIPS], truth)),
    )


def _mean_known(values: F64) -> float:
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else float("nan")


def _figures() -> list[str]:
    return [item.name for item in fields(ClipResult) if item.name != "name"] + ["speed_ratio"]


def _values(clip: ClipResult) -> dict[str, float]:
    return {name: getattr(clip, name) for name in _figures()}


def _known(values: dict[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in values.items()}


def _table(rows: Sequence[Mapping[str, str | float]], columns: Sequence[_Column]) -> str:
    """Aligned text with a line above the two rows of means."""
    cells = [[heading for heading, _, _ in columns]]
    for row in rows:
        values = [(row[key], style) for _, key, style in columns]
        cells.append(["-" if value != value else format(value, style) for value, style in values])
    return aligned(cells, rules=(1, len(cells) - 2))
