"""What each expression unit mainly does, in words and millimetres, beside the figures of the other head."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from avface.arrays import F64
from avface.head.anatomy.units import REFERENCE_POINTS, compare_units, own_figures, reference_figures
from avface.head.model import HeadModel

LEAST_COSINE = 0.5
"""With the figures' move of the same point: within 60 degrees of it is the right direction."""
SIGNED, UNSIGNED = 0.001, 0.003
"""Metres: from the first on, the mouth's change of width or protrusion in the figures has a sign that ours must have;
below it, ours must be smaller than the second."""


@dataclass(frozen=True, eq=False)
class UnitMove:
    """A unit's main movement at weight 1, on the mean face at the size of the figures' head.

    point: the one of `REFERENCE_POINTS` that moves most; move, figures: metres (3,) by which it moves, and by which the
    figures do, x to the subject's left, y up, z forward; direction: of move, in words; cosine, amplitude: of all points
    (see `UnitMatch`); width, protrusion: metres by which the mouth's corners part and the middles of the lips come
    forward, own and the figures'; None but for units of the mouth. right: whether the points that move most here and in
    the figures move as in the figures, and the mouth widens and protrudes as there (see `SIGNED`).
    """

    name: str
    point: str
    move: F64
    figures: F64
    direction: str
    cosine: float
    amplitude: float
    width: tuple[float, float] | None
    protrusion: tuple[float, float] | None
    right: bool

    def cells(self) -> list[str]:
        """The row of a table, below `HEADINGS`."""
        sizes = [f"{1000 * np.linalg.norm(move):.1f}" for move in (self.move, self.figures)]
        mouth = [
            f"{1000 * value:+.1f}" if pair else "-"
            for pair in (self.width, self.protrusion)
            for value in pair or (0.0, 0.0)
        ]
        match = [f"{self.cosine:.2f}", f"{self.amplitude:.2f}"]
        verdict = "ok" if self.right else "WRONG"
        return [self.name, self.point.replace("_", " "), self.direction, *sizes, *match, *mouth, verdict]

    def facts(self) -> dict[str, Any]:
        """The same as JSON values, in millimetres."""
        mouth = {
            f"{key}_mm": [1000 * value for value in pair]
            for key, pair in (("width", self.width), ("protrusion", self.protrusion))
            if pair
        }
        return {
            "unit": self.name,
            "point": self.point,
            "move_mm": (1000 * self.move).tolist(),
            "figures_mm": (1000 * self.figures).tolist(),
            "direction": self.direction,
            "cosine": self.cosine,
            "amplitude": self.amplitude,
            **mouth,
            "right": self.right,
        }


HEADINGS = [
    "unit",
    "moves most",
    "direction",
    "mm",
    "figures",
    "cosine",
    "amplitude",
    "wider, mm",
    "figures",
    "forward, mm",
    "figures",
    "right",
]


def unit_moves(head: HeadModel) -> list[UnitMove]:
    """The main movements of a head's units that have figures, in its order.

    Raises:
        AvfaceError: if the head has no landmarks `ibug68`.
    """
    own, figures = own_figures(head), reference_figures()
    result = []
    for moves, match in zip(own.moves, compare_units(own, figures), strict=True):
        theirs = figures.moves[figures.names.index(match.name)]
        main, their_main = (int(np.linalg.norm(each, axis=1).argmax()) for each in (moves, theirs))
        width, protrusion = ((each(moves), each(theirs)) for each in (_widening, _protrusion))
        of_mouth = match.name.startswith("mouth")
        right = all(_along(moves[point], theirs[point]) for point in (main, their_main)) and (
            not of_mouth or all(_same_change(*pair) for pair in (width, protrusion))
        )
        result.append(
            UnitMove(
                match.name,
                REFERENCE_POINTS[main],
                moves[main],
                theirs[main],
                _words(moves, main),
                match.cosine,
                match.amplitude,
                width if of_mouth else None,
                protrusion if of_mouth else None,
                right,
            )
        )
    return result


def _along(move: F64, figures: F64) -> bool:
    return float(move @ figures) > LEAST_COSINE * float(np.linalg.norm(move) * np.linalg.norm(figures))


def _same_change(own: float, figures: float) -> bool:
    return own * figures > 0 if abs(figures) >= SIGNED else abs(own) < UNSIGNED


def _widening(moves: F64) -> float:
    left, right = REFERENCE_POINTS.index("mouth_corner_left"), REFERENCE_POINTS.index("mouth_corner_right")
    return float(moves[left, 0] - moves[right, 0])


def _protrusion(moves: F64) -> float:
    return float(
        moves[[REFERENCE_POINTS.index("upper_lip_mid"), REFERENCE_POINTS.index("lower_lip_mid")], 2].mean()
    )


def _words(moves: F64, main: int) -> str:
    """The parts of a move that are at least half of it, the largest first.

    A point of one side moves outwards or inwards, unless its mirror image moves to the same side with it.
    """
    name, move = REFERENCE_POINTS[main], moves[main]
    size = float(np.linalg.norm(move))
    if not size:
        return "none"
    x = float(move[0])
    sideways = "to the left" if x > 0 else "to the right"
    if name.endswith(("_left", "_right")):
        base, _, side = name.rpartition("_")
        mirrored = REFERENCE_POINTS.index(f"{base}_{'right' if side == 'left' else 'left'}")
        if moves[mirrored, 0] * np.sign(x) < abs(x) / 4:
            sideways = "outwards" if (x > 0) == (side == "left") else "inwards"
    words = (sideways, "up" if move[1] > 0 else "down", "forward" if move[2] > 0 else "back")
    order = np.argsort(-np.abs(move), kind="stable")
    return ", ".join(words[axis] for axis in order if abs(move[axis]) >= size / 2)
