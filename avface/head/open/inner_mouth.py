"""Placement of teeth and tongue behind the lips.

MakeHuman's teeth are proxies for assets and its tongue lies before them, so that an open mouth shows the tongue in
place of teeth. Here the teeth are moved forward to the lips, their arches narrowed, the ends of the lower arch lowered
behind the cheeks, and the tongue lowered behind the teeth. Judged by eye on pictures of open mouths.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from avface.arrays import F64, Int
from avface.errors import AvfaceError


@dataclass(frozen=True)
class InnerMouthConfig:
    """Displacements in metres, and scales."""

    arch_width: float = 0.85
    """Width of both arches of teeth, as a share of MakeHuman's."""
    forward: float = 0.009
    """Forward displacement of the teeth: to 2 mm behind the lips."""
    upper_down: float = 0.003
    """Downward displacement of the upper teeth: their edges show under the upper lip of an open mouth."""
    lower_slope: float = 0.35
    """Slope of the lower arch: downward displacement per distance behind its front."""
    tongue_size: float = 0.9
    """Size of the tongue as a share of MakeHuman's."""
    tongue_down: float = 0.008
    """Downward displacement of the tongue's root."""
    tongue_forward: float = 0.008
    """Forward displacement of the tongue's root: its tip is then 5 mm behind the teeth."""

    def __post_init__(self) -> None:
        for name in ("arch_width", "tongue_size"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")


def place_inner_mouth(points: F64, rows: Mapping[str, Int], config: InnerMouthConfig | None = None) -> F64:
    """Points (V, 3) of a neutral head, metres, x to the left, y up, z to the front, with teeth and tongue placed.

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
