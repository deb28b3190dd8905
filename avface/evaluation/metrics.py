"""Metrics of face reconstruction as pure numpy functions: landmarks, motion, mouth, vertices.

T frames, L landmarks, V vertices. Landmarks are in pixels and their errors in per cent of the face's size
(`head.measures.box_size`); vertices are in metres and their errors in millimetres. nan marks missing observations and
is propagated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from avface.arrays import F64, Bool, Floats
from avface.geometry.alignment import rigid_align
from avface.head.measures import box_size

WORST_ERROR = 100.0
"""Per cent: the cap of a frame's error, and the error of a frame without a detected face."""


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
