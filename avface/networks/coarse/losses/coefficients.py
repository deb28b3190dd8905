"""Losses and exchanges on the codes themselves, without any truth."""

from __future__ import annotations

import torch
from torch import Tensor


def swap_within_windows(shape: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Shape consistency: shape codes (B, T, S), exchanged at random among the frames of each window.

    There is no distance between codes in it. All frames of a window show one person, so that every other loss, computed
    again with another frame's shape, must come out as low: add the two. It becomes worthless to explain a
    frame's pose or expression by its shape.
    Source: DECA (Feng et al. 2021), `trainer`, which exchanges shapes among pictures of a person.
    """
    order = torch.rand(shape.shape[:2], generator=generator).argsort(1).to(shape.device)
    return shape.gather(1, order[..., None].expand_as(shape))


def coefficient_loss(coefficients: Tensor) -> Tensor:
    """Mean over frames of sum_k c_k^2 / 2: shape, albedo or expression (..., K) in standard deviations near average.

    It is minus the logarithm of their normal distribution. DECA sums over the batch too, so that its weight of 1e-4
    means more in larger batches; with the mean over frames, 3e-3 is what it amounts to in its release (32 pictures).
    Source: DECA, `trainer`.
    """
    return coefficients.square().sum(-1).mean() / 2


def white_light_loss(light: Tensor) -> Tensor:
    """Mean of (l - mean over RGB of l)^2: light (..., 9, 3) near white, so that skin keeps its own colour.

    Source: DECA, `trainer` (weight 1; EMOCA 12).
    """
    return (light - light.mean(-1, keepdim=True)).square().mean()
