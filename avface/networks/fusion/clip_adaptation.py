"""Adaptation of the predicted expression to the clip where the mouth is occluded.

The networks predict average motion of the mouth; its amplitude, its rest position and its relation to the voice differ
from person to person. They are learned from the frames of the same clip that show the mouth, by ridge regression of
the fitted expression on the networks' prediction for an occluded mouth and on the opening and the closures predicted
from sound. That prediction is made for all frames, visible ones too, with limited visibility (`predict_clip`). The
penalties are chosen by cross-validation. Where the mouth is occluded, the regression replaces the prediction.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from avface.arrays import F32, F64, Bool, Floats, Int
from avface.head.schemes import LIPS
from avface.networks.coarse.inference import ClipPrediction
from avface.networks.regions import audio_driven_units
from avface.tracking import FaceTrack

VISIBLE, OCCLUDED = 0.85, 0.5
"""Mean visibility from which on lips count as visible, and below which they count as occluded."""
MIN_FRAMES = 5
"""Least number of frames with visible lips for an adaptation."""
PRIOR_FRAMES = 10
"""Weight of the prediction's mean against the mean of the visible frames, in frames."""
PREDICTION_COMPONENTS = 3
"""Number of principal components of the prediction among the regressors."""
RIDGE_PENALTIES = (1e6, 300.0, 60.0, 15.0)
"""Candidate ridge penalties, in frames, for the components of the prediction and for what is heard. The first
amounts to no dependence. Penalties, and whether the prediction or its mean over the clip is the basis, are chosen by
cross-validation."""
FOLDS = 5
"""Folds of the cross-validation, each of consecutive frames, because neighbouring frames are correlated."""
OPENING_SMOOTHING = 0.04
"""Standard deviation in seconds of the Gaussian that smooths what is heard."""
REGRESSOR_LIMIT = 3.0
"""Regressors are clipped to this many standard deviations from their mean over the visible frames."""
_BLOCK = 1024


def lip_visibility(track: FaceTrack) -> F32:
    """Mean visibility of the lip landmarks in each frame (T,), in [0, 1]; 0 in frames without the person."""
    lips = np.zeros(len(track), np.float32)
    for start in range(0, len(track), _BLOCK):
        rows = slice(start, start + _BLOCK)
        mean = 1.0
        if track.visibility is not None:
            mean = np.asarray(track.visibility[rows], np.float32)[:, LIPS].mean(1)
        lips[rows] = np.where(track.seen[rows], mean, 0)
    return lips


def occluded_visibility(track: FaceTrack, lips: F32) -> F32 | None:
    """Mean visibility of each landmark (478,) over the frames with occluded lips.

    None if there are no such frames, or fewer than `MIN_FRAMES` with visible lips.

    lips: (T,) of `lip_visibility`.
    """
    seen = track.seen
    occluded = np.flatnonzero(seen & (lips < OCCLUDED))
    if track.visibility is None or not len(occluded) or (seen & (lips >= VISIBLE)).sum() < MIN_FRAMES:
        return None
    total = np.zeros(478)
    for frame in occluded.tolist():
        total += track.visibility[frame]
    return (total / len(occluded)).astype(np.float32)


