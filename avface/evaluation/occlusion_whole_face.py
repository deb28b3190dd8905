"""The part of the occlusion protocol in which the whole face is covered for a while.

Something close to the lens covers the whole face for 8 and for 25 frames, once a clip. Measured are the covered frames,
against the tracker on the clean video, and the largest jump around them, against the clip's own fastest motion.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from avface.arrays import F64, Bool, Floats
from avface.errors import AvfaceError
from avface.evaluation.metrics import WORST_ERROR, nme
from avface.evaluation.occluded_clips import OccludedClip, make_whole_face_clip
from avface.evaluation.tables import aligned
from avface.head.measures import box_size

WHOLE_FACE_KINDS = ("hand", "microphone", "paper")
"""Kinds of occluder."""
COVERED_FRAMES = (8, 25)
"""Frames for which the whole face is covered, without the ramps."""
COVERED_SHARE = 0.95
"""Share of the landmarks behind the occluder from which on the whole face counts as covered."""
_MARGIN = 3
"""Frames before and after an occlusion in which jumps count, too."""


@dataclass(frozen=True)
class WholeFaceFigures:
    """Figures of one method on one clip."""

    nme478: float
    """NME of MediaPipe's 478 points over the covered frames, in per cent of the face's size."""
    jump: float
    """Largest motion from one frame to the next around the covered ones, as a multiple of the largest in the clean
    clip."""


@dataclass(frozen=True)
class WholeFaceCase:
    """One clip with one occluder."""

    clip: str
    kind: str
    length: int
    """Frames of the plan, without the ramps, for which the face is covered."""
    covered: int
    """Frames with a covered face and a reference: the measured ones."""
    figures: dict[str, WholeFaceFigures]
    """By method."""


@dataclass(frozen=True)
class WholeFaceReport:
    """Figures of all cases, as a text table."""

    cases: tuple[WholeFaceCase, ...]

    def mean(self, method: str, figure: str) -> float:
        """Mean of a method's figure over all cases."""
        return float(np.mean([getattr(case.figures[method], figure) for case in self.cases]))

    def worst(self, method: str, figure: str) -> float:
        """Largest value of a method's figure."""
        return float(max(getattr(case.figures[method], figure) for case in self.cases))

    def table(self, labels: Mapping[str, str]) -> str:
        """Plain text: mean and largest value of all methods, and the error and jump of each by case."""
        methods = list(self.cases[0].figures)
        clips = len({case.clip for case in self.cases})
        rows = [
            [f"whole face: {clips} clips, {len(self.cases)} cases", "NME478", "largest", "jump", "largest"]
        ]
        for method in methods:
            figures = [f(method, name) for name in ("nme478", "jump") for f in (self.mean, self.worst)]
            rows.append([labels.get(method, method), *(f"{value:.2f}" for value in figures)])
        by_case = [["whole face, NME478 (jump) by case", "covered", *methods]]
        for case in self.cases:
            cells = [f"{one.nme478:.2f} ({one.jump:.2f})" for one in case.figures.values()]
            by_case.append([f"{case.clip} {case.kind} {case.length}", str(case.covered), *cells])
        return "\n\n".join(
            [
                aligned(rows),
                aligned(by_case),
                "Errors over frames in which the whole face is covered, % of face size. Jump: largest motion from "
                "frame to frame around them, as a multiple of the largest in the clean clip.",
            ]
        )


@dataclass(frozen=True, eq=False)
class WholeFaceSource:
    """A clean clip, tracked when it is first needed."""

    path: Path
    on_frame: Callable[[str, int], None]

    @cached_property
    def face_track(self) -> Any:
        """Its `FaceTrack`."""
        from avface.media import Clip
        from avface.tracking import track

        return track(Clip.open(self.path).frames(), on_frame=lambda done: self.on_frame("tracking", done))

    def covered_by(self, kind: str, length: int, seed: int, work: Path) -> OccludedClip:
        """The clip with the face covered for so many frames; see `make_whole_face_clip`."""
        return make_whole_face_clip(
            self.path, kind, length, seed, work, lambda: self.face_track, self.on_frame
        )


def whole_face_covered(clip: OccludedClip) -> Bool:
    """(T,) frames in which the whole face is covered, with a reference."""
    return np.asarray((clip.covered.mean(1) >= COVERED_SHARE) & clip.known)


def frame_motion(points: Floats, reference: Floats) -> F64:
    """Mean motion of landmarks (T, L, 2) from each frame to the next, (T - 1,), in per cent of the size of the
    reference's face (T, L', 2); nan where either is unknown."""
    steps = np.linalg.norm(np.diff(np.asarray(points, np.float64), axis=0), axis=-1).mean(1)
    return np.asarray(100 * steps / box_size(np.asarray(reference, np.float64))[1:])


def whole_face_case(
    clip: OccludedClip, kind: str, length: int, points: Mapping[str, Floats]
) -> WholeFaceCase:
    """Figures of methods by name from landmarks (T, 478, 2). Errors are capped at 100 %, which nan counts as, too.

    Raises:
        AvfaceError: if the whole face isn't covered in any frame with a reference.
    """
    covered = whole_face_covered(clip)
    if not covered.any():
        raise AvfaceError(f"{clip.source}: the whole face is never covered; try another seed")
    touched = np.flatnonzero(clip.covered.any(1))
    first, last = max(touched[0] - _MARGIN, 0), min(touched[-1] + _MARGIN, len(covered) - 1)
    reference = np.asarray(clip.reference, np.float64)
    fastest = float(np.nanmax(frame_motion(reference, reference)))

    def figures(estimate: Floats) -> WholeFaceFigures:
        raw = nme(np.asarray(estimate, np.float64)[covered], reference[covered])
        errors = np.where(np.isfinite(raw), np.minimum(raw, WORST_ERROR), WORST_ERROR)
        motion = frame_motion(estimate, reference)[first:last]
        return WholeFaceFigures(float(errors.mean()), float(np.nanmax(motion, initial=0)) / fastest)

    return WholeFaceCase(
        clip.source.name,
        kind,
        length,
        int(covered.sum()),
        {name: figures(each) for name, each in points.items()},
    )
