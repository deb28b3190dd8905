"""Lips that meet at rest for every person, and under units that leave shut lips shut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from avface.arrays import F64
from avface.geometry.interpolation import smoothstep
from avface.head.open.draft import Draft
from avface.head.open.mouth.rings import CONTACT, Rings, harmonic, lip_orders

LIP_GAP = 0.00006
"""What is left between the lips at rest, so that rounding doesn't let them through each other; metres."""
LIP_STEP = 0.0007
"""How far the line between the lips rises behind their contact, so that one doesn't see through; metres."""
REST_SHARES = {CONTACT: 1.0, CONTACT + 1: 0.0}
SHAPE_SHARES = {0: 0.95, CONTACT: 1.0, CONTACT + 1: 1.0, CONTACT + 2: 0.95}
"""How much of the difference between both lips is taken from a shape component, by ring."""
SHUT_UNITS = (
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthPucker",
    "mouthLeft",
    "mouthRight",
    "cheekPuff",
)
"""Units that leave shut lips shut."""


def seal(draft: Draft, rings: Rings) -> Draft:
    """The draft with lips that meet at rest, for any shape weights."""
    template = draft.template + _Closing(draft, rings, REST_SHARES).correction(draft.template)
    for ring in (CONTACT, CONTACT + 1):
        template[rings[ring], 1] += LIP_GAP / 2 * (1.0 * rings.upper - rings.lower)
    upper, lower = lip_orders(rings)
    behind, contact = rings[0], rings[CONTACT]
    inside = lower[1:-1]
    template[behind[inside], 1] = np.maximum(
        template[behind[inside], 1], template[contact[inside], 1] + LIP_STEP
    )
    below = np.interp(template[behind[upper], 0], template[behind[lower], 0], template[behind[lower], 1])
    template[behind[upper], 1] = np.maximum(
        template[behind[upper], 1], below + LIP_STEP / 2 * rings.upper[upper]
    )
    shape = draft.shape + _Closing(draft, rings, SHAPE_SHARES).correction(draft.shape)
    return replace(draft, template=template, shape=shape)


def seal_units(draft: Draft, rings: Rings) -> Draft:
    """The draft with lips that meet under the units that leave shut lips shut."""
    correction = closing(draft, rings)
    expression = draft.expression.copy()
    for name in SHUT_UNITS:
        expression[draft.unit(name)] += correction(expression[draft.unit(name)])
    return replace(draft, expression=expression)


def closing(draft: Draft, rings: Rings) -> Callable[[F64], F64]:
    """The linear function from offsets (..., V, 3) to the corrections (..., V, 3) that leave shut lips shut."""
    return _Closing(draft, rings, REST_SHARES).correction


class _Closing:
    """The linear map from positions or offsets of the lips to the corrections that bring both lips onto one curve.

    shares: how much of the difference is taken, on the ring of the contact and on those before it; at the corners all
    of it is taken on the first two.
    """

    CORNER = (0.68, 0.85)
    """Shares of the mouth's half width between which the ring before the contact begins to touch as well."""
    REACH = (-3, 8)
    """Rings at which the corrections are 0."""

    def __init__(self, draft: Draft, rings: Rings, shares: dict[int, float]) -> None:
        fixed: dict[int, F64] = {}  # vertex: row over all vertices of the rings
        columns = np.arange(rings.loops.shape[1])
        self._sources = np.concatenate([rings[ring] for ring in shares])
        count = len(columns)
        for number, (ring, least) in enumerate(shares.items()):
            x = draft.template[rings[ring], 0]
            half = np.abs(x[[0, rings.left]]).mean()
            upper, lower = lip_orders(rings)
            knots = np.zeros(
                (len(lower), len(shares) * count)
            )  # the coarser lip's, so that both are one polyline
            for knot, column in enumerate(lower):
                knots[knot, number * count + upper] += _interpolation(x[column], x[upper]) / 2
                knots[knot, number * count + column] += 0.5
            for column in columns:
                row = _interpolation(x[column], x[lower]) @ knots
                row[number * count + column] -= 1
                corner = (
                    float(smoothstep(*self.CORNER, abs(x[column]) / half)) if ring == CONTACT + 1 else 0.0
                )
                share = max(least, corner)
                if share > 0:
                    fixed[int(rings[ring][column])] = share * row
        low, high = self.REACH
        inside = [rings[k] for k in range(low + 1, high)]
        zero = np.concatenate([rings[low], rings[high]])
        self._moved, self._matrix = harmonic(draft, np.concatenate(inside), fixed, zero)

    def correction(self, points: F64) -> F64:
        """Corrections (..., V, 3) of points or offsets (..., V, 3)."""
        result = np.zeros_like(points)
        result[..., self._moved, :] = self._matrix @ points[..., self._sources, :]
        return result


def _interpolation(at: float, knots: F64) -> F64:
    """Weights of the knots (rising) for a linear interpolation at a place."""
    return np.array([np.interp(at, knots, unit) for unit in np.eye(len(knots))])
