"""Correctives of pairs of expression units that pull the same skin."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64
from avface.head.open.draft import Draft
from avface.head.open.named_points import find_points
from avface.head.open.units import lid_shares

SIDES = ("Left", "Right")
SATURATING = (
    ("noseSneer", "mouthSmile"),
    ("noseSneer", "mouthUpperUp"),
    ("mouthUpperUp", "mouthSmile"),
    ("mouthSmile", "mouthDimple"),
    ("mouthSmile", "mouthStretch"),
    ("cheekSquint", "mouthSmile"),
)
"""Units of one half of the face of which both pull the same skin the same way."""
ACROSS = ("noseSneer", "mouthUpperUp", "mouthLowerDown")
"""Units whose left and right one pull the middle of the lips the same way."""
SINGLE = (
    ("mouthFunnel", "mouthPucker"),
    ("mouthRollLower", "mouthShrugLower"),
    ("mouthRollUpper", "mouthShrugUpper"),
)
"""Units of the whole mouth that do so."""
STILL = 0.0001
"""Corrections below this are left out, metres."""


def unit_pairs(draft: Draft) -> Draft:
    """The draft with correctives: muscles that pull the same skin the same way don't add up, and lids that close stay
    where they meet though the cheek rises."""
    pairs = [(f"{a}{side}", f"{b}{side}") for a, b in SATURATING for side in SIDES]
    pairs += [(f"{unit}Left", f"{unit}Right") for unit in ACROSS]
    pairs += SINGLE
    offsets = [saturation(draft.expression[draft.unit(a)], draft.expression[draft.unit(b)]) for a, b in pairs]
    shares = lid_shares(draft, find_points(draft))
    for k, side in enumerate(SIDES):
        pairs.append((f"eyeBlink{side}", f"cheekSquint{side}"))
        offsets.append(-shares[:, k, None] * draft.expression[draft.unit(f"cheekSquint{side}")])
    return draft.with_pairs(tuple(pairs), np.stack(offsets))


def saturation(first: F64, second: F64) -> F64:
    """(V, 3) what is added to two units' offsets (V, 3) so that together they move a vertex by the root of the sum of
    their squares where they pull the same way; 0 where they pull across each other or apart."""
    total = first + second
    squares = (first**2).sum(1) + (second**2).sum(1)
    along = 2 * np.maximum((first * second).sum(1), 0)
    share = np.sqrt(squares / np.maximum(squares + along, 1e-18))
    result = (share - 1)[:, None] * total
    result[np.linalg.norm(result, axis=1) < STILL] = 0
    return np.asarray(result)
