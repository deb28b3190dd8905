"""Assignment of the faces of a new frame to the people already tracked: pure functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avface.tracking.facemesh import Face
from avface.tracking.reidentification import AppearanceDescriptor, similarity

_POSITION_SPREAD = 0.3
"""Standard deviation of a face's centre around its prediction, in face sizes, one frame ahead."""
_POSITION_GROWTH = 0.3
"""The same, added per frame of absence."""
_SIZE_SPREAD = 0.25
"""Standard deviation of the logarithm of a face's size around the last one."""
_POSITION_LIMIT = 4.0
"""Position and size count for at most this much each: a person may reappear elsewhere in the picture."""
_APPEARANCE_LIMIT = 5.0
"""Appearance counts for at most this much: a hand before the face changes it, too."""
MAX_COST = 6.0
"""From this cost on a face is nobody who is tracked; neither appearance nor position alone reaches it."""


@dataclass(frozen=True)
class Candidate:
    """A face found in the new frame."""

    centre: tuple[float, float]
    """Pixels."""
    size: float
    """Square root of the box's area, in pixels."""
    descriptor: AppearanceDescriptor | None = None
    """None leaves appearance out of the decision."""


@dataclass(frozen=True)
class Expected:
    """The prediction for a person in the new frame."""

    centre: tuple[float, float]
    """Predicted centre in pixels."""
    size: float
    """Last size in pixels."""
    descriptor: AppearanceDescriptor | None = None
    """Mean over the frames so far."""
    missing: int = 0
    """Frames since the person was last seen."""


def association_cost(expected: Expected, candidate: Candidate) -> float:
    """Negative log likelihood (up to a constant) that a candidate is the expected person."""
    spread = (_POSITION_SPREAD + _POSITION_GROWTH * expected.missing) * expected.size
    offset = np.hypot(candidate.centre[0] - expected.centre[0], candidate.centre[1] - expected.centre[1])
    cost = min(0.5 * float(offset / spread) ** 2, _POSITION_LIMIT)
    cost += min(0.5 * float(np.log(candidate.size / expected.size) / _SIZE_SPREAD) ** 2, _POSITION_LIMIT)
    if expected.descriptor is not None and candidate.descriptor is not None:
        alike = similarity(expected.descriptor, candidate.descriptor)
        cost += min(-float(np.log(max(alike, 1e-9))), _APPEARANCE_LIMIT)
    return cost


def associate(expected: Sequence[Expected], candidates: Sequence[Candidate]) -> list[int | None]:
    """For each candidate the number of the expected person it is, or None for somebody new.

    The assignment of least total cost; no person is given twice.
    """
    if not expected:
        return [None] * len(candidates)
    from scipy.optimize import linear_sum_assignment  # takes 0.25 s to import, and one face rarely needs it

    people = len(expected)
    # One column per person and one "nobody" per candidate, so that no unlikely match is forced.
    cost = np.full((len(candidates), people + len(candidates)), MAX_COST)
    for row, candidate in enumerate(candidates):
        for column, person in enumerate(expected):
            cost[row, column] = association_cost(person, candidate)
    rows, columns = linear_sum_assignment(cost)
    result: list[int | None] = [None] * len(candidates)
    for row, column in zip(rows, columns, strict=True):
        if column < people and cost[row, column] < MAX_COST:
            result[row] = int(column)
    return result


def without_duplicates(faces: Sequence[Face], closer_than: float = 0.2) -> list[int]:
    """Numbers of the faces to keep when several regions led to one face: the first of each.

    Two are one when the mean distance of their landmarks is less than `closer_than` times the face's size. The overlap
    of boxes is no criterion: those of two people who cross overlap far more.
    """
    kept: list[int] = []
    for number, face in enumerate(faces):
        for other in (faces[one] for one in kept):
            gap = np.linalg.norm(face.landmarks[:, :2] - other.landmarks[:, :2], axis=1).mean()
            if gap < closer_than * other.size:
                break
        else:
            kept.append(number)
    return kept
