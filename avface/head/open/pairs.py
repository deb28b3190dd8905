"""Correctives of pairs of expression units that pull the same skin."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.spatial import cKDTree

from avface.arrays import F64
from avface.errors import AvfaceError
from avface.geometry.interpolation import smoothstep
from avface.geometry.mesh import triangulate
from avface.head.open.deformation import SmoothFields
from avface.head.open.draft import Draft, PersonTerms
from avface.head.open.mouth.contact import MouthContact
from avface.head.open.mouth.jaw import open_motion
from avface.head.open.mouth.rings import mouth_rings
from avface.head.open.mouth.sealing import SHUT_UNITS, closing
from avface.head.open.units.corrections import OPEN_ROLL
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
TOUCHING: tuple[tuple[tuple[str, ...], ...], ...] = (
    (("mouthRollLower",),),
    (("mouthRollUpper",),),
    (("mouthShrugLower",),),
    (("jawLeft",),),
    (("jawRight",),),
    (("mouthPucker", "mouthLeft"),),
    (("mouthPucker", "mouthRight"),),
    (("mouthRollLower", "mouthRollUpper"),),
    (("mouthRollLower", "mouthPressLeft"), ("mouthRollLower", "mouthPressRight")),
    (("mouthRollUpper", "mouthPressLeft"), ("mouthRollUpper", "mouthPressRight")),
    (("jawForward", "mouthShrugLower"),),
    (("mouthPressLeft", "mouthDimpleLeft"), ("mouthPressRight", "mouthDimpleRight")),
    (("noseSneerLeft", "mouthSmileLeft"), ("noseSneerRight", "mouthSmileRight")),
)
"""Units, and pairs of them, that press lips and cavity through each other or into the teeth, in the order in which
they are mended; the left and right one together."""
ROLLED = ("mouthRollLower", "mouthRollUpper")
"""The pair that would turn the rim of the lips forwards."""
BESIDES = {("mouthRollUpper", "mouthPressLeft"): "mouthRollLower"}
"""A unit with which the corrective of a pair, and the right one's, must be sound."""
STILL = 0.0001
"""Corrections below this are left out, metres."""


@dataclass(frozen=True)
class ContactConfig:
    """Parameters of `lips_apart`; metres."""

    touch: float = 0.0001
    """Depth up to which lips only touch."""
    around: float = 0.010
    """How far from the lips flesh gives way."""
    middle: float = 0.006
    """Half the width over which the left corrective turns into the right one."""
    reach: float = 0.008
    """How far the lips' movement spreads."""
    step: float = 0.6
    """Share of the way out that each point goes in a round."""
    stiffness: float = 1.0
    """How closely it is followed."""
    rounds: int = 3
    """How often people are gone through, at most."""
    people: int = 12
    """Random people, besides the mean, whose lips are tested."""
    seed: int = 17
    """Seed of these people."""
    directions: int = 6
    """Number of the lips' main directions among people with which corrections vary."""
    variation: float = 0.5
    """How much of what a person needs is taken for people like this one only, against what is taken for all."""

    def __post_init__(self) -> None:
        for name in (
            "touch",
            "around",
            "middle",
            "reach",
            "step",
            "stiffness",
            "rounds",
            "directions",
            "variation",
        ):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("people", "seed"):
            if not getattr(self, name) >= 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be 0 or more")


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
    """The draft with the units and correctives of `TOUCHING` changed so that lips and cavity which are pressed through
    each other, or into the teeth, only touch: on the mean face and on random people. Lips that units leave shut stay
    shut.

    For the finished mouth: after its cavity follows. The flesh around gives way. Corrections are linear in the shape
    weights along a few directions (`Draft.person`). People are gone through in turn, `rounds` times or until all are
    sound: each one's corrections are changed as little as gives what this one needs.
    """
    config = config or ContactConfig()
    rings = mouth_rings(draft)
    contact, shutting = MouthContact(draft, rings), closing(draft, rings)
    flesh = triangulate(draft.quads[np.isin(draft.parts, ("skin", "mouth_cavity"))])
    fields = SmoothFields(draft.template, flesh, config.reach)
    lips = draft.regions["lips"]
    away = cKDTree(draft.template[lips]).query(draft.template)[0]
    held = away > config.around
    directions = np.linalg.svd(draft.shape[:, lips].reshape(len(draft.shape), -1), full_matrices=False)[0]
    directions = directions[:, : config.directions].T
    shapes = np.random.default_rng(config.seed).standard_normal((config.people, len(draft.shape)))
    shapes = np.concatenate([np.zeros_like(shapes[:1]), shapes])
    likeness = np.concatenate([np.ones((len(shapes), 1)), config.variation * shapes @ directions.T], 1)
    already = [contact.ways(draft.vertices(None, shape), config.touch).vertices for shape in shapes]
    to_left = smoothstep(-config.middle, config.middle, draft.template[:, 0])
    for group in TOUCHING:
        units = {unit: 1.0 for term in group for unit in term}
        if group[0] in BESIDES:
            units[BESIDES[group[0]]] = 1.0
        posed = [draft.vertices(units, shape) for shape in shapes]
        # Lips that are rolled and pressed overlap: they needn't be drawn together.
        shut = units.keys() <= set(SHUT_UNITS) and group[0] not in BESIDES
        correction = np.zeros((likeness.shape[1], *draft.template.shape))
        if shut:
            correction[0] = shutting(posed[0] - draft.template)
        unsound = list(range(len(shapes)))
        for _ in range(config.rounds):
            tested, unsound = unsound, []
            for k in tested:
                ways = contact.ways(posed[k] + np.tensordot(likeness[k], correction, 1), config.touch)
                ways = ways.chosen(~np.isin(ways.vertices, already[k]).any(1))
                if not len(ways.ways):
                    continue
                unsound.append(k)
                push = fields.solve(
                    ways.vertices, ways.weights, config.step * ways.ways, held, config.stiffness
                )
                correction += np.multiply.outer(likeness[k] / (likeness[k] ** 2).sum(), push)
            if shut:
                correction += shutting(correction)
            if not unsound:
                break
        if group[0] == ROLLED:
            correction[0] += contact.behind_lips(posed[0] + correction[0])
        correction[1:] *= config.variation
        correction[np.linalg.norm(correction, axis=2) < STILL / 4] = 0
        shares = [to_left, 1 - to_left] if len(group) > 1 else [np.ones_like(to_left)]
        for term, share in zip(group, shares, strict=True):
            draft = _with_correction(draft, term, share[:, None] * correction[0])
            terms = PersonTerms((term,) * len(directions), directions, share[:, None] * correction[1:])
            draft = replace(draft, person=terms if draft.person is None else draft.person.joined(terms))
    return draft


def _with_correction(draft: Draft, term: tuple[str, ...], correction: F64) -> Draft:
    """The draft with a correction (V, 3) of a unit, or of a pair's corrective, which is added if there is none."""
    if len(term) == 1:
        expression = draft.expression.copy()
        expression[draft.unit(term[0])] += correction
        return replace(draft, expression=expression)
    pair = (term[0], term[1])
    known = [each for each in (pair, pair[::-1]) if each in draft.pairs]
    if not known:
        return draft.with_pairs((pair,), correction[None])
    offsets = draft.pair_offsets.copy()
    offsets[draft.pairs.index(known[0])] += correction
    return replace(draft, pair_offsets=offsets)
