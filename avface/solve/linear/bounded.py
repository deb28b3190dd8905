"""Newton steps within bounds."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def bounded_newton_step(
    solve: Callable[[Tensor, Tensor], Tensor],
    multiply: Callable[[Tensor], Tensor],
    gradient: Tensor,
    low: Tensor,
    high: Tensor,
    side: Tensor,
    rounds: int = 3,
) -> tuple[Tensor, Tensor]:
    """Minimise gradient . d + 1/2 d . H d over low <= d <= high, all of shape (...).

    Args:
        solve: (right, held) -> d with d = 0 where held and H d = right elsewhere.
        multiply: d -> H d.
        gradient: at d = 0.
        low: lower bounds of the step, -inf where there is none.
        high: upper bounds of the step, inf where there is none.
        side: first guess of the active set: -1 at the lower bound, 1 at the upper one, 0 free (int8).
        rounds: most changes of the active set.

    Returns:
        The step, and the active set for a warm start. After the last round the step is clamped to the bounds.

    Source: primal-dual active set method (Hintermueller, Ito & Kunisch 2002): unknowns that would leave their bounds
    are held there, held ones of the wrong multiplier sign are freed. Each round costs one linear solve.
    """
    zero = torch.zeros_like(gradient)
    step = zero
    for _ in range(rounds):
        held = side != 0
        fixed = torch.where(side < 0, low, torch.where(side > 0, high, zero))
        step = solve((-gradient - multiply(fixed)).masked_fill(held, 0), held) + fixed
        slope = gradient + multiply(step)
        changed = side.masked_fill((side < 0) & (slope < 0) | (side > 0) & (slope > 0), 0)
        changed = changed.masked_fill(~held & (step < low), -1).masked_fill(~held & (step > high), 1)
        if torch.equal(changed, side):
            break
        side = changed
    return step.clamp(low, high), side
