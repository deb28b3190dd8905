"""Morph targets of scene files, with weights from 0 to 1."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import F32

if TYPE_CHECKING:
    from avface.capture import Capture
    from avface.head.morphs import MorphMotion


PAIR = ("_plus", "_minus")
"""Ends of the names of a pair of targets: of positive weights and of negative ones."""


def scene_morphs(capture: Capture) -> tuple[tuple[str, ...], F32, MorphMotion]:
    """Names (M,), offsets (M, V, 3) in metres and motion, whose weights (T, M) are from 0 to 1.

    The weights of expression units with the range 0 to 1 and of correctives of their pairs are so already. Importers
    clamp the weights of morph targets to 0..1 (Blender's USD importer, sliders of Unreal and Maya), so a
    target whose weight can be negative or above 1 is a pair of targets with opposite offsets, scaled to the largest
    weight of the clip: refined lips, pose correctives, and the units of heads whose range isn't 0 to 1, such as
    FLAME's. Weights of one of the pair are 0 where those of the other aren't, and their linear interpolation is that
    of the original.

    Raises:
        AvfaceError: if a layer belongs to another head.
    """
    targets, motion = capture.morphs()
    units = capture.head_model.unit_range
    single = np.zeros(len(targets.names), bool)
    single[: len(targets.units)] = (units.low[targets.units] >= 0) & (units.high[targets.units] <= 1)
    single[len(targets.units) : len(targets.units) + targets.pairs] = True
    names: list[str] = []
    offsets: list[F32] = []
    weights: list[F32] = []
    peaks = np.abs(motion.weights).max(0, initial=1)
    for number, (name, peak) in enumerate(zip(targets.names, peaks, strict=True)):
        offset, weight = targets.offsets[number], motion.weights[:, number]
        if single[number]:
            names.append(name)
            offsets.append(offset)
            weights.append(weight)
            continue
        for end, sign in zip(PAIR, (1, -1), strict=True):
            names.append(name + end)
            offsets.append((sign * peak * offset).astype(np.float32))
            weights.append((np.maximum(sign * weight, 0) / peak).astype(np.float32))
    shape = (0, *targets.offsets.shape[1:])
    return (
        tuple(names),
        np.stack(offsets) if offsets else np.zeros(shape, np.float32),
        replace(motion, weights=np.stack(weights, 1) if weights else motion.weights),
    )
