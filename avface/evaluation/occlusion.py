"""The occlusion protocol: how well the hidden lower face is filled in, on real clips whose truth is the clean video.

Every clip is hidden by several occluders (`occluded_clips`); measured are only the frames whose lips are hidden.
Compared are the tracker itself, baselines that need no head model (`gap_filling`), and `avface.reconstruct` with and
without sound.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avface.arrays import F64, Bool, Floats, Int
from avface.errors import AvfaceError
from avface.evaluation.clips import Progress, find_videos
from avface.evaluation.gap_filling import carry, hold, interpolate
from avface.evaluation.metrics import WORST_ERROR, nme
from avface.evaluation.occluded_clips import OccludedClip, OccludedClipsConfig, make_occluded_clip
from avface.evaluation.tables import aligned, with_spread
from avface.head.measures import box_size, mouth_opening
from avface.head.schemes import LIPS

MOVING = 5.0
"""Per cent of the face's size that a head moves in a second, on average, from which on it counts as moving."""
TRACKER, HOLD, INTERPOLATE, CARRY = "tracker", "hold", "interpolate", "carry"
WITH_SOUND, WITHOUT_SOUND = "avface, sound", "avface, no sound"
_SAID = {
    TRACKER: "tracker on the occluded video",
    HOLD: "last good frame held",
    INTERPOLATE: "interpolated across the gap",
    CARRY: "last expression carried along",
}


@dataclass(frozen=True)
class OccludedFigures:
    """How one method did in the hidden frames of one occluded clip. Errors in per cent of the face's size."""

    nme478: float
    """Mean error of MediaPipe's 478 points."""
    lips: float
    """The same of the 40 points of the lips."""
    opening: float
    """Correlation of the mouth's opening with the reference's over all hidden frames; 0 if it never changes."""
    opening_within: float
    """The same with the mean of each gap taken off both: how the mouth moves within gaps."""


@dataclass(frozen=True)
class OcclusionCase:
    """One clip with one seed's occluders."""

    clip: str
    seed: int
    frames: int
    hidden: int
    """Frames with hidden lips and a reference: the measured ones."""
    motion: float
    """Per cent of the face's size that the head moves in a second, on average."""
    lost: int
    """Hidden frames in which the tracker found no face; its last points stand in for them."""
    figures: dict[str, OccludedFigures]
    """By method."""

    @property
    def moving(self) -> bool:
        """Whether the head moves."""
        return self.motion >= MOVING


@dataclass(frozen=True)
class OcclusionReport:
    """Figures of all cases, as a text table (`table`) and as JSON (`to_json`)."""

    cases: tuple[OcclusionCase, ...]
    failed: dict[str, str] = field(default_factory=dict)
    """By file name: why a video couldn't be measured."""

    @property
    def methods(self) -> list[str]:
        """Names of the methods, in the order of the table."""
        return list(self.cases[0].figures)

    def mean(self, method: str, figure: str, moving: bool | None = None) -> float:
        """Mean of a method's figure over the cases: all, or those with moving or with still heads; nan for none."""
        values = self._values(method, figure, moving)
        return float(np.mean(values)) if values else float("nan")

    def _values(self, method: str, figure: str, moving: bool | None) -> list[float]:
        return [
            float(getattr(case.figures[method], figure))
            for case in self.cases
            if moving is None or case.moving == moving
        ]

    def table(self) -> str:
        """Plain text: means and spreads of all methods, over all cases, moving and still heads; and the cases."""
        parts = []
        for title, moving in (("all", None), ("the head moves", True), ("the head is nearly still", False)):
            cases = [case for case in self.cases if moving is None or case.moving == moving]
            if cases:
                parts.append(self._group(f"{title}: {_number(cases)}", moving))
        parts.append(self._case_table())
        parts += ["not measured: " + reason for reason in self.failed.values()]
        parts.append(
            "Errors over the frames with hidden lips, % of face size: mean ± standard deviation over clips and seeds.\n"
            "r: correlation of the mouth's opening with the reference's, over all hidden frames; in gaps: with each "
            "gap's mean taken off."
        )
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
            rows.append([_SAID.get(method, method), cells[0], f"{share:.2f}", *cells[1:]])
        return aligned(rows)

    def _case_table(self) -> str:
        rows = [["lips by case", "motion %/s", "frames", "hidden", "lost", *self.methods]]
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
        content = {"cases": [asdict(case) for case in self.cases], "means": means, "failed": self.failed}
        return json.dumps(content, indent=2, allow_nan=False)


def _number(cases: Sequence[OcclusionCase]) -> str:
    return f"{len({case.clip for case in cases})} clips, {len(cases)} cases"


def _mean_and_spread(values: Sequence[float]) -> dict[str, float] | None:
    return {"mean": float(np.mean(values)), "spread": float(np.std(values))} if values else None


