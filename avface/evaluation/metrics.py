"""Metrics of face reconstruction as pure numpy functions: landmarks, motion, mouth, vertices; and figures of expression
curves against true ones.

T frames, L landmarks, V vertices. Landmarks are in pixels and their errors in per cent of the face's size
(`head.measures.box_size`); vertices are in metres and their errors in millimetres. nan marks missing observations and
is propagated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from avface.arrays import F64, Bool, Floats
from avface.geometry.alignment import rigid_align
from avface.head.measures import box_size
from avface.head.unit_names import unit_stem

WORST_ERROR = 100.0
"""Per cent: the cap of a frame's error, and the error of a frame without a detected face."""
IN_USE = 0.03
"""Standard deviation of a true curve from which its unit counts as in use."""
STILL = 0.02
"""Largest true weight of a unit that counts as still."""
FALSE_ACTIVITY = 0.15
"""Weight that the curve of a still unit must not exceed."""
DOMINANT = 0.35
"""Least weight of the strongest true pair of a frame that is looked for."""
STRONGEST = 3
"""Number of the strongest pairs among which it must be."""
_GAZE = ("eyeLook",)
_LIDS_AND_GAZE = ("eyeBlink", "eyeLook")


def nme(predicted: Floats, reference: Floats, box_of: Floats | None = None) -> F64:
    """Normalised mean error of each frame, in per cent: 100 mean_l |p_l - r_l| / sqrt(w h).

    w and h are the sides of the bounding box of `box_of` (T, L', 2), the reference itself by default; for lips it is
    the whole face, so that both errors have the same unit.

    Shapes: predicted (T, L, 2), reference (T, L, 2) pixels -> (T,) per cent; nan where either has a nan.
    Source: section 4.3.1 of Zhu et al., "Face Alignment in Full Pose Range: A 3D Total Solution" (TPAMI
            2019), with the box of the reference's landmarks.

    Raises:
        ValueError: if the shapes differ, or a box has no area.
    """
    if predicted.shape != reference.shape:
        raise ValueError(f"predicted {predicted.shape} and reference {reference.shape} must have one shape")
    size = box_size(reference if box_of is None else box_of)
    if len(size) != len(reference):
        raise ValueError(f"box_of has {len(size)} frames, the reference {len(reference)}")
    distances = np.linalg.norm(np.asarray(predicted, np.float64) - reference, axis=-1)
    return 100 * distances.mean(1) / size


def auc(errors: Floats, threshold: float) -> float:
    """Area under the cumulative error curve up to a threshold, 0 to 1: 1 - mean(min(e, threshold)) /
    threshold.

    It is the mean, over all x from 0 to the threshold, of the share of frames whose error is at most x.

    Shapes: errors (N,); errors and threshold in the same unit. nan are left out; nan if nothing is left.
    Source: the curve is 300-W's (Sagonas et al., 2016); thresholds in use are 7 % (FAN) and 10 % (WFLW).

    Raises:
        ValueError: if the threshold isn't above 0.
    """
    if not threshold > 0:
        raise ValueError(f"threshold={threshold} must be above 0")
    errors = errors[np.isfinite(errors)]
    return float(1 - np.minimum(errors, threshold).mean() / threshold) if len(errors) else float("nan")


def jitter(points: Floats, size: Floats, cuts: Sequence[int] = ()) -> float:
    """Jitter in per cent of the face's size: 100 mean_t,l |p(t+1) - 2 p(t) + p(t-1)| / size(t).

    It includes the acceleration of the true motion, so only the ratio of two methods on one clip is meaningful; and it
    is 0 for a face that never moves, so it must be read together with error and lag. Frames are assumed to be evenly
    spaced.

    Shapes: points (T, L, 2) and size (T,) in pixels. Frames with a nan don't count, nor do steps over `cuts`,
            the first frames of new shots. nan if no three frames in a row are left.
    Source: no standard; second differences as in most work on video pose (MPJPE's "acceleration").
    """
    if len(points) < 3:
        return float("nan")
    steps = np.diff(np.asarray(points, np.float64), 2, axis=0)
    relative = np.linalg.norm(steps, axis=-1).mean(1) / size[1:-1]
    for cut in cuts:
        relative[max(cut - 2, 0) : max(cut, 0)] = np.nan  # difference t spans frames t to t + 2
    relative = relative[np.isfinite(relative)]
    return float(100 * relative.mean()) if len(relative) else float("nan")


