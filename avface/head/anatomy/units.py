"""Direction and amplitude of expression units, held against figures of another head whose units are from scans."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib import resources

import numpy as np

from avface.arrays import F64
from avface.head.model import HeadModel

LANDMARKS = {
    "chin": 8,
    "brow_outer_right": 17,
    "brow_mid_right": 19,
    "brow_inner_right": 21,
    "brow_inner_left": 22,
    "brow_mid_left": 24,
    "brow_outer_left": 26,
    "nostril_right": 31,
    "nose_base": 33,
    "nostril_left": 35,
    "upper_lid_right": 37,
    "lower_lid_right": 41,
    "upper_lid_left": 44,
    "lower_lid_left": 46,
    "mouth_corner_right": 48,
    "upper_lip_side_right": 50,
    "upper_lip_mid": 51,
    "upper_lip_side_left": 52,
    "mouth_corner_left": 54,
    "lower_lip_side_left": 56,
    "lower_lip_mid": 57,
    "lower_lip_side_right": 58,
    "inner_upper_lip": 62,
    "inner_lower_lip": 66,
}
"""The named points of the figures, in iBUG's numbers."""
REFERENCE_POINTS = tuple(LANDMARKS)
"""Their names, in the figures' order."""
EYE_CORNERS, EYE_CORNERS_APART = (36, 45), 0.089
"""The eyes' outer corners, in iBUG's numbers, and metres between them on the head of the figures."""


@dataclass(frozen=True, eq=False)
class UnitFigures:
    """Metres (U, 24, 3) by which the points of `LANDMARKS` move under U units at weight 1."""

    names: tuple[str, ...]
    moves: F64


def reference_figures() -> UnitFigures:
    """Those of the mean head of ICT FaceKit (MIT licence; see the file)."""
    text = resources.files(__package__).joinpath("reference_units.csv").read_text("utf-8")
    rows = list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))
    names = tuple(dict.fromkeys(row["unit"] for row in rows))
    moves = np.zeros((len(names), len(REFERENCE_POINTS), 3))
    for row in rows:
        moves[names.index(row["unit"]), REFERENCE_POINTS.index(row["point"])] = [
            float(row[f"{axis}_mm"]) / 1000 for axis in "xyz"
        ]
    kept = np.abs(moves).max((1, 2)) > 0
    return UnitFigures(tuple(name for name, keep in zip(names, kept, strict=True) if keep), moves[kept])


def own_figures(head: HeadModel) -> UnitFigures:
    """The same of a head's mean face, at the size of the figures' head; of the units that have figures.

    Raises:
        AvfaceError: if the head has no landmarks `ibug68`.
    """
    embedding = head.embedding("ibug68")
    template = head.template.cpu().double().numpy()
    points = embedding.on(template)
    first, second = EYE_CORNERS
    scale = EYE_CORNERS_APART / float(np.linalg.norm(points[first] - points[second]))
    known = reference_figures().names
    units = [k for k, name in enumerate(head.expression_names) if name in known and k not in head.joint_units]
    basis = head.expression_basis[units].cpu().double().numpy()
    moves = scale * embedding.on(basis)[:, list(LANDMARKS.values())]
    return UnitFigures(tuple(head.expression_names[k] for k in units), moves)


@dataclass(frozen=True)
class UnitMatch:
    """A unit against the figures.

    cosine: of its moves with the figures' of the same name; amplitude: ratio of their norms; nearest: name of the unit
    whose figures have the largest cosine with it, nearest_cosine.
    """

    name: str
    cosine: float
    amplitude: float
    nearest: str
    nearest_cosine: float


def compare_units(own: UnitFigures, figures: UnitFigures) -> list[UnitMatch]:
    """Each unit of own, which all have figures, against the figures of its name and of all others."""
    ours, theirs = (each.moves.reshape(len(each.names), -1) for each in (own, figures))
    sizes = np.linalg.norm(ours, axis=1), np.linalg.norm(theirs, axis=1)
    cosines = ours @ theirs.T / np.maximum(np.outer(*sizes), 1e-12)
    result = []
    for row, name in enumerate(own.names):
        column, best = figures.names.index(name), int(cosines[row].argmax())
        result.append(
            UnitMatch(
                name,
                float(cosines[row, column]),
                float(sizes[0][row] / sizes[1][column]),
                figures.names[best],
                float(cosines[row, best]),
            )
        )
    return result