def evaluate_occlusion(
    clips: Path,
    *,
    seeds: int = 3,
    networks: Path | None = None,
    work: Path | None = None,
    config: OccludedClipsConfig | None = None,
    progress: Progress = lambda clip, stage, done, total: None,
) -> OcclusionReport:
    """Hide the lower face in every video of a folder and measure what each method says about it.

    Args:
        clips: A folder of videos with sound.
        seeds: Occluded versions of each.
        networks: Weights for `avface.reconstruct`; its own by default.
        work: Folder in which the occluded videos are kept for the next run; by default they are thrown away.
        config: How faces are hidden.
        progress: Told about the work as it goes on.

    Raises:
        AvfaceError: if the folder is missing or has no videos, or none of them can be measured.
    """
    if seeds < 1:
        raise AvfaceError(f"{seeds} seeds: use at least one")
    cases: list[OcclusionCase] = []
    failed: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="avface-") if work is None else nullcontext(work) as folder:
        for path in find_videos(clips):
            for seed in range(seeds):

                def told(stage: str, done: int, name: str = f"{path.name} #{seed}") -> None:
                    progress(name, stage, done, None)

                try:
                    clip = make_occluded_clip(path, seed, Path(folder), config, told)
                    cases.append(_measured(clip, networks, told))
                except AvfaceError as problem:
                    failed[path.name] = str(problem)
    if not cases:
        raise AvfaceError(f"{clips}: none of its videos could be measured; {next(iter(failed.values()))}")
    return OcclusionReport(tuple(cases), failed)


def reconstructions(networks: Path | None) -> dict[str, dict[str, Any]]:
    """The options of `avface.reconstruct` that are compared, by the name that they have in the table."""
    shared = {} if networks is None else {"networks": networks}
    return {WITH_SOUND: {**shared, "audio": True}, WITHOUT_SOUND: {**shared, "audio": False}}


def _measured(clip: OccludedClip, networks: Path | None, told: Callable[[str, int], None]) -> OcclusionCase:
    from avface.media import Clip
    from avface.pipeline import reconstruct
    from avface.tracking import track

    found = track(Clip.open(clip.video).frames(), on_frame=lambda done: told("tracker", done))
    points = filled_in(clip, np.asarray(found.landmarks, np.float64))
    for name, options in reconstructions(networks).items():
        capture = reconstruct(clip.video, progress=lambda stage, done, _: told(stage, done), **options)
        points[name] = np.asarray(capture.landmarks(), np.float64)
    return measure_case(clip, points, lost=int((clip.lips_occluded & ~found.seen).sum()))


def filled_in(clip: OccludedClip, tracked: F64) -> dict[str, F64]:
    """What the tracker and the baselines say, by name; tracked (T, 478, 2) pixels on the occluded video, nan if lost.

    Where the tracker lost the face, its last points stand in for it: a clip with nobody in it would be as bad as can
    be, and to be better than that is no achievement.

    Raises:
        AvfaceError: if the tracker saw no face while it was clear.
    """
    seen = np.isfinite(tracked).all((1, 2))
    good = clip.clear & seen
    if not good.any():
        raise AvfaceError(f"{clip.source}: no frame in which the whole face is seen; choose a longer video")
    return {
        TRACKER: hold(tracked, seen),
        HOLD: hold(tracked, good),
        INTERPOLATE: interpolate(tracked, good, clip.times),
        CARRY: carry(tracked, good, upper_face() & ~clip.covered),
    }


def upper_face() -> Bool:
    """(478,) the landmarks that lie higher than the tip of the nose on the average face."""
    from avface.synthetic.occlusion.occluders.average_face import average_face

    face = average_face()
    return np.asarray(face.landmarks[:, 1] > face.nose_tip[1])


def measure_case(clip: OccludedClip, points: Mapping[str, Floats], lost: int = 0) -> OcclusionCase:
    """The figures of methods' landmarks (T, 478, 2) by name. A frame's error is 100 % at most, and where there is none.

    Raises:
        AvfaceError: if no frame's lips are hidden.
        ValueError: if a method has another number of frames.
    """
    occluded = clip.lips_occluded
    if not occluded.any():
        raise AvfaceError(f"{clip.source}: nothing came before the mouth; try another seed")
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

    # one size for all frames: the true face's own grows as the mouth opens, and would make a still mouth close
    size = np.full(len(truth), np.median(box_size(truth)))
    openings = np.stack([mouth_opening(predicted, size), mouth_opening(truth, size)])
    gap = np.cumsum(np.diff(np.flatnonzero(occluded), prepend=-2) > 1)
    within = openings.copy()
    for number in np.unique(gap):
        within[:, gap == number] -= within[:, gap == number].mean(1, keepdims=True)
    return OccludedFigures(error(slice(None)), error(LIPS), _follows(openings), _follows(within))


def _follows(openings: F64) -> float:
    """Pearson's correlation of two curves (2, N); 0 where one never changes: it follows nothing."""
    centred = openings - openings.mean(1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=1)
    if not np.isfinite(lengths).all() or lengths.min() < 1e-9:
        return 0.0
    return float(centred[0] @ centred[1] / lengths.prod())


def head_motion_percent(reference: Floats, times: Floats) -> float:
    """How far a head moves in a second, in per cent of its size: the mean over a clip's frames and steady points.

    Shapes: reference (T, 478, 2) pixels, nan where unknown; times (T,) seconds. In a clip under two seconds it is how
            far it moves in half the clip's length, scaled up.
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
    way = np.linalg.norm(steps, axis=-1).mean(1) / box_size(points[rows])
    return float(100 * (way / (times[later[rows]] - times[rows])).mean())
