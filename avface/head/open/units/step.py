"""Expression units of brows, cheeks, nose and mouth as Apple's documentation describes them.

Those of eyes and lids, jawOpen, mouthClose and tongueOut are others' steps.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from avface.arrays import F64, Bool
from avface.geometry.interpolation import smoothstep
from avface.geometry.mesh import triangulate
from avface.head.anatomy.units import REFERENCE_POINTS, reference_figures
from avface.head.open.deformation import SmoothFields
from avface.head.open.draft import Draft
from avface.head.open.units.corrections import STEERING, Steering
from avface.head.open.units.named_points import (
    LEFT,
    LID_RING,
    UPPER_LID,
    NamedPoints,
    distance_to_lids,
    eye_cavities,
    find_points,
    head_scale,
    mirrored_vertices,
)

LID_RIM = (0.003, 0.007)
"""Distances from the lids' margin up to which skin slides on the eyeball, and from which on it moves freely; metres."""


@dataclass(frozen=True)
class UnitConfig:
    """Parameters of the units' fields."""

    reach: float = 0.022
    """How far a movement spreads where nothing else steers it, metres."""
    stiffness: float = 4.0
    """How closely handles are followed."""
    lid_margin: float = 0.004
    """Skin around the margin of the lids that only the lids' own units move, metres."""
    cavity_depth: float = 0.016
    """How far inside the lips' inner edge the cavity of the mouth follows, metres."""
    still: float = 0.00003
    """Movement below which a vertex is held at 0, metres."""


def units(draft: Draft, config: UnitConfig | None = None) -> Draft:
    """The draft with the expression units of `STEERING` in place of MakeHuman's."""
    fields = UnitFields(draft, config)
    expression = draft.expression.copy()
    for name, steering in STEERING.items():
        field = fields.of(name, steering)
        expression[draft.unit(name)] = field
        if name.endswith("Left"):
            expression[draft.unit(name.replace("Left", "Right"))] = fields.reflected(field)
    return replace(draft, expression=expression)


class UnitFields:
    """Computes the offsets of units from their handles."""

    def __init__(self, draft: Draft, config: UnitConfig | None = None) -> None:
        self._draft = draft
        self._config = config or UnitConfig()
        self._figures = reference_figures()
        self._points = find_points(draft)
        self._mirror = mirrored_vertices(draft)
        flesh = np.isin(draft.parts, ("skin", "mouth_cavity"))
        self._fields = SmoothFields(draft.template, triangulate(draft.quads[flesh]), self._config.reach)
        self._scale = head_scale(draft.template, self._points) / 1000

    def of(self, name: str, steering: Steering) -> F64:
        """(V, 3) offsets at weight 1 of a unit with these handles; symmetric where the unit has no side."""
        moves = 1000 * self._figures.moves[self._figures.names.index(name)]
        targets = {point: steering.gain * value for point, value in zip(REFERENCE_POINTS, moves, strict=True)}
        for point, value in steering.points.items():
            if point in LEFT:
                targets[f"{point}_left"] = np.array(value)
                targets[f"{point}_right"] = np.array(value) * [-1, 1, 1]
            else:
                targets[point] = np.array(value)
        points = self._points
        chosen = [points.names.index(point) for point in targets]
        held = held_vertices(self._draft, points, steering.area, self._config)
        field = self._fields.solve(
            points.vertices[chosen],
            points.weights[chosen],
            self._scale * np.stack(list(targets.values())),
            held,
            self._config.stiffness,
        )
        if steering.area == "cheek":
            field = _over_eyeballs(self._draft, points, field)
        still = self._config.still
        field = field * smoothstep(still, 5 * still, np.linalg.norm(field, axis=1))[:, None]
        return field if name.endswith("Left") else (field + self.reflected(field)) / 2

    def reflected(self, field: F64) -> F64:
        """Offsets (V, 3) of the mirrored unit."""
        return field[self._mirror] * [-1, 1, 1]


def held_vertices(draft: Draft, points: NamedPoints, area: str, config: UnitConfig) -> Bool:
    """(V,) what a unit of an area doesn't move: always the back of the head, ears and the depth of the mouth's cavity;
    "brows": also all below the eyes; "mouth": all above the lower lids; "cheek", "sneer": only the lids' margins
    (sneer: the upper lids); "jaw": as mouth, but the neck follows.
    """
    template, regions = draft.template, draft.regions
    held = regions["ears"] | (template[:, 2] < 0.0) & ~regions["neck"]
    held |= regions["scalp"] & (template[:, 1] > 0.085)
    lowest = template[draft.rows("skin"), 1].min()
    held |= template[:, 1] < lowest + 0.012
    rim = np.intersect1d(draft.rows("skin"), draft.rows("mouth_cavity"))
    cavity = np.setdiff1d(draft.rows("mouth_cavity"), rim)
    distance = np.linalg.norm(template[cavity][:, None] - template[rim][None], axis=2).min(1)
    held[cavity[distance > config.cavity_depth]] = True
    held |= eye_cavities(draft, points)
    lids = distance_to_lids(draft, points, UPPER_LID if area == "cheek" else LID_RING)
    held |= (lids < config.lid_margin).any(1)
    if area == "brows":
        held |= template[:, 1] < -0.012
    elif area in ("mouth", "jaw"):
        held |= template[:, 1] > -0.006
    return held


def _over_eyeballs(draft: Draft, points: NamedPoints, field: F64) -> F64:
    """The field (V, 3) turned so that the lids keep their distance from the eyeball's centre."""
    result = field.copy()
    for k, share in enumerate(lid_shares(draft, points).T):
        offset = draft.template - draft.eye_centres[0, k]
        radius = np.linalg.norm(offset, axis=1)
        moved = offset + field
        over = moved * (radius / np.linalg.norm(moved, axis=1))[:, None] - offset
        result += share[:, None] * (over - field)
    return result


def lid_shares(draft: Draft, points: NamedPoints) -> F64:
    """(V, 2) how much of the left and right lids' margins a vertex is: 1 near them, 0 from 7 mm on."""
    return smoothstep(LID_RIM[1], LID_RIM[0], distance_to_lids(draft, points))
