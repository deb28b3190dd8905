"""Names of ARKit's expression units: stems, and the sides of the face."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from avface.arrays import Int

_WHOLE = ("jawLeft", "jawRight", "mouthLeft", "mouthRight")
"""Units without halves, though their names end like those of halves. Each is the mirror image of another."""


def unit_stem(name: str) -> str:
    """A unit's name without the side of the face: browDown of browDownLeft."""
    return name if name in _WHOLE else name.removesuffix("Left").removesuffix("Right")


def unit_side(name: str) -> str:
    """Left or Right of the units of one half of the face, else nothing."""
    return name[len(unit_stem(name)) :]


def mirrored_units(names: Sequence[str]) -> Int:
    """(E,) number of the unit that is the mirror image of each; its own for those of both sides."""
    other = {"Left": "Right", "Right": "Left"}
    numbers = {name: number for number, name in enumerate(names)}

    def mirror(name: str) -> str:
        ending = next((side for side in other if name.endswith(side)), "")
        return name.removesuffix(ending) + other.get(ending, "")

    return np.array([numbers.get(mirror(name), number) for name, number in numbers.items()], np.int64)
