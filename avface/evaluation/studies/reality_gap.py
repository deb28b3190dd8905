"""The reality gap: motion statistics of mouth, eyes and head of synthetic performances compared with real clips.

    AVFACE_CLIPS=FOLDER python -m avface.evaluation.studies.reality_gap

prints the table for the videos of a folder and generated performances, and for rendered videos if their folder is
given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import F64, Floats
from avface.errors import AvfaceError
from avface.evaluation.clips import CLIPS_VARIABLE, clips_folder
from avface.evaluation.metrics import jitter
from avface.head.measures import box_size, mouth_opening
from avface.head.schemes import LEFT_EYE, RIGHT_EYE
from avface.media import VIDEO_SUFFIXES

if TYPE_CHECKING:
    from avface.capture import Capture
    from avface.head.model import HeadModel
    from avface.synthetic.performance.performance import Kind, Performance


TOP, CHIN = 10, 152
"""MediaPipe's landmarks at the upper and the lower end of the face."""
CLOSED = 0.01
"""Opening as a share of the face's height, about 1.6 mm, below which a mouth counts as closed."""
BLINK_DEPTH = 0.55
"""Maximum distance of the lids in a blink, as a share of the baseline distance."""
BLINK_EDGE = 0.8
"""Distance of the lids that bounds a blink, as a share of the baseline distance."""
FACTOR = 1.5
"""Tolerance of synthetic figures: a factor outside of the range of the real clips."""

UNITS = (
    "jawOpen",
    "mouthClose",
    "mouthFunnel",
    "mouthPucker",
    "mouthSmile",
    "mouthStretch",
    "mouthPress",
    "mouthUpperUp",
    "mouthLowerDown",
    "mouthFrown",
    "browInnerUp",
    "browDown",
    "eyeSquint",
    "noseSneer",
)
"""Units whose mean weights are compared; left and right units are averaged."""


@dataclass(frozen=True)
class MotionStatistics:
    """Motion statistics of a clip; undefined figures are nan."""

    seconds: float
    """Duration."""
    opening_mean: float
    """Distance of the inner lips, per cent of the face's height."""
    opening_std: float
    """Standard deviation of the opening."""
    opening_p95: float
    """95th percentile of the opening."""
    opening_speed_rms: float
    """Root mean square speed of the opening, per cent of the face's height per second."""
    opening_speed_p95: float
    """95th percentile of that speed."""
    closed: float
    """Per cent of the time with closed lips."""
    jaw_speed_rms: float
    """Root mean square speed of the weight of jawOpen, per second."""
    jaw_speed_p95: float
    """95th percentile of that speed."""
    blinks: float
    """Blinks per minute."""
    blink_ms: float
    """Median duration of a blink in milliseconds."""
    turn_speed: float
    """Root mean square angular speed of the head, degrees per second."""
    turn_range: float
    """Largest of the ranges of pitch, yaw and roll, from the 5th to the 95th percentile, in degrees."""
    shift_speed: float
    """Root mean square speed of the head parallel to the image plane, mm per second."""
    jitter: float
    """Mean second difference in time of the landmarks, per cent of the face's size."""
    units: dict[str, float] = field(default_factory=dict)
    """Mean weight of `UNITS`."""


