"""A clamp with a gradient outside its bounds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


class _ClampInwards(torch.autograd.Function):
    """See `clamp_inwards`."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, low: float, high: float) -> Tensor:
        ctx.save_for_backward(values)
        ctx.low, ctx.high = low, high
        return values.clamp(low, high)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (values,) = ctx.saved_tensors
        # gradient descent moves against the gradient
        outwards = ((values < ctx.low) & (gradient > 0)) | ((values > ctx.high) & (gradient < 0))
        return gradient.masked_fill(outwards, 0), None, None


def clamp_inwards(values: Tensor, low: float, high: float) -> Tensor:
    """Values clamped to [low, high], with a gradient outside wherever descent leads back inside.

    An ordinary clamp has no gradient outside, so that values beyond a bound never return. A sigmoid reaches 0 only at
    infinity, while most expression units are 0 most of the time.
    """
    clamped: Tensor = _ClampInwards.apply(values, low, high)
    return clamped
