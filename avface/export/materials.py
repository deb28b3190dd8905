"""Plain physically based materials for the parts of a head."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Material:
    """A dielectric with a uniform colour."""

    name: str
    """Name in the file."""
    colour: tuple[float, float, float]
    """Linear RGB, 0 to 1."""
    roughness: float
    """0 (specular) to 1 (diffuse)."""


SKIN = Material("skin", (0.56, 0.33, 0.24), 0.55)

_BY_PART = (  # the first key contained in a part's name decides, so "iris" comes before "eye"
    ("pupil", Material("pupil", (0.004, 0.004, 0.004), 0.1)),
    ("iris", Material("iris", (0.10, 0.055, 0.03), 0.15)),
    ("eye", Material("sclera", (0.78, 0.75, 0.71), 0.2)),
    ("teeth", Material("teeth", (0.76, 0.70, 0.58), 0.25)),
    ("tongue", Material("tongue", (0.42, 0.11, 0.10), 0.4)),
    ("mouth", Material("mouth", (0.18, 0.04, 0.035), 0.5)),
)


def part_material(part: str) -> Material:
    """The material of a part by its name ("left_iris", "upper_teeth", ...); skin by default."""
    return next((material for word, material in _BY_PART if word in part), SKIN)