def motion_statistics(
    landmarks: Floats,
    times: Floats,
    expression: Floats,
    names: Sequence[str],
    rotation: Floats,
    translation: Floats,
    closed_opening: float = 0.0,
) -> MotionStatistics:
    """Statistics of one clip.

    Shapes: landmarks (T, 478, 2) pixels, nan where unseen; times (T,) seconds; expression (T, E) with E names;
            rotation (T, 3) axis-angle, head to camera; translation (T, 3) metres.
    closed_opening: opening of the landmarks of closed lips as a share of the face's height: 0 for a tracker's, more for
    fixed points of a head's surface.

    Raises:
        ValueError: if the numbers of frames differ or are below three.
    """
    frames = len(times)
    if frames < 3 or not frames == len(landmarks) == len(expression) == len(rotation) == len(translation):
        sizes = [len(a) for a in (landmarks, times, expression, rotation, translation)]
        raise ValueError(
            f"{sizes} frames of landmarks, times, expression, rotation, translation: need the same, 3 or more"
        )
    seen = np.isfinite(landmarks).all((1, 2))
    tall = np.linalg.norm(landmarks[:, TOP] - landmarks[:, CHIN], axis=-1)
    height = np.full(
        frames, np.median(tall[seen]) if seen.any() else np.nan
    )  # constant, independent of the jaw
    opening = 100.0 * np.asarray(np.maximum(mouth_opening(landmarks, height) - closed_opening, 0), np.float64)
    opening_speed = _speed(opening, times)
    jaw_speed = _speed(np.asarray(expression[:, list(names).index("jawOpen")], np.float64), times)
    blinks = blink_lengths(landmarks, times)
    seconds = float(times[-1] - times[0]) * frames / (frames - 1)
    matrices = _matrices(rotation)
    size = np.full(frames, np.nan)
    if seen.any():
        size[seen] = box_size(landmarks[seen])
    return MotionStatistics(
        seconds=seconds,
        opening_mean=float(np.nanmean(opening)) if seen.any() else float("nan"),
        opening_std=float(np.nanstd(opening)) if seen.any() else float("nan"),
        opening_p95=_percentile(opening, 95),
        opening_speed_rms=_rms(opening_speed),
        opening_speed_p95=_percentile(np.abs(opening_speed), 95),
        closed=100 * float((opening[seen] < 100 * CLOSED).mean()) if seen.any() else float("nan"),
        jaw_speed_rms=_rms(jaw_speed),
        jaw_speed_p95=_percentile(np.abs(jaw_speed), 95),
        blinks=60 * len(blinks) / seconds,
        blink_ms=1000 * float(np.median(blinks)) if blinks else float("nan"),
        turn_speed=_rms(_turn_speed(matrices, times)),
        turn_range=float(np.ptp(np.percentile(_angles(matrices), [5, 95], axis=0), axis=0).max()),
        shift_speed=1000 * _rms(np.hypot(*(_speed(translation[:, axis], times) for axis in (0, 1)))),
        jitter=jitter(landmarks, size),
        units={unit: _mean_weight(expression, names, unit) for unit in UNITS},
    )


def blink_lengths(landmarks: Floats, times: Floats) -> list[float]:
    """Durations in seconds of the blinks in landmarks (T, 478, 2); times (T,) in seconds.

    The baseline distance of the lids is the 75th percentile within two seconds before and after.
    """
    ratio = np.mean([_eye_opening(landmarks[:, ring]) for ring in (LEFT_EYE, RIGHT_EYE)], axis=0)
    baseline = np.array([_percentile(ratio[np.abs(times - time) <= 2], 75) for time in times])
    relative = ratio / baseline
    below = np.concatenate([[False], relative < BLINK_EDGE, [False]])
    changes = np.flatnonzero(below[1:] != below[:-1])
    step = float(np.median(np.diff(times)))
    lengths = []
    for start, end in zip(changes[::2], changes[1::2], strict=True):
        if np.nanmin(relative[start:end]) < BLINK_DEPTH and start > 0 and end < len(times):
            lengths.append(float(times[end - 1] - times[start]) + step)
    return [length for length in lengths if length < 1]  # longer: gaze downwards or closed eyes


def _eye_opening(ring: Floats) -> F64:
    """Mean distance of the lids over the width of the eye (T,); ring (T, 16, 2) as in the schemes."""
    upper, lower = ring[:, 2:7], ring[:, 14:9:-1]
    width = np.linalg.norm(ring[:, 0] - ring[:, 8], axis=-1)
    return np.asarray(np.linalg.norm(upper - lower, axis=-1).mean(1) / np.maximum(width, 1e-9))


def performance_statistics(performance: Performance, head: HeadModel, shape: Floats) -> MotionStatistics:
    """Statistics of a performance by a head of shape (S,) from its exact projections, without tracking errors."""
    capture = performance.capture(head, shape)
    still = performance.capture(head, shape).select([0])
    still.expression[:] = 0
    points = still.landmarks(space="head")
    tall = np.linalg.norm(points[:, TOP] - points[:, CHIN], axis=-1)
    return capture_statistics(capture, capture.landmarks(), float(mouth_opening(points, tall)[0]))