def lag(delayed: Floats, reference: Floats, max_lag: int) -> tuple[int, float]:
    """Delay of one curve against another in frames, and their correlation at that delay.

    Pearson's correlation r of delayed(t + k) and reference(t) over all t where both are known, for every k
    from -max_lag to max_lag; returned are the k with the largest r (the smallest |k| of equal ones) and that r.
    Positive k: `delayed` is late.

    Shapes: delayed (T,), reference (T,), in any units; nan where unknown. (0, nan) if either is constant.

    Raises:
        ValueError: if the shapes differ or max_lag leaves fewer than three frames to compare.
    """
    frames = len(reference)
    if delayed.shape != (frames,) or reference.ndim != 1:
        raise ValueError(f"curves of shapes {delayed.shape} and {reference.shape} must both be (T,)")
    if not 0 <= max_lag <= frames - 3:
        raise ValueError(f"max_lag={max_lag} must be from 0 to {frames - 3} for {frames} frames")
    best, best_r = 0, float("nan")
    for k in sorted(range(-max_lag, max_lag + 1), key=abs):
        r = _correlation(delayed[max(k, 0) : frames + min(k, 0)], reference[max(-k, 0) : frames + min(-k, 0)])
        if np.isfinite(r) and not r <= best_r:
            best, best_r = k, r
    return best, best_r


def gain(found: Floats, reference: Floats) -> float:
    """Slope (least squares) of a curve (T,) against a reference (T,), over frames in which both are known; nan where
    the reference doesn't vary."""
    known = np.isfinite(found) & np.isfinite(reference)
    if not known.any():
        return float("nan")
    x, y = np.asarray(reference, np.float64)[known], np.asarray(found, np.float64)[known]
    x = x - x.mean()
    total = float(x @ x)
    return float(x @ y) / total if total > 0 else float("nan")


def _correlation(a: Floats, b: Floats) -> float:
    known = np.isfinite(a) & np.isfinite(b)
    if known.sum() < 3:
        return float("nan")
    a, b = a[known] - a[known].mean(), b[known] - b[known].mean()
    norm = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norm) if norm > 0 else float("nan")


def vertex_error_mm(
    predicted: Floats,
    truth: Floats,
    mask: Bool | None = None,
    align: Literal["rigid", "similarity"] | None = "rigid",
) -> F64:
    """Distance of each vertex from the true one, in millimetres.

    Each frame is aligned separately over the measured vertices, so that the head's pose ("similarity": and scale)
    doesn't count; with None there is no alignment.

    Shapes: predicted (T, V, 3), truth (T, V, 3) metres in one topology, mask (V,) the M vertices to measure
            (all by default) -> (T, M) millimetres. Take the mean for the usual mean vertex error.

    Raises:
        ValueError: if the shapes differ, nothing is left to measure, or the alignment is unknown.
    """
    if predicted.shape != truth.shape or predicted.ndim != 3 or predicted.shape[-1] != 3:
        raise ValueError(f"predicted {predicted.shape} and truth {truth.shape} must both be (T, V, 3)")
    if align not in ("rigid", "similarity", None):
        raise ValueError(f"align={align!r}; vertices are aligned by 'rigid', 'similarity' or None")
    if mask is not None:
        predicted, truth = predicted[:, mask], truth[:, mask]
    if align is not None:
        predicted = rigid_align(predicted, truth, scale=align == "similarity")
    return 1000 * np.linalg.norm(np.asarray(predicted, np.float64) - truth, axis=-1)


def lip_vertex_error(predicted: Floats, truth: Floats, lips: Bool) -> float:
    """Lip vertex error (LVE) in millimetres: the largest distance of a lip vertex in each frame, averaged over frames.

    Distances aren't squared; published values near 1e-4 are in squared metres (CodeTalker's script).

    Shapes: predicted (T, V, 3), truth (T, V, 3) metres, lips (V,). Not aligned here: in the head's
            frame, or aligned before.
    Source: Richard et al., "MeshTalk" (ICCV 2021).

    Raises:
        ValueError: if the shapes differ.
    """
    return float(vertex_error_mm(predicted, truth, lips, align=None).max(1).mean())


