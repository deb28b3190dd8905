"""Correctives of pairs of expression units that pull the same skin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from avface.arrays import F64
from avface.geometry.interpolation import smoothstep
from avface.geometry.mesh import triangulate
from avface.head.open.deformation import SmoothFields
from avface.head.open.draft import Draft
from avface.head.open.mouth.jaw import open_motion
from avface.head.open.units.corrections import OPEN_ROLL
from avface.head.open.units.measures import SkinCheck
from avface.head.open.units.named_points import find_points
from avface.head.open.units.step import UnitFields, lid_shares

SIDES = ("Left", "Right")
SATURATING = (
    ("noseSneer", "mouthSmile"),
    ("noseSneer", "mouthUpperUp"),
    ("mouthUpperUp", "mouthSmile"),
    ("mouthSmile", "mouthDimple"),
    ("mouthSmile", "mouthStretch"),
    ("cheekSquint", "mouthSmile"),
    ("cheekSquint", "noseSneer"),
)
"""Units of one half of the face of which both pull the same skin the same way."""
ACROSS = ("noseSneer", "mouthUpperUp", "mouthLowerDown")
"""Units whose left and right one pull the middle of the lips the same way."""
SINGLE = (
    ("mouthFunnel", "mouthPucker"),
    ("cheekPuff", "mouthPucker"),
    ("mouthPucker", "mouthLeft"),
    ("mouthPucker", "mouthRight"),
    ("mouthSmileLeft", "mouthLeft"),
    ("mouthSmileRight", "mouthRight"),
    ("mouthRollLower", "mouthPressLeft"),
    ("mouthRollLower", "mouthPressRight"),
    ("mouthRollUpper", "mouthPressLeft"),
    ("mouthRollUpper", "mouthPressRight"),
    ("mouthRollLower", "mouthRollUpper"),
    ("mouthRollLower", "mouthShrugLower"),
    ("mouthRollUpper", "mouthShrugUpper"),
)
"""Units of the whole mouth that do so."""
LOWER_LIP = (
    "mouthRollLower",
    "mouthShrugLower",
    "mouthFunnel",
    "mouthPucker",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
)
"""Units that move the lower lip along directions of the jaw's, which turn with it."""
TOUCHING = (
    (("mouthRollLower", "mouthRollUpper"),),
    (("mouthRollLower", "mouthPressLeft"), ("mouthRollLower", "mouthPressRight")),
    (("mouthRollUpper", "mouthPressLeft"), ("mouthRollUpper", "mouthPressRight")),
    (("jawForward", "mouthShrugLower"),),
)
"""Pairs that press the lips through each other; the left and right one of a pair together."""
STILL = 0.0001
"""Corrections below this are left out, metres."""


@dataclass(frozen=True)
class ContactConfig:
    """Parameters of `lips_apart`; metres."""

    touch: float = 0.0001
    """Depth up to which lips only touch."""
    around: float = 0.008
    """How far from the lips skin gives way."""
    middle: float = 0.006
    """Half the width over which the left corrective turns into the right one."""
    reach: float = 0.008
    """How far the lips' movement spreads."""
    step: float = 0.6
    """Share of the way out that each lip goes in a round."""
    stiffness: float = 1.0
    """How closely it is followed."""
    rounds: int = 10


