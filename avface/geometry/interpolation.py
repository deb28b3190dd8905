"""Interpolation between two values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from avface.arrays import Floats

if TYPE_CHECKING:
    from torch import Tensor


@overload
def smoothstep(low: float, high: float, values: Tensor) -> Tensor: ...
@overload
def smoothstep(low: float, high: float, values: Floats) -> Floats: ...
def smoothstep(low: float, high: float, values: Any) -> Any:
    """Hermite interpolation s^2 (3 - 2 s) of s = (values - low) / (high - low), clipped to [0, 1].

    0 up to low, 1 from high on, with slope 0 at both; decreasing if low > high. Element by element, in the precision of
    the values.

    Raises:
        ValueError: if low and high are equal.
    """
    if low == high:
        raise ValueError(f"low={low} and high={high} must differ")
    share = ((values - low) / (high - low)).clip(0, 1)
    return share * share * (3 - 2 * share)