@dataclass
class CurveFigures:
    """Figures of the curves of any number of clips, added one by one. Units that follow the gaze are left out."""

    units: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    """Correlation and gain (slope of the found curve against the true one) in each clip in which a unit is in use."""
    false: list[bool] = field(default_factory=list)
    """Of each still unit of each clip: whether its curve exceeds FALSE_ACTIVITY."""
    hits: list[bool] = field(default_factory=list)
    """Of each frame with a strong pair: whether it is among the found ones' STRONGEST."""

    def add(self, names: Sequence[str], found: Floats, true: Floats) -> None:
        """Add a clip: found and true weights (T, E) of units of these names.

        Raises:
            ValueError: if the shapes differ.
        """
        if found.shape != true.shape or found.shape[1:] != (len(names),):
            raise ValueError(
                f"{len(names)} curves: found {found.shape} and true ones {true.shape} must agree"
            )
        for name, x, y in zip(names, found.T.astype(np.float64), true.T.astype(np.float64), strict=True):
            if name.startswith(_GAZE):
                continue
            if y.std() >= IN_USE:
                together = float(np.cov(x, y, bias=True)[0, 1])
                r = together / (x.std() * y.std()) if x.std() > 1e-4 else 0.0
                self.units.setdefault(name, []).append((float(r), together / float(y.var())))
            elif y.max() <= STILL:
                self.false.append(bool(x.max() > FALSE_ACTIVITY))
        x, y = _pairs(names, found), _pairs(names, true)
        strong = np.flatnonzero(y.max(1) >= DOMINANT)
        strongest = np.argsort(-x[strong], axis=1)[:, :STRONGEST]
        self.hits += (strongest == y[strong].argmax(1)[:, None]).any(1).tolist()

    def of_units(self) -> dict[str, tuple[float, float]]:
        """Mean correlation and gain of each unit over the clips in which it is in use."""
        return {name: tuple(np.mean(values, 0).tolist()) for name, values in self.units.items()}

    @property
    def correlation(self) -> float:
        """Median over the units; nan if none is in use."""
        return _median([r for r, _ in self.of_units().values()])

    @property
    def gain(self) -> float:
        """Median over the units; nan if none is in use."""
        return _median([gain for _, gain in self.of_units().values()])

    @property
    def false_activity(self) -> float:
        """Share of still units above FALSE_ACTIVITY; nan without any."""
        return float(np.mean(self.false)) if self.false else float("nan")

    @property
    def dominant(self) -> float:
        """Share of frames whose strongest pair is found; nan without any."""
        return float(np.mean(self.hits)) if self.hits else float("nan")

    def facts(self) -> dict[str, object]:
        """The figures by name, as JSON can store them; undefined ones are None."""

        def known(value: float) -> float | None:
            return value if np.isfinite(value) else None

        return {
            "median_r": known(self.correlation),
            "median_gain": known(self.gain),
            "still_units_active": known(self.false_activity),
            "dominant_pair_found": known(self.dominant),
            "units": {name: {"r": r, "gain": gain} for name, (r, gain) in self.of_units().items()},
        }

    def summary(self) -> str:
        """One line."""
        return (
            f"curves of {len(self.units)} units in use: median r {self.correlation:.2f}, gain {self.gain:.2f}; "
            f"still units above {FALSE_ACTIVITY}: {self.false_activity:.0%}; strongest pair among the "
            f"{STRONGEST} strongest: {self.dominant:.0%}"
        )


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else float("nan")


def _pairs(names: Sequence[str], weights: Floats) -> F64:
    """Weights (T, P) of units without blinks and gaze, in which the halves of a unit count as one, their mean."""
    stems: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        if not name.startswith(_LIDS_AND_GAZE):
            stems.setdefault(unit_stem(name), []).append(number)
    return np.stack([weights[:, columns].mean(1) for columns in stems.values()], 1).astype(np.float64)