def unit_pairs(draft: Draft) -> Draft:
    """The draft with correctives: muscles that pull the same skin the same way don't add up, the lower lip's units turn
    with the jaw, and lids that close stay where they meet though the cheek rises."""
    pairs = [(f"{a}{side}", f"{b}{side}") for a, b in SATURATING for side in SIDES]
    pairs += [(f"{unit}Left", f"{unit}Right") for unit in ACROSS]
    pairs += SINGLE
    offsets = [saturation(draft.expression[draft.unit(a)], draft.expression[draft.unit(b)]) for a, b in pairs]
    jaw = jaw_share(draft)[:, None]
    turn = open_motion().matrix
    for unit in LOWER_LIP:
        field = draft.expression[draft.unit(unit)]
        goal = UnitFields(draft).of(unit, OPEN_ROLL) if unit == "mouthRollLower" else field
        pairs.append(("jawOpen", unit))
        offsets.append(jaw * (goal + goal @ turn.T - field))
    # In shut lips a rolled upper lip draws the lower one's edge inwards.
    pairs.append(("jawOpen", "mouthRollUpper"))
    offsets.append(-jaw * draft.expression[draft.unit("mouthRollUpper")])
    shares = lid_shares(draft, find_points(draft))
    for k, side in enumerate(SIDES):
        pairs.append((f"eyeBlink{side}", f"cheekSquint{side}"))
        offsets.append(-shares[:, k, None] * draft.expression[draft.unit(f"cheekSquint{side}")])
    stacked = np.stack(offsets)
    stacked[np.linalg.norm(stacked, axis=2) < STILL] = 0
    return draft.with_pairs(tuple(pairs), stacked)


def jaw_share(draft: Draft) -> F64:
    """(V,) share of the jaw's displacement under `jawOpen`: 0 on the skull, 1 on the chin."""
    whole = np.linalg.norm(open_motion()(draft.template), axis=1)
    share = np.linalg.norm(draft.expression[draft.unit("jawOpen")], axis=1) / np.maximum(whole, 1e-3)
    return np.asarray(np.clip(share, 0, 1))


def saturation(first: F64, second: F64) -> F64:
    """(V, 3) what is added to two units' offsets (V, 3) so that together they move a vertex by the root of the sum of
    their squares where they pull the same way; 0 where they pull across each other or apart."""
    total = first + second
    squares = (first**2).sum(1) + (second**2).sum(1)
    along = 2 * np.maximum((first * second).sum(1), 0)
    share = np.sqrt(squares / np.maximum(squares + along, 1e-18))
    result = (share - 1)[:, None] * total
    return np.asarray(result)


def lips_apart(draft: Draft, config: ContactConfig | None = None) -> Draft:
    """The draft with the correctives of `TOUCHING` changed so that lips which are pressed together only touch.

    For the finished lips: after the cavity of the mouth follows. The skin round the lips gives way, half of it on
    either lip.
    """
    config = config or ContactConfig()
    flesh = triangulate(draft.quads[np.isin(draft.parts, ("skin", "mouth_cavity"))])
    fields = SmoothFields(draft.template, flesh, config.reach)
    skin = np.zeros(len(draft.template), bool)
    skin[draft.rows("skin")] = True
    skin[draft.rows("mouth_cavity")] = False
    lips = draft.template[draft.regions["lips"]]
    away = cKDTree(lips).query(draft.template)[0]
    held = ~skin | (away > config.around)
    check = SkinCheck(draft.template, flesh, ~held)
    already = np.linalg.norm(check.ways_out(draft.template), axis=1) > 0  # lips touch at rest
    pairs, offsets = list(draft.pairs), list(draft.pair_offsets)
    to_left = smoothstep(-config.middle, config.middle, draft.template[:, 0])
    for group in TOUCHING:
        pose = draft.vertices({unit: 1.0 for pair in group for unit in pair})
        moved = pose
        for _ in range(config.rounds):
            ways = check.ways_out(moved)
            deep = np.flatnonzero((np.linalg.norm(ways, axis=1) > config.touch) & ~already)
            if not len(deep):
                break
            moved = moved + fields.solve(
                deep[:, None], np.ones((len(deep), 1)), config.step * ways[deep], held, config.stiffness
            )
        shares = [to_left, 1 - to_left] if len(group) > 1 else [np.ones_like(to_left)]
        for pair, share in zip(group, shares, strict=True):
            correction = share[:, None] * (moved - pose)
            correction[np.linalg.norm(correction, axis=1) < STILL / 4] = 0
            if pair not in pairs:
                pairs.append(pair)
                offsets.append(np.zeros_like(pose))
            offsets[pairs.index(pair)] = offsets[pairs.index(pair)] + correction
    return replace(draft, pairs=tuple(pairs), pair_offsets=np.stack(offsets))
