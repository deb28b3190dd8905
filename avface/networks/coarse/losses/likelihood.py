"""Negative log-likelihood of the ground truth under the predicted variances.

These losses aren't 0 for a perfect prediction; they are minimal where the predicted variance is the true one.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Distribution = Literal["gaussian", "laplace"]


def negative_log_likelihood(
    error: Tensor, log_variance: Tensor, distribution: Distribution = "gaussian"
) -> Tensor:
    """-log p(error), up to a constant, of each error (...) under its predicted log-variance (...), elementwise.

    gaussian: (e^2 / v + log v) / 2, lowest at v = e^2. laplace: sqrt(2 / v) |e| + log(v) / 2, lowest at v = 2 e^2,
    robust to outliers; a Laplace distribution of scale b has v = 2 b^2.
    Source: Kendall & Gal, What uncertainties do we need in Bayesian deep learning, 2017.
    """
    if distribution == "gaussian":
        return (error.square() * (-log_variance).exp() + log_variance) / 2
    return error.abs() * (0.5 * (0.6931471805599453 - log_variance)).exp() + log_variance / 2


def unit_likelihood_loss(
    error: Tensor, log_variance: Tensor, shares: Tensor, distribution: Distribution = "gaussian"
) -> Tensor:
    """Mean over frames and units of -log p of the units' errors (..., E), given log-variances (..., 6) of regions.

    shares (E, 6) as of `regions.unit_regions`: a unit's cost is the mean over its regions.
    Gradients go into the prediction, too, in proportion to the predicted precision; detach the error to train the
    variance alone.
    """
    cost = negative_log_likelihood(error[..., None], log_variance[..., None, :], distribution)
    return (cost * shares.to(cost)).sum(-1).mean()


def landmark_likelihood_loss(
    error: Tensor,
    log_variance: Tensor,
    regions: Tensor,
    known: Tensor | None = None,
    distribution: Distribution = "laplace",
) -> Tensor:
    """Mean of -log p of tracked landmarks against the true ones, given log-variances (..., 6) of regions.

    error (..., L, 2) tracked less true, in crop units; regions (L,) as `regions.LANDMARK_REGIONS`; known (..., L) bool:
    which to include, all if None. 0 if none. Others may be nan.
    """
    of_points = log_variance.index_select(-1, regions.to(log_variance.device))[..., None]
    if known is None:
        return negative_log_likelihood(error, of_points, distribution).mean()
    counted = known[..., None].expand_as(error)
    cost = negative_log_likelihood(torch.where(counted, error, 0.0), of_points, distribution)
    return torch.where(counted, cost, 0.0).sum() / counted.sum().clamp_min(1)
