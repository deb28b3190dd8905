"""The occlusion protocol: reconstruction of occluded faces on real clips; the reference is the clean video.

Lower face: every clip is occluded by several occluders (`occluded_clips`); only frames with occluded lips are measured.
Whole face: it is covered for a while (`occlusion_whole_face`); only covered frames are measured. Compared are the
tracker, baselines without a head model (`gap_filling`), and `avface.reconstruct` with and, of the lower face, without
audio.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from avface.arrays import F64, Bool, Floats, Int
from avface.errors import AvfaceError
from avface.evaluation.clips import Progress, find_videos
from avface.evaluation.gap_filling import carry, hold, interpolate
from avface.evaluation.metrics import WORST_ERROR, nme
from avface.evaluation.occluded_clips import OccludedClip, OccludedClipsConfig, make_occluded_clip
from avface.evaluation.occlusion_whole_face import (
    COVERED_FRAMES,
    WHOLE_FACE_KINDS,
    WholeFaceCase,
    WholeFaceReport,
    WholeFaceSource,
    whole_face_case,
)
from avface.evaluation.tables import aligned, with_spread
from avface.files.temporary import temporary_folder
from avface.head.measures import box_size, mouth_opening
from avface.head.schemes import LIPS

MOVING = 5.0
"""Mean speed of a head, in per cent of the face's size per second, from which it counts as moving."""
TRACKER, HOLD, INTERPOLATE, CARRY = "tracker", "hold", "interpolate", "carry"
LOWER_FACE, WHOLE_FACE = "lower-face", "whole-face"
PARTS = (LOWER_FACE, WHOLE_FACE)
"""What is occluded in the two parts of the protocol."""
WITH_SOUND, WITHOUT_SOUND = "avface, sound", "avface, no sound"
_LABELS = {
    TRACKER: "tracker on the occluded video",
    HOLD: "last clear frame held",
    INTERPOLATE: "linear interpolation across the gap",
    CARRY: "last expression, visible motion",
}


@dataclass(frozen=True)
class OccludedFigures:
    """Figures of one method in the occluded frames of one clip. Errors in per cent of the face's size."""

    nme478: float
    """NME of MediaPipe's 478 points."""
    lips: float
    """NME of the 40 lip points."""
    opening: float
    """Correlation of the mouth's opening with the reference's over all occluded frames; 0 if it is constant."""
    opening_within: float
    """The same after subtraction of each gap's mean from both: motion of the mouth within gaps."""


@dataclass(frozen=True)
class OcclusionCase:
    """One clip with the occluders of one seed."""

    clip: str
    seed: int
    frames: int
    hidden: int
    """Frames with occluded lips and a reference: the measured ones."""
    motion: float
    """Mean speed of the head, in per cent of the face's size per second."""
    lost: int
    """Occluded frames without a tracked face; the tracker's last points replace them."""
    figures: dict[str, OccludedFigures]
    """By method."""

    @property
    def moving(self) -> bool:
        """Whether the head counts as moving."""
        return self.motion >= MOVING


