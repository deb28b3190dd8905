"""Reconstruct every video of a folder and measure how well the heads fit, how they move, and how fast it
went."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import F64, Floats
from avface.errors import AvfaceError
from avface.evaluation.machine import describe_machine
from avface.evaluation.metrics import WORST_ERROR, auc, jitter, lag, nme
from avface.evaluation.tables import aligned
from avface.head.measures import box_size, mouth_opening
from avface.head.schemes import IBUG_LIPS_INNER, IBUG_LIPS_OUTER, LIPS, ibug68_from_mediapipe
from avface.media import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from avface.capture import Capture
    from avface.tracking import FaceTrack

LAG_SECONDS = 0.4
"""How far the mouth is looked for before and after the reference."""
NOISE_EVERY = 5
"""Frames between two on which the tracker's own uncertainty is sampled."""


_IBUG_LIPS = np.concatenate([IBUG_LIPS_OUTER, IBUG_LIPS_INNER])

_Column = tuple[str, str, str]
"""Heading, figure of `ClipResult` (or "name"), format."""
_ACCURACY: tuple[_Column, ...] = (
    ("accuracy, % of face size", "name", ""),
    ("frames", "frames", ".0f"),
    ("found %", "found", ".1f"),
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
    ("max |shape|", "largest_shape_weight", ".2f"),
    ("fps", "fps", ".1f"),
    ("MediaPipe", "mediapipe_fps", ".1f"),
    ("ratio", "speed_ratio", ".2f"),
)

Progress = Callable[[str, str, int, "int | None"], None]
"""Told (file name, stage, frames done, frames in all or None); stages are "reference", "mediapipe", "track",
"solve"."""


@dataclass(frozen=True)
class ClipResult:
    """One clip's figures. Errors and jitter are in per cent of the face's size; nan where a clip has no such
    figure."""

    name: str
    """The file."""
    frames: int
    """Frames of the video."""
    measured: int
    """Frames with a reference; the others are left out of all errors."""
    found: float
    """Per cent of all frames in which the method saw the face."""
    nme478: float
    """Mean over the frames of the error of MediaPipe's 478 points."""
    nme68: float
    """The same of iBUG's 68 points, by their own box."""
    lips: float
    """The same of MediaPipe's 40 points on the lips, by the box of the 478."""
    lips68: float
    """The same of iBUG's 20 points on the lips, by the box of the 68."""
    auc10: float
    """Area under the cumulative curve of the 68 points' errors up to 10 %."""
    auc7: float
    """The same up to 7 %."""
    jitter: float
    """Mean second difference of the 478 points."""
    jitter_ratio: float
    """Jitter over the reference's, in the same frames."""
    lag: int
    """Frames by which the mouth's opening comes after the reference's."""
    lag_correlation: float
    """Correlation of the two openings at that lag."""
    largest_shape_weight: float
    """Largest absolute weight of a shape component, in standard deviations."""
    fps: float
    """Frames a second of `avface.reconstruct`, from the file to the capture, in a process that is warm."""
    mediapipe_fps: float
    """Frames a second of MediaPipe alone on the same file: decoding and its own face mesh."""
    noise478: float
    """The tracker against itself: NME478 between its static and its video mode, on every fifth frame."""
    noise_lips: float
    """The same on the lips."""

    @property
    def speed_ratio(self) -> float:
        """Frames a second over those of MediaPipe alone."""
        return self.fps / self.mediapipe_fps


@dataclass(frozen=True)
class ClipsReport:
    """Figures of all clips of a folder, as a text table (`table`) and as JSON (`to_json`)."""

    clips: tuple[ClipResult, ...]
    """One result a clip that could be measured, sorted by name."""
    failed: dict[str, str] = field(default_factory=dict)
    """By file name: why a video couldn't be measured."""
    machine: str = ""
    """What the speed was measured on."""

    def mean(self, by_frame: bool = False) -> dict[str, float]:
        """Each figure's mean over the clips; `by_frame` counts each clip as often as it has measured frames.

        Of `lag` the mean of the absolute values, of `largest_shape_weight` the maximum, of `frames` and
        `measured` the sum. Clips without a figure (nan) are left out of its mean.
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
        """Two plain text tables, one row a clip and the means: accuracy, then motion and speed."""
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

        Figures that a clip hasn't are null.
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

    The reference is what avface's own tracker finds in the clean video. It is also what the reconstruction
    was fitted to, so this measures how well the head model, its priors and the motion prior can follow the
    picture, not how true the tracker is; `noise478` and `noise_lips` say how far the tracker agrees with
    itself. `reconstruct` doesn't hand out its track, so the tracker runs once more for the reference; it is
    deterministic.

    In every frame that has a reference, errors are capped at 100 % of the face's size, and a frame in which
    the method saw no face (confidence 0, or no numbers) has that error, whatever the solver filled in. Frames
    without a reference are left out and counted. No pictures are kept.

    Args:
        directory: A folder of videos; others of its files, and folders in it, are passed over.
        head: Name or file of the head model.
        progress: Told about the work as it goes on.

    Returns:
        A report. Videos that can't be reconstructed are listed in `failed`; the others are measured all the
        same.

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


def _evaluate_clip(path: Path, head: str | Path, progress: Progress) -> ClipResult:
    """Reference first: it also warms up the tracker, so that speed is measured in a warm process."""
    import avface.solve  # noqa: F401 - loading it isn't part of the speed
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
    """One clip's figures from its capture, its reference track and MediaPipe's static landmarks (T, 478, 2;
    nan: none).

    Raises:
        ValueError: if capture and reference differ in their number of frames.
    """
    if len(capture) != len(reference):
        raise ValueError(f"{name}: the capture has {len(capture)} frames, the reference {len(reference)}")
    known = np.array(reference.seen)
    seen = np.asarray(capture.confidence) > 0
    truth = np.asarray(reference.landmarks, np.float64)
    points = np.asarray(capture.landmarks(scheme="mediapipe478"), np.float64)
    truth68, points68 = ibug68_from_mediapipe(truth), ibug68_from_mediapipe(points)

    def errors(predicted: F64, target: F64, box_of: F64) -> F64:
        """Of the frames with a reference, capped, and the worst there is where the method saw nothing."""
        raw = nme(predicted[known], target[known], box_of[known])
        return np.where(seen[known] & np.isfinite(raw), np.minimum(raw, WORST_ERROR), WORST_ERROR)

    errors68 = errors(points68, truth68, truth68)
    both = (known & seen)[:, None, None]
    size = box_size(truth)
    cuts = [segment.start for segment in reference.segments[1:]]
    jitter_own = jitter(np.where(both, points, np.nan), size, cuts)
    jitter_reference = jitter(np.where(both, truth, np.nan), size, cuts)
    opening, true_opening = (mouth_opening(np.where(both, each, np.nan), size) for each in (points, truth))
    delay, correlation = 0, float("nan")
    if len(capture) >= 3:
        max_lag = min(round(LAG_SECONDS * capture.frame_rate), len(capture) // 4)
        delay, correlation = lag(opening, true_opening, max_lag)
    return ClipResult(
        name=name,
        frames=len(capture),
        measured=int(known.sum()),
        found=100 * float(seen.mean()),
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
    """Aligned text with a rule above the two rows of means."""
    cells = [[heading for heading, _, _ in columns]]
    for row in rows:
        values = [(row[key], style) for _, key, style in columns]
        cells.append(["-" if value != value else format(value, style) for value, style in values])
    return aligned(cells, rules=(1, len(cells) - 2))
