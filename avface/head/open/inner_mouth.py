"""Where teeth and tongue lie behind the lips.

MakeHuman's teeth are a guide for clothes-like assets and its tongue lies before them: in an open mouth the tongue shows
where teeth should. Here the teeth come forward to the lips, their arches get narrower, the ends of the lower one
sink to where cheeks hide them, and the tongue lies lower, behind the teeth. Judged by eye on pictures of open mouths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from avface.arrays import F64, Int


@dataclass(frozen=True)
class InnerMouthConfig:
    """Lengths in metres."""

    arch_width: float = 0.85
    """Width of both arches of teeth, as a share of MakeHuman's."""
    forward: float = 0.009
    """By how much teeth come forward: to 2 mm behind the lips."""
    upper_down: float = 0.003
    """By how much the upper teeth come down: their edges show under the upper lip when the mouth opens."""
    lower_slope: float = 0.35
    """How much lower the lower teeth are a metre further back."""
    tongue_size: float = 0.9
    """Size of the tongue as a share of MakeHuman's."""
    tongue_down: float = 0.008
    tongue_forward: float = 0.008
    """By how much its root moves: its tip is then 5 mm behind the teeth."""


def settled(points: F64, rows: Mapping[str, Int], config: InnerMouthConfig | None = None) -> F64:
    """Points (V, 3) of a head at rest, metres, x to the left, y up, z to the front, with teeth and tongue in place.

    rows: the vertices of "upper_teeth", "lower_teeth" and "tongue".
    """
    config = config or InnerMouthConfig()
    moved = points.copy()
    for part in ("upper_teeth", "lower_teeth"):
        moved[rows[part], 0] *= config.arch_width
        moved[rows[part], 2] += config.forward
    moved[rows["upper_teeth"], 1] -= config.upper_down
    depth = points[rows["lower_teeth"], 2]
    moved[rows["lower_teeth"], 1] -= config.lower_slope * (depth.max() - depth)
    tongue = points[rows["tongue"]]
    root = np.array([0.0, tongue[:, 1].min(), tongue[:, 2].min()])
    moved[rows["tongue"]] = root + config.tongue_size * (tongue - root)
    moved[rows["tongue"]] += [0.0, -config.tongue_down, config.tongue_forward]
    return moved