@dataclass(frozen=True)
class OcclusionReport:
    """Figures of all cases, as a text table (`table`) and as JSON (`to_json`)."""

    cases: tuple[OcclusionCase, ...]
    """Those of the lower face."""
    failed: dict[str, str] = field(default_factory=dict)
    """Reasons why videos couldn't be measured, by file name."""
    whole_face: WholeFaceReport | None = None
    """Figures with the whole face covered; None if they weren't measured."""

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order of the table."""
        return list(self.cases[0].figures) if self.cases else []

    def mean(self, method: str, figure: str, moving: bool | None = None) -> float:
        """Mean of a method's figure over all cases, or those with moving or with still heads; nan for none."""
        values = self._values(method, figure, moving)
        return float(np.mean(values)) if values else float("nan")

    def _values(self, method: str, figure: str, moving: bool | None) -> list[float]:
        return [
            float(getattr(case.figures[method], figure))
            for case in self.cases
            if moving is None or case.moving == moving
        ]

    def table(self) -> str:
        """Plain text: mean and deviation of all methods over all cases, moving and still heads; and the cases."""
        parts: list[str] = []
        for title, moving in (("all", None), ("moving heads", True), ("nearly still heads", False)):
            cases = [case for case in self.cases if moving is None or case.moving == moving]
            if cases:
                parts.append(self._group(f"{title}: {_number(cases)}", moving))
        if self.cases:
            parts.append(self._case_table())
            parts.append(
                "Errors over frames with occluded lips, % of face size: mean ± standard deviation over clips and "
                "seeds.\nr: correlation of the mouth's opening with the reference's over occluded frames; in gaps: "
                "after subtraction of each gap's mean."
            )
        if self.whole_face is not None:
            parts.append(self.whole_face.table(_LABELS))
        parts += ["not measured: " + reason for reason in self.failed.values()]
        return "\n\n".join(parts)

    def _group(self, title: str, moving: bool | None) -> str:
        rows = [[title, "NME478", "of tracker", "lips", "r", "r in gaps"]]
        base = self.mean(TRACKER, "nme478", moving)
        for method in self.methods:
            share = self.mean(method, "nme478", moving) / base if base else float("nan")
            cells = [
                with_spread(self._values(method, name, moving))
                for name in ("nme478", "lips", "opening", "opening_within")
            ]
            rows.append([_LABELS.get(method, method), cells[0], f"{share:.2f}", *cells[1:]])
        return aligned(rows)

    def _case_table(self) -> str:
        rows = [["lips by case", "motion %/s", "frames", "occl.", "lost", *self.methods]]
        for case in self.cases:
            lips = [f"{figures.lips:.2f}" for figures in case.figures.values()]
            numbers = [f"{case.motion:.1f}", *(str(n) for n in (case.frames, case.hidden, case.lost))]
            rows.append([f"{case.clip} #{case.seed}", *numbers, *lips])
        return aligned(rows)

    def to_json(self) -> str:
        """Everything in the table as a JSON object: cases, means (group, method, figure: mean and spread), failed."""
        groups = {"all": None, "moving": True, "still": False}
        means = {
            group: {
                method: {
                    name: _mean_and_spread(self._values(method, name, moving))
                    for name in OccludedFigures.__dataclass_fields__
                }
                for method in self.methods
            }
            for group, moving in groups.items()
        }
        whole = self.whole_face
        content = {
            "cases": [asdict(case) for case in self.cases],
            "means": means,
            "whole_face": [] if whole is None else [asdict(case) for case in whole.cases],
            "failed": self.failed,
        }
        return json.dumps(content, indent=2, allow_nan=False)


def _number(cases: Sequence[OcclusionCase]) -> str:
    return f"{len({case.clip for case in cases})} clips, {len(cases)} cases"


def _mean_and_spread(values: Sequence[float]) -> dict[str, float] | None:
    return {"mean": float(np.mean(values)), "spread": float(np.std(values))} if values else None


