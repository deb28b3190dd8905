"""Corrections of a unit that keep lips and cheeks before the teeth, and off each other."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64
from avface.geometry.interpolation import smoothstep
from avface.head.open.draft import Draft
from avface.head.open.mouth.config import MouthConfig
from avface.head.open.mouth.jaw import JawMotion
from avface.head.open.mouth.placement import bite_of
from avface.head.open.mouth.rings import CONTACT, Rings, lip_orders
from avface.head.open.mouth.teeth import OVERBITE, arches

TEETH_GAP = 0.0009
"""Least distance of lips and cheeks from the teeth under a unit; metres."""
LIP_DEPTH = 0.004
"""Distance along z up to which lips that cross touch, rather than pass before each other; metres."""
LEAST_SPACING = 0.75
"""Least distance in height of the cavity's rings under a unit, as a share of that at rest."""


def out_of_teeth(draft: Draft, rings: Rings, config: MouthConfig, offsets: F64, jaw: JawMotion | None) -> F64:
    """Corrections (V, 3) that bring lips and cavity, displaced by offsets (V, 3), before the teeth."""
    bite = bite_of(draft, rings, config)
    result = np.zeros_like(offsets)
    rows = np.concatenate([rings[k] for k in range(-3, 4)])
    rest = draft.template[rows]
    places = 1e3 * (rest + offsets[rows] - bite)
    back = 1e3 * jaw(rest + offsets[rows]) if jaw else np.zeros_like(places)
    for arch, moved, side in zip(arches(), (np.zeros_like(places), back), (1.0, -1.0), strict=True):
        distance, front = arch.surface.outside(places - moved)
        level = side * ((places - moved)[:, 1] - (0.0 if side > 0 else OVERBITE))
        near = smoothstep(-4.0, -2.0, level) * smoothstep(-10.0, -7.0, -level)
        depth = np.maximum(1e3 * TEETH_GAP - distance, 0) * near
        result[rows] += 1e-3 * depth[:, None] * front
    return result


def apart(draft: Draft, rings: Rings, offsets: F64) -> F64:
    """Corrections (V, 3) that part lips which, displaced by offsets (V, 3), go through each other."""
    result = np.zeros_like(offsets)
    upper, lower = lip_orders(rings)
    for ring in range(CONTACT + 4):
        rows = rings[ring]
        place = draft.template[rows] + offsets[rows]
        for own, other, side in ((upper, lower, 1.0), (lower, upper, -1.0)):
            opposite = [np.interp(place[own, 0], place[other, 0], place[other, k]) for k in (1, 2)]
            into = side * (opposite[0] - place[own, 1])
            facing = np.abs(opposite[1] - place[own, 2]) < LIP_DEPTH
            result[rows[own], 1] += side * 0.5 * np.maximum(into, 0) * facing
    return result


def spread(draft: Draft, rings: Rings, offsets: F64) -> F64:
    """Corrections (V, 3) that keep the cavity's rings apart in height, where offsets (V, 3) would fold its walls."""
    result = np.zeros_like(offsets)
    rest = draft.template[:, 1]
    side = np.where(rings.upper, 1.0, -1.0)
    for ring in range(0, 7):
        near, far = rings[-ring], rings[-ring - 1]
        spacing = side * (rest[far] - rest[near])
        moved = spacing + side * (offsets[far, 1] + result[far, 1] - offsets[near, 1] - result[near, 1])
        wide = spacing > 0.0015
        result[far, 1] += side * wide * np.maximum(LEAST_SPACING * spacing - moved, 0)
    return result
