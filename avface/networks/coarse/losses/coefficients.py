"""Regularisers of the codes, without ground truth."""

from __future__ import annotations

import torch
from torch import Tensor


def swap_within_windows(shape: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Shape consistency: shape codes (B, T, S), randomly permuted among the frames of each window.

    All frames of a window show one person, so that the other losses, computed again with another frame's shape and
    added, should be as low. A shape that explains a frame's pose or expression doesn't lower them.
    Source: DECA (Feng et al. 2021), `trainer`, which permutes shapes among pictures of a person.
    """
    order = torch.rand(shape.shape[:2], generator=generator).argsort(1).to(shape.device)
    return shape.gather(1, order[..., None].expand_as(shape))


def coefficient_loss(coefficients: Tensor) -> Tensor:
    """Mean over frames of sum_k c_k^2 / 2, of shape, albedo or expression (..., K) in standard deviations.

    It is the negative log-likelihood of the standard normal distribution. DECA sums over the batch, so that its weight
    of 1e-4 depends on the batch size; with the mean over frames it corresponds to 3e-3 in its release (32 pictures).
    Source: DECA, `trainer`.
    """
    return coefficients.square().sum(-1).mean() / 2


def white_light_loss(light: Tensor) -> Tensor:
    """Mean of (l - mean over RGB of l)^2 of light (..., 9, 3); it leaves the colour of skin to albedo.

    Source: DECA, `trainer` (weight 1; EMOCA 12).
    """
    return (light - light.mean(-1, keepdim=True)).square().mean()