def evaluate_occlusion(
    clips: Path,
    *,
    seeds: int = 3,
    parts: Sequence[str] = PARTS,
    networks: Path | None = None,
    work: Path | None = None,
    config: OccludedClipsConfig | None = None,
    progress: Progress = lambda clip, stage, done, total: None,
) -> OcclusionReport:
    """Occlude the face in every video of a folder and measure each method's estimate of it.

    Args:
        clips: A folder of videos with audio.
        seeds: Number of versions of each with an occluded lower face.
        parts: What is occluded, from `PARTS`: "lower-face", "whole-face" (once a kind of occluder and duration).
        networks: Weights for `avface.reconstruct`; its own by default.
        work: Folder that keeps the occluded videos for the next run; by default a temporary one.
        config: How lower faces are occluded.
        progress: Called as the work advances.

    Raises:
        AvfaceError: if `seeds` is below 1, the folder is missing or has no videos, or none of them can be measured.
    """
    if seeds < 1:
        raise AvfaceError(f"seeds={seeds}: must be 1 or more occluded versions of each video")
    if not parts or isinstance(parts, str) or set(parts) - set(PARTS):
        raise AvfaceError(f"parts={parts}: must be one or more of {', '.join(PARTS)}")
    cases: list[OcclusionCase] = []
    whole: list[WholeFaceCase] = []
    failed: dict[str, str] = {}
    with temporary_folder() if work is None else nullcontext(work) as folder:
        for path in find_videos(clips):
            for seed in range(seeds if LOWER_FACE in parts else 0):

                def on_frame(stage: str, done: int, name: str = f"{path.name} #{seed}") -> None:
                    progress(name, stage, done, None)

                try:
                    clip = make_occluded_clip(path, seed, Path(folder), config, on_frame)
                    cases.append(_measured(clip, networks, on_frame))
                except AvfaceError as problem:
                    failed[path.name] = str(problem)
            if WHOLE_FACE in parts:

                def on_whole(stage: str, done: int, name: str = f"{path.name} whole face") -> None:
                    progress(name, stage, done, None)

                source = WholeFaceSource(path, on_whole)
                for kind, length in product(WHOLE_FACE_KINDS, COVERED_FRAMES):
                    try:
                        clip = source.covered_by(kind, length, 0, Path(folder))
                        whole.append(_measured_whole_face(clip, kind, length, networks, on_whole))
                    except AvfaceError as problem:
                        failed[f"{path.name} {kind} {length}"] = str(problem)
    if not cases and not whole:
        raise AvfaceError(f"{clips}: none of its videos could be measured; {next(iter(failed.values()))}")
    return OcclusionReport(tuple(cases), failed, WholeFaceReport(tuple(whole)) if whole else None)


def reconstructions(networks: Path | None) -> dict[str, dict[str, Any]]:
    """The compared options of `avface.reconstruct`, by their name in the table."""
    shared = {} if networks is None else {"networks": networks}
    return {WITH_SOUND: {**shared, "audio": True}, WITHOUT_SOUND: {**shared, "audio": False}}


def _measured(
    clip: OccludedClip, networks: Path | None, on_frame: Callable[[str, int], None]
) -> OcclusionCase:
    points, seen = _tracked_and_reconstructed(clip, reconstructions(networks), on_frame)
    return measure_case(clip, points, lost=int((clip.lips_occluded & ~seen).sum()))


def _measured_whole_face(
    clip: OccludedClip, kind: str, length: int, networks: Path | None, on_frame: Callable[[str, int], None]
) -> WholeFaceCase:
    compared = {WITH_SOUND: reconstructions(networks)[WITH_SOUND]}
    points, _ = _tracked_and_reconstructed(clip, compared, on_frame)
    del points[CARRY]  # nothing is visible that it could move with
    return whole_face_case(clip, kind, length, points)


def _tracked_and_reconstructed(
    clip: OccludedClip, compared: Mapping[str, Mapping[str, Any]], on_frame: Callable[[str, int], None]
) -> tuple[dict[str, F64], Bool]:
    """Landmarks of all methods by name, with options of `avface.reconstruct` by theirs; and the frames (T,) in which
    the tracker has found the face."""
    from avface.media import Clip
    from avface.pipeline import reconstruct
    from avface.tracking import track

    found = track(Clip.open(clip.video).frames(), on_frame=lambda done: on_frame("tracker", done))
    points = estimates(clip, np.asarray(found.landmarks, np.float64))
    for name, options in compared.items():
        capture = reconstruct(clip.video, progress=lambda stage, done, _: on_frame(stage, done), **options)
        points[name] = np.asarray(capture.landmarks(), np.float64)
    return points, found.seen


def estimates(clip: OccludedClip, tracked: F64) -> dict[str, F64]:
    """Landmarks of tracker and baselines by name; tracked (T, 478, 2) pixels on the occluded video, nan if lost.

    Where the tracker lost the face, its last points are used: frames without an estimate would have the largest error,
    which makes a weak baseline.

    Raises:
        AvfaceError: if the tracker found no face in any clear frame.
    """
    seen = np.isfinite(tracked).all((1, 2))
    valid = clip.clear & seen
    if not valid.any():
        raise AvfaceError(f"{clip.source}: no frame shows the whole face; choose a longer video")
    return {
        TRACKER: hold(tracked, seen),
        HOLD: hold(tracked, valid),
        INTERPOLATE: interpolate(tracked, valid, clip.times),
        CARRY: carry(tracked, valid, upper_face() & ~clip.covered),
    }


