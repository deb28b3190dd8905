"""The mouth by ear alone: its opening follows the one that is heard.

The networks learn from performances, in which the gap between the lips has more causes than sound can tell (effort,
roundness, habits of the speaker), so their prediction from sound is cautious. The speech readout predicts the opening
alone, and hears it better on real voices. Where the picture may not be used, the predicted expression is changed such
that its lip gap is a weighted sum of the two, with the mean and the liveliness that the networks predict.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from avface.arrays import F64
from avface.head.measures import INNER_LIP_CENTRES
from avface.networks.coarse.inference import ClipPrediction
from avface.networks.fusion.av_sync import LEAST_VARIATION
from avface.networks.regions import audio_driven_units

HEARD_WEIGHT = 4.0
"""Weight of the heard opening against that of the networks' lip gap, both standardised over the clip."""


def follow_heard_opening(
    prediction: ClipPrediction, unit_names: tuple[str, ...], motion: F64
) -> ClipPrediction:
    """The prediction with an opening of the mouth that follows the heard one.

    Units move in the proportions in which they vary together in the prediction itself, the least change for the gap.

    Args:
        prediction: of T frames, without picture.
        unit_names: the E expression units.
        motion: (E, 478, 3) landmark displacement per unit, head axes.
    """
    known = np.isfinite(prediction.expression_sigma).all(1)
    heard = prediction.audio_opening.astype(np.float64)
    if known.sum() < 2 or heard[known].std() < LEAST_VARIATION:
        return prediction
    units = audio_driven_units(unit_names).numpy()
    upper, lower = INNER_LIP_CENTRES
    opening = motion[units, upper, 1] - motion[units, lower, 1]  # y is up
    expression = prediction.expression[:, units].astype(np.float64)
    gap = expression @ opening
    covariance = np.cov(expression[known].T)
    variance = float(opening @ covariance @ opening)
    if variance <= 0:
        return prediction
    mixed = _standardised(gap, known) + HEARD_WEIGHT * _standardised(heard, known)
    wanted = gap[known].mean() + _standardised(mixed, known) * gap[known].std()
    change = (wanted - gap)[:, None] * (covariance @ opening / variance)
    changed = prediction.expression.copy()
    changed[:, units] += (change * known[:, None]).astype(np.float32)
    return replace(prediction, expression=changed)


def _standardised(values: F64, known: F64) -> F64:
    """Values (T,) with mean 0 and standard deviation 1 over the known frames."""
    return np.asarray((values - values[known].mean()) / max(float(values[known].std()), 1e-9))