def capture_statistics(capture: Capture, landmarks: Floats, closed_opening: float = 0.0) -> MotionStatistics:
    """Statistics of a capture with tracked landmarks (T, 478, 2), or its own."""
    return motion_statistics(
        landmarks,
        capture.times,
        capture.expression,
        capture.expression_names,
        capture.rotation,
        capture.translation,
        closed_opening,
    )


def video_statistics(path: Path) -> MotionStatistics:
    """Statistics of the person in a video, tracked and reconstructed.

    Raises:
        AvfaceError: as `avface.reconstruct`.
    """
    from avface.media import Clip
    from avface.pipeline import reconstruct
    from avface.tracking import track

    landmarks = np.asarray(track(Clip.open(path).frames()).landmarks[:])
    return capture_statistics(reconstruct(path), landmarks)


def synthetic_statistics(
    count: int, seconds: float = 5.0, seed: int = 0, kind: Kind = "speech"
) -> list[MotionStatistics]:
    """Statistics of `count` performances by different people."""
    from avface.head import load_head
    from avface.synthetic.performance.performance import perform

    head = load_head()
    results = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        performance = perform(rng, head, seconds, kind=kind)
        results.append(performance_statistics(performance, head, rng.normal(0, 0.7, head.num_shape)))
    return results


def gap_table(
    real: dict[str, MotionStatistics],
    synthetic: Sequence[MotionStatistics],
    rendered: Sequence[MotionStatistics] = (),
) -> str:
    """One line per figure: each real clip, their mean weighted by duration, the synthetic mean and its ratio to it.

    "!" marks ratios outside of the range of the real clips by more than `FACTOR`.
    """
    groups = [("synthetic", synthetic), ("rendered", rendered)] if rendered else [("synthetic", synthetic)]
    head = ["", *(name[:9] for name in real), "real"]
    head += [heading for name, _ in groups for heading in (name, "ratio")]
    lengths = [[clip.seconds for clip in group] for group in (real.values(), *(group for _, group in groups))]
    sums = [_text(sum(each)) for each in lengths]
    rows = [
        head,
        ["seconds", *map(_text, lengths[0]), sums[0], *(t for each in sums[1:] for t in (each, ""))],
    ]
    for label, get in _FIGURES:
        values = [get(clip) for clip in real.values()]
        mean = _mean(values, [clip.seconds for clip in real.values()])
        row = [label, *map(_text, values), _text(mean)]
        for _, group in groups:
            synthetic_mean = _mean([get(item) for item in group], [item.seconds for item in group])
            known = [value for value in values if np.isfinite(value)]
            near = bool(known) and min(known) / FACTOR <= synthetic_mean <= max(known) * FACTOR
            ratio = synthetic_mean / mean if mean else float("nan")
            row += [_text(synthetic_mean), _text(ratio) + ("" if near else " !")]
        rows.append(row)
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "  ".join(
            cell.rjust(w) if n else cell.ljust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    counts = ", ".join(f"{len(group)} {name}" for name, group in groups)
    note = (
        f"{len(real)} real clips, {sums[0]} s in all: a small sample of few people. {counts} performances. 'real': "
        f"mean weighted by duration. '!': outside of the range of the real clips by more than a factor of {FACTOR}."
    )
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", note])


def _unit_figure(unit: str) -> Callable[[MotionStatistics], float]:
    return lambda clip: clip.units.get(unit, float("nan"))


_FIGURES: list[tuple[str, Callable[[MotionStatistics], float]]] = [
    ("mouth opening, mean % of face height", lambda s: s.opening_mean),
    ("mouth opening, standard deviation", lambda s: s.opening_std),
    ("mouth opening, 95th percentile", lambda s: s.opening_p95),
    ("mouth opening, speed rms %/s", lambda s: s.opening_speed_rms),
    ("mouth opening, speed 95th percentile", lambda s: s.opening_speed_p95),
    ("mouth closed, % of time", lambda s: s.closed),
    ("jawOpen, speed rms 1/s", lambda s: s.jaw_speed_rms),
    ("jawOpen, speed 95th percentile", lambda s: s.jaw_speed_p95),
    ("blinks a minute", lambda s: s.blinks),
    ("blink, median ms", lambda s: s.blink_ms),
    ("head turn, speed rms deg/s", lambda s: s.turn_speed),
    ("head turn, range deg", lambda s: s.turn_range),
    ("head shift, speed rms mm/s", lambda s: s.shift_speed),
    ("landmark jitter, % of face", lambda s: s.jitter),
    *((f"mean {unit}", _unit_figure(unit)) for unit in UNITS),
]


def _text(value: float) -> str:
    return "-" if not np.isfinite(value) else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def _mean(values: Sequence[float], weights: Sequence[float]) -> float:
    known = np.isfinite(values)
    return (
        float(np.average(np.array(values)[known], weights=np.array(weights)[known]))
        if known.any()
        else float("nan")
    )


def _speed(values: Floats, times: Floats) -> F64:
    return np.asarray(np.diff(values) / np.diff(times), np.float64)


def _rms(values: F64) -> float:
    values = values[np.isfinite(values)]
    return float(np.sqrt((values**2).mean())) if len(values) else float("nan")


def _percentile(values: F64, percent: float) -> float:
    values = values[np.isfinite(values)]
    return float(np.percentile(values, percent)) if len(values) else float("nan")


def _mean_weight(expression: Floats, names: Sequence[str], unit: str) -> float:
    columns = [k for k, name in enumerate(names) if name in (unit, f"{unit}Left", f"{unit}Right")]
    return float(expression[:, columns].mean()) if columns else float("nan")


def _matrices(rotation: Floats) -> F64:
    """Rotation matrices (T, 3, 3) relative to a head that faces the camera."""
    import torch

    from avface.geometry.axes import flip_rotation
    from avface.geometry.rotations import rotvec_to_rotmat

    matrices = rotvec_to_rotmat(torch.as_tensor(np.asarray(rotation, np.float64))).numpy()
    return flip_rotation(matrices)


def _angles(matrices: F64) -> F64:
    """Pitch, yaw and roll (T, 3) in degrees."""
    yaw = np.arctan2(matrices[:, 0, 2], matrices[:, 2, 2])
    pitch = -np.arcsin(np.clip(matrices[:, 1, 2], -1, 1))
    roll = np.arctan2(matrices[:, 1, 0], matrices[:, 1, 1])
    return np.degrees(np.unwrap(np.stack([pitch, yaw, roll], 1), axis=0))


def _turn_speed(matrices: F64, times: Floats) -> F64:
    """Angular speed (T - 1,) in degrees per second."""
    trace = np.einsum("tij,tij->t", matrices[1:], matrices[:-1])
    return np.asarray(np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1))) / np.diff(times))


