"""A clamp that never leaves a number stuck outside."""

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
        # descent goes against the gradient
        outwards = ((values < ctx.low) & (gradient > 0)) | ((values > ctx.high) & (gradient < 0))
        return gradient.masked_fill(outwards, 0), None, None


def clamp_inwards(values: Tensor, low: float, high: float) -> Tensor:
    """Values cut off at low and high, whose gradient still passes where it leads back inside.

    An ordinary clamp has no gradient outside: what has once gone too far never comes back. A sigmoid reaches 0 only at
    infinity, while most expression units are 0 most of the time. Descent through this one stops at the bounds and
    nowhere else.
    """
    clamped: Tensor = _ClampInwards.apply(values, low, high)
    return clamped
