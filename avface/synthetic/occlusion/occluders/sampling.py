"""The kinds of occluder, and random ones of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np

from avface.errors import AvfaceError
from avface.synthetic.occlusion.occluders.hands import sample_hand
from avface.synthetic.occlusion.occluders.held_objects import (
    sample_boom_microphone,
    sample_cup,
    sample_microphone,
    sample_paper,
    sample_phone,
)
from avface.synthetic.occlusion.occluders.occluder import Occluder
from avface.synthetic.occlusion.occluders.worn_objects import sample_hair, sample_scarf, sample_sunglasses

OccluderKind = Literal[
    "hand", "microphone", "boom_microphone", "cup", "phone", "paper", "scarf", "sunglasses", "hair"
]
OCCLUDER_KINDS: tuple[str, ...] = get_args(OccluderKind)
WORN_KINDS = ("scarf", "sunglasses", "hair")
"""Kinds that move with the head; the others move freely."""
SAMPLING_WEIGHTS = {
    "hand": 5.0,
    "microphone": 2.0,
    "boom_microphone": 1.0,
    "cup": 1.5,
    "phone": 1.5,
    "paper": 1.5,
    "scarf": 1.0,
    "sunglasses": 1.0,
    "hair": 1.0,
}
"""Relative frequency of each kind."""
_NEVER_OVER_MOUTH = ("sunglasses", "hair")
"""Kinds that can't be placed to hide the mouth."""
_SAMPLERS = {
    "hand": sample_hand,
    "microphone": sample_microphone,
    "boom_microphone": sample_boom_microphone,
    "cup": sample_cup,
    "phone": sample_phone,
    "paper": sample_paper,
    "scarf": sample_scarf,
    "sunglasses": sample_sunglasses,
    "hair": sample_hair,
}


def sample_occluder(
    rng: np.random.Generator, kinds: Sequence[str] = OCCLUDER_KINDS, *, over_mouth: bool = True
) -> Occluder:
    """Draw an occluder of one of the kinds: its shape, colours and place on the face.

    over_mouth: place it over the mouth, and draw only from kinds for which that is possible, if there are any.

    Raises:
        AvfaceError: if a kind is unknown, or there is none.
    """
    check_kinds(kinds)
    candidates = [kind for kind in OCCLUDER_KINDS if kind in kinds]
    if over_mouth:
        candidates = [kind for kind in candidates if kind not in _NEVER_OVER_MOUTH] or candidates
    weights = np.array([SAMPLING_WEIGHTS[kind] for kind in candidates])
    kind = str(rng.choice(candidates, p=weights / weights.sum()))
    return _SAMPLERS[kind](rng, over_mouth)


def check_kinds(kinds: Sequence[str]) -> None:
    """Refuse an empty list of occluders and unknown kinds.

    Raises:
        AvfaceError: naming the kind and the known ones.
    """
    known = ", ".join(OCCLUDER_KINDS)
    if isinstance(kinds, str) or not kinds:
        raise AvfaceError(f"{kinds!r}: give at least one kind of occluder; there are {known}")
    for kind in kinds:
        if kind not in OCCLUDER_KINDS:
            raise AvfaceError(f"{kind!r}: unknown kind of occluder; there are {known}")
