"""The stages of a reconstruction, in the order in which they run.

A new stage is a module with a class that satisfies `Stage`, and a line in `STAGES`. Results that aren't fields of
`Capture` are an `avface.capture.Layer`, registered in `avface.capture.LAYERS`.
"""

from __future__ import annotations

from collections.abc import Sequence

from avface.capture import COARSE
from avface.errors import AvfaceError
from avface.stages.coarse import CoarseStage, corrects_landmarks
from avface.stages.detail import DetailStage
from avface.stages.lips import LipsStage
from avface.stages.stage import (
    DEFAULT_STAGES,
    Progress,
    Request,
    Stage,
    StageInputs,
    check_device,
    no_progress,
)

STAGES: list[type[Stage]] = [CoarseStage, LipsStage, DetailStage]


def find_stages(names: Sequence[str]) -> tuple[type[Stage], ...]:
    """The stages of these names, in the order in which they run.

    Raises:
        AvfaceError: if a name is unknown, or a stage is missing that another one needs.
    """
    known = [stage.name for stage in STAGES]
    if isinstance(names, str) or not isinstance(names, Sequence):
        raise AvfaceError(f"stages {names!r}: give a sequence of names, such as ('coarse',)")
    given = ",".join(map(str, names))
    for name in names:
        if name not in known:
            raise AvfaceError(f"stages {given}: no such stage as {name!r}; use coarse or {','.join(known)}")
    found = tuple(stage for stage in STAGES if stage.name in names)
    needed = [need for stage in found for need in stage.needs] or [COARSE]
    missing = [need for need in needed if need not in names]
    if missing:
        raise AvfaceError(f"stages {given}: {missing[0]!r} is required; use coarse or {','.join(known)}")
    return found


__all__ = [
    "DEFAULT_STAGES",
    "STAGES",
    "Progress",
    "Request",
    "Stage",
    "StageInputs",
    "check_device",
    "corrects_landmarks",
    "find_stages",
    "no_progress",
]