def upper_face() -> Bool:
    """(478,) landmarks above the tip of the nose on the average face."""
    from avface.synthetic.occlusion.occluders.average_face import average_face

    face = average_face()
    return np.asarray(face.landmarks[:, 1] > face.nose_tip[1])


def measure_case(clip: OccludedClip, points: Mapping[str, Floats], lost: int = 0) -> OcclusionCase:
    """Figures of methods by name from landmarks (T, 478, 2). Errors are capped at 100 %, which nan counts as, too.

    Raises:
        AvfaceError: if the lips aren't occluded in any frame.
        ValueError: if a method has another number of frames.
    """
    occluded = clip.lips_occluded
    if not occluded.any():
        raise AvfaceError(f"{clip.source}: the mouth is never occluded; try another seed")
    return OcclusionCase(
        clip=clip.source.name,
        seed=clip.seed,
        frames=len(occluded),
        hidden=int(occluded.sum()),
        motion=head_motion_percent(clip.reference, clip.times),
        lost=lost,
        figures={name: occluded_figures(each, clip.reference, occluded) for name, each in points.items()},
    )


def occluded_figures(points: Floats, reference: Floats, occluded: Bool) -> OccludedFigures:
    """Figures of points (T, 478, 2) against the reference (T, 478, 2) in the occluded frames (T,).

    Raises:
        ValueError: if the numbers of frames differ.
    """
    if len(points) != len(reference) or len(occluded) != len(reference):
        raise ValueError(
            f"{len(points)} frames, {len(reference)} of the reference, {len(occluded)} of the occlusion mask"
        )
    predicted, truth = np.asarray(points, np.float64)[occluded], np.asarray(reference, np.float64)[occluded]

    def error(rows: Int | slice) -> float:
        raw = nme(predicted[:, rows], truth[:, rows], truth)
        return float(np.where(np.isfinite(raw), np.minimum(raw, WORST_ERROR), WORST_ERROR).mean())

    # one size for all frames: the face's box grows as the mouth opens, so that a still mouth would seem to close
    size = np.full(len(truth), np.median(box_size(truth)))
    openings = np.stack([mouth_opening(predicted, size), mouth_opening(truth, size)])
    gap = np.cumsum(np.diff(np.flatnonzero(occluded), prepend=-2) > 1)
    within = openings.copy()
    for number in np.unique(gap):
        within[:, gap == number] -= within[:, gap == number].mean(1, keepdims=True)
    return OccludedFigures(
        error(slice(None)), error(LIPS), _opening_correlation(openings), _opening_correlation(within)
    )


def _opening_correlation(openings: F64) -> float:
    """Pearson's correlation of two curves (2, N); 0 where one is constant or not finite."""
    centred = openings - openings.mean(1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    if not np.isfinite(lengths).all() or lengths.min() < 1e-9:
        return 0.0
    return float(centred[0] @ centred[1] / lengths.prod())


def head_motion_percent(reference: Floats, times: Floats) -> float:
    """Displacement of a head within one second, in per cent of its size: mean over frames and rigid landmarks.

    Shapes: reference (T, 478, 2) pixels, nan where unknown; times (T,) seconds. In clips under two seconds it is the
            displacement within half the clip's length, scaled to one second.
    """
    from avface.tracking.reidentification import STABLE_LANDMARKS

    duration = float(times[-1] - times[0])
    step = min(1.0, duration / 2)
    later = np.maximum(np.searchsorted(times, np.asarray(times) + step - 1e-6), np.arange(len(times)) + 1)
    rows = np.flatnonzero(later < len(times))
    known = np.isfinite(reference).all((1, 2))
    rows = rows[known[rows] & known[later[rows]]]
    if not len(rows):
        return float("nan")
    points = np.asarray(reference, np.float64)
    steps = points[later[rows]][:, STABLE_LANDMARKS] - points[rows][:, STABLE_LANDMARKS]
    distance = np.linalg.norm(steps, axis=-1).mean(1) / box_size(points[rows])
    return float(100 * (distance / (times[later[rows]] - times[rows])).mean())
