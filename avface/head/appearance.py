"""Vertex colours of a head, for viewers, overlays and rendered portraits."""

from __future__ import annotations

import numpy as np

from avface.arrays import F32, F64, Bool, Int
from avface.head.model import HeadModel

SKIN = (0.80, 0.62, 0.53)
PART_COLOURS = {
    "skin": SKIN,
    "mouth_cavity": (0.42, 0.16, 0.15),
    "eye": (0.93, 0.92, 0.90),
    "iris": (0.30, 0.40, 0.44),
    "pupil": (0.03, 0.03, 0.04),
    "line": (0.86, 0.70, 0.66),
    "teeth": (0.93, 0.90, 0.83),
    "gums": (0.78, 0.45, 0.43),
    "tongue": (0.72, 0.36, 0.35),
}
"""sRGB 0 to 1 by the last word of a part's name ("left_iris" is "iris", "left_tear_line" is "line"); skin for parts not
listed."""

REGION_TINTS = {
    "lips": ((0.72, 0.40, 0.38), 0.85),
    "nose": ((0.82, 0.55, 0.47), 0.35),
    "ears": ((0.82, 0.54, 0.46), 0.35),
    "scalp": ((0.70, 0.55, 0.48), 0.45),
}
"""sRGB of a region of the skin, and its blend weight against the skin's own colour."""

BROW = (0.30, 0.21, 0.16)
BROW_INNER, BROW_OUTER = 0.19, 0.83
"""Where a brow begins and ends, from the face's middle outwards, in distances between the eyes' centres."""
BROW_HEIGHT, BROW_ARCH = 0.29, 0.075
"""Height of the brow's ends above the eyes' centres, and how much higher its middle is, in the same unit."""
BROW_THICKNESS, BROW_SOFTNESS = 0.04, 0.045
"""Half the brow's thickness at its inner end, and the width of its soft edge, in the same unit."""


def vertex_colours(head: HeadModel) -> F32:
    """Plausible colours (V, 3), sRGB 0 to 1, from the head's parts and regions.

    Lips, nose, ears and scalp are tinted if the head has these regions, and brows are drawn if it has the joints
    left_eye and right_eye; a head without any of them is skin only.
    """
    kinds = [name.split("_")[-1] for name in head.part_names]
    palette = np.array(
        [
            PART_COLOURS.get(name, PART_COLOURS.get(kind, SKIN))
            for name, kind in zip(head.part_names, kinds, strict=True)
        ]
    )
    parts = head.vertex_parts()
    colours = palette[parts]
    skin = np.array([name == "skin" for name in head.part_names])[parts]
    cavity = np.array([name == "mouth_cavity" for name in head.part_names])[parts]
    faces = head.faces.cpu().numpy()
    for name, (tint, share) in REGION_TINTS.items():
        mask = head.regions.get(name, np.zeros(0, bool))
        if name == "lips" and mask.any():  # and the rim of the mouth, whose inner side shows when it opens
            mask = mask | (softened(cavity, faces) > 0)
        if mask.any():
            amount = share * (softened(mask, faces) * skin)[:, None]
            colours = (1 - amount) * colours + amount * np.array(tint)
    amount = 0.9 * (_brows(head) * skin)[:, None]
    return ((1 - amount) * colours + amount * np.array(BROW)).astype(np.float32)


def softened(mask: Bool, faces: Int, rounds: int = 1) -> F64:
    """A soft mask (V,), 0 to 1, from a binary one: `rounds` steps of averaging with the neighbouring vertices."""
    value = mask.astype(np.float64)
    for _ in range(rounds):
        total, count = np.zeros_like(value), np.zeros_like(value)
        for a, b in ((0, 1), (1, 2), (2, 0)):
            for start, end in ((faces[:, a], faces[:, b]), (faces[:, b], faces[:, a])):
                np.add.at(total, start, value[end])
                np.add.at(count, start, 1)
        value = 0.5 * value + 0.5 * total / np.maximum(count, 1)
    return value


def _brows(head: HeadModel) -> F64:
    """Soft mask (V,), 0 to 1, of the brows: two arches over the eyes of the mean face."""
    if not {"left_eye", "right_eye"} <= set(head.joint_names):
        return np.zeros(head.num_vertices)
    template = head.template.cpu().numpy().astype(np.float64)
    joints = head.joint_regressor.cpu().numpy() @ template
    left, right = (joints[head.joint_names.index(f"{side}_eye")] for side in ("left", "right"))
    x, y, z = ((template - (left + right) / 2) / np.linalg.norm(left - right)).T
    along = (np.abs(x) - BROW_INNER) / (BROW_OUTER - BROW_INNER)
    middle = BROW_HEIGHT + BROW_ARCH * np.sin(np.pi * np.clip(along, 0, 1) ** 0.8)
    thickness = BROW_THICKNESS * (1 - 0.6 * np.clip(along, 0, 1))
    beyond = np.clip(np.maximum(-along, along - 1), 0, None) * (BROW_OUTER - BROW_INNER)
    outside = np.hypot(np.clip(np.abs(y - middle) - thickness, 0, None), beyond)
    brow = np.clip(1 - outside / BROW_SOFTNESS, 0, 1)
    return np.where(z > 0, brow, 0.0)