@dataclass(frozen=True)
class RealityGapConfig:
    """Compare synthetic performances with real clips.

    Raises:
        AvfaceError: if a value can't work.
    """

    clips: Path | None = None
    """Folder of real videos; by default that of the environment's AVFACE_CLIPS."""
    rendered: Path | None = None
    """Folder of rendered synthetic videos, tracked and reconstructed like the real ones."""
    performances: int = 100
    """Number of generated performances."""
    seconds: float = 6.0
    """Duration of each."""
    seed: int = 0
    """Seed of the performances."""

    def __post_init__(self) -> None:
        if self.performances < 1:
            raise AvfaceError(f"performances={self.performances}: must be 1 or more")
        if not self.seconds > 0:
            raise AvfaceError(f"seconds={self.seconds}: must be above 0")


def main(config: RealityGapConfig) -> None:
    """Print the table.

    Raises:
        AvfaceError: if a folder has no videos or a video can't be reconstructed.
    """
    folder = clips_folder(config.clips)
    if not folder.is_dir():
        raise AvfaceError(f"{folder}: no folder of real clips; name it with --clips or {CLIPS_VARIABLE}")
    real = {path.stem: video_statistics(path) for path in _videos(folder)}
    rendered = [video_statistics(path) for path in _videos(config.rendered)] if config.rendered else []
    print(gap_table(real, synthetic_statistics(config.performances, config.seconds, config.seed), rendered))


def _videos(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_SUFFIXES)
    if not found:
        raise AvfaceError(f"{folder}: no videos in it; give a folder with some")
    return found


if __name__ == "__main__":
    import tyro

    main(tyro.cli(RealityGapConfig))
