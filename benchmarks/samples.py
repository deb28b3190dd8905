"""Repeated measurements, told as a median with its spread."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def spread(values: Sequence[float], style: str = ".1f") -> str:
    """The median, and in brackets the smallest and the largest value."""
    return f"{median(values):{style}} ({min(values):{style}}-{max(values):{style}})"


def as_json(values: Sequence[float]) -> dict[str, float]:
    """The same for machines."""
    return {"median": median(values), "min": min(values), "max": max(values)}
