"""Repeated measurements as median and range."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from avface.errors import AvfaceError


def spread(values: Sequence[float], style: str = ".1f") -> str:
    """Median (minimum-maximum) as text."""
    return f"{median(values):{style}} ({min(values):{style}}-{max(values):{style}})"


def as_json(values: Sequence[float]) -> dict[str, float]:
    """Median, minimum and maximum for JSON."""
    return {"median": median(values), "min": min(values), "max": max(values)}


def check_positive(options: object, *names: str) -> None:
    """Refuse options, numbers or tuples of numbers, that aren't above 0.

    Raises:
        AvfaceError: with the first such option.
    """
    for name in names:
        value = getattr(options, name)
        if not all(number > 0 for number in (value if isinstance(value, tuple) else (value,))):
            raise AvfaceError(f"{name}={value}: must be above 0")