def adapt_to_clip(
    prediction: ClipPrediction,
    occluded: ClipPrediction,
    fitted: Floats,
    lips: F32,
    times: F64,
    unit_names: tuple[str, ...],
    motion: F64,
) -> ClipPrediction:
    """The prediction with the expression of the lower face adapted to the clip where the lips are occluded.

    Args:
        prediction: of the T frames.
        occluded: the same with the visibility of an occluded mouth in all frames.
        fitted: (T, E) expression of the first fit, of which the frames with visible lips count.
        lips: (T,) their visibility (`lip_visibility`).
        times: (T,) seconds.
        unit_names: the E expression units.
        motion: (E, 478, 3) landmark displacement per unit; cross-validation compares that of the lips.
    """
    units = audio_driven_units(unit_names).numpy()
    known = np.isfinite(prediction.expression_sigma).all(1)
    visible = np.flatnonzero(known & (lips >= VISIBLE))
    if len(visible) < MIN_FRAMES or not len(units):
        return prediction
    predicted, target = (
        occluded.expression[:, units].astype(np.float64),
        np.asarray(fitted[:, units], np.float64),
    )
    heard = np.stack([occluded.audio_opening, occluded.audio_closure], 1)
    regressors, from_sound = _regressors(predicted, heard, visible, times)
    mean = np.broadcast_to(predicted[known].mean(0), predicted.shape)
    folds = np.array_split(np.arange(len(visible)), FOLDS)
    lip_motion = motion[units][:, LIPS].reshape(len(units), -1)

    def validation_error(basis: F64, penalties: F64) -> float:
        """Sum of squared errors of the lip motion in the held-out folds."""
        total = 0.0
        for fold in folds:
            rows = visible[fold]
            model = _RidgeRegression.fit(regressors, target - basis, np.delete(visible, fold), penalties)
            total += float((((basis[rows] + model(regressors[rows]) - target[rows]) @ lip_motion) ** 2).sum())
        return total

    candidates = [
        np.where(from_sound, of_opening, of_components)
        for of_components, of_opening in product(
            RIDGE_PENALTIES, RIDGE_PENALTIES if from_sound.any() else RIDGE_PENALTIES[:1]
        )
    ]
    basis, penalties = min(
        product((predicted, mean), candidates), key=lambda choice: validation_error(*choice)
    )
    adapted = basis + _RidgeRegression.fit(regressors, target - basis, visible, penalties)(regressors)
    share = ((VISIBLE - lips) / (VISIBLE - OCCLUDED)).clip(0, 1)[:, None] * known[:, None]
    expression = prediction.expression.copy()
    expression[:, units] += share * (adapted - expression[:, units])
    return replace(prediction, expression=expression)


@dataclass(frozen=True)
class _RidgeRegression:
    """Intercept (U,) and slopes (C, U) of U values on C regressors."""

    intercept: F64
    slopes: F64

    @classmethod
    def fit(cls, regressors: F64, values: F64, rows: Int, penalties: F64) -> _RidgeRegression:
        """Fit values (T, U) to regressors (T, C) over some rows; penalties (C,).

        The intercept is the mean of the values, shrunk towards 0 by `PRIOR_FRAMES`.
        """
        intercept = values[rows].sum(0) / (len(rows) + PRIOR_FRAMES)
        x = regressors[rows]
        return cls(intercept, np.linalg.solve(x.T @ x + np.diag(penalties), x.T @ (values[rows] - intercept)))

    def __call__(self, regressors: F64) -> F64:
        return np.asarray(self.intercept + regressors @ self.slopes)


def _regressors(predicted: F64, heard: F32, visible: Int, times: F64) -> tuple[F64, Bool]:
    """Regressors (T, C), standardised over the visible frames, and which of them (C,) come from sound.

    predicted (T, U) units; heard (T, 2) opening and closure of the lips.
    """
    from scipy.ndimage import gaussian_filter1d

    centred = predicted - predicted[visible].mean(0)
    _, singular_values, directions = np.linalg.svd(centred[visible], full_matrices=False)
    columns = list((centred @ directions[: min(PREDICTION_COMPONENTS, len(singular_values))].T).T)
    step = (times[-1] - times[0]) / (len(times) - 1)
    of_sound = [
        gaussian_filter1d(curve.astype(np.float64), OPENING_SMOOTHING / step)
        for curve in heard.T
        if curve.any()
    ]
    columns += of_sound
    regressors = np.stack(columns, 1)
    regressors -= regressors[visible].mean(0)
    regressors = (regressors / (regressors[visible].std(0) + 1e-6)).clip(-REGRESSOR_LIMIT, REGRESSOR_LIMIT)
    return regressors, np.arange(len(columns)) >= len(columns) - len(of_sound)
