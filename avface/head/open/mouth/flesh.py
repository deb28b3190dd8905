"""Units that draw lips in over the teeth, by the thickness of the person's lips."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from avface.arrays import F64
from avface.geometry.interpolation import smoothstep
from avface.head.open.draft import Draft, PersonTerms
from avface.head.open.mouth.config import MouthConfig
from avface.head.open.mouth.placement import bite_of, lip_fit
from avface.head.open.mouth.rings import CONTACT, mouth_rings
from avface.head.open.mouth.sealing import closing
from avface.head.open.mouth.teeth import OVERBITE, arches

UNITS = ("mouthRollLower", "mouthRollUpper")
"""Units that draw lips in over the teeth."""
TERMS = 4
"""Number of ways in which the thickness of the lips differs between people."""
CAVITY = 0.0015
"""Distance of the mouth's cavity from the teeth; metres."""
LEAST_THICKNESS = 0.0035
"""Of a thinner place of the mean lips so much is assumed; metres."""
REACH = (0.016, 0.028)
"""Distances from the lips' contact between which the terms fade; metres."""
STILL = 0.000005
"""Offsets below this are left out, metres."""


def press_by_thickness(draft: Draft, config: MouthConfig | None = None) -> Draft:
    """The draft whose `UNITS` move lips towards the teeth by a share of the lips' thickness, rather than by as much in
    thin as in thick ones.

    For finished units. With D a vertex's distance from the teeth on the mean face and d its change, linear in the shape
    weights, a unit's way inwards becomes 1 + d / D times as long; of d / D over the lips the first `TERMS` principal
    components are taken.
    """
    config = config or MouthConfig()
    rings = mouth_rings(draft)
    fit, bite = lip_fit(draft, rings), bite_of(draft, rings, config)
    skin = draft.rows("skin")
    away = cKDTree(draft.template[rings[CONTACT]]).query(draft.template[skin])[0]
    skin, fade = skin[away < REACH[1]], 1 - smoothstep(*REACH, away[away < REACH[1]])
    points = draft.template[skin]
    distance, front = _distance(points - bite)
    thickness = np.maximum(distance - CAVITY, LEAST_THICKNESS)
    relative = ((draft.shape[:, skin] - fit(points)) * front).sum(2) / thickness * fade
    ways, size, modes = np.linalg.svd(relative[1:], full_matrices=False)
    weights = np.zeros((TERMS, len(draft.shape)))
    weights[:, 1:] = (ways[:, :TERMS] * size[:TERMS]).T
    seal = closing(draft, rings)
    rows = []
    for name in UNITS:
        moved = points + draft.expression[draft.unit(name), skin]
        inwards = np.maximum(distance - _distance(moved - bite)[0], 0)
        offsets = np.zeros((TERMS, *draft.template.shape))
        offsets[:, skin] = -(modes[:TERMS] * inwards)[:, :, None] * front
        offsets += seal(offsets)
        offsets[np.linalg.norm(offsets, axis=2) < STILL] = 0
        rows.append(offsets)
    terms = tuple((name,) for name in UNITS for _ in range(TERMS))
    person = PersonTerms(terms, np.tile(weights, (len(UNITS), 1)), np.concatenate(rows))
    return replace(draft, person=person.joined(draft.person))


def _distance(points: F64) -> tuple[F64, F64]:
    """Distances (N,) in metres of points (N, 3) about the bite from the arches, and the arches' directions (N, 3) to
    the front."""
    (upper, front), (lower, _) = (arch.surface.outside(1e3 * points) for arch in arches())
    share = smoothstep(OVERBITE - 1, OVERBITE + 4, 1e3 * points[:, 1])
    return 1e-3 * (share * upper + (1 - share) * lower), front
