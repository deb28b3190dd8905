"""Which parts of a head are flesh, teeth and the mouth's inside, by their names."""

from __future__ import annotations

import numpy as np

from avface.arrays import Bool, Int
from avface.head.model import HeadModel

FLESH = ("skin", "mouth_cavity")
"""Parts whose surface is one, closed but for the neck."""
INSIDE = ("mouth_cavity", "tongue")
"""Parts of the mouth's inside, besides teeth and gums."""


def flesh(head: HeadModel) -> Int:
    """Faces (F, 3) of skin and mouth's cavity."""
    return _faces(head, np.isin(head.part_names, FLESH))


def teeth(head: HeadModel) -> Int:
    """Faces (F, 3) of the teeth without the gums."""
    return _faces(head, np.array([_is_tooth(name) for name in head.part_names]))


def inside(head: HeadModel) -> Bool:
    """(P,) whether each of the head's parts is in the mouth."""
    return np.array([name in INSIDE or "gum" in name or _is_tooth(name) for name in head.part_names])


def _is_tooth(name: str) -> bool:
    return "teeth" in name or "tooth" in name


def _faces(head: HeadModel, chosen: Bool) -> Int:
    result: Int = head.faces.cpu().numpy()[chosen[head.face_parts]]
    return result
