"""Where teeth, cavity and tongue lie, and how they take part in the lips' shape."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from avface.arrays import F64
from avface.errors import AvfaceError
from avface.head.open.draft import Draft
from avface.head.open.mouth.config import MouthConfig
from avface.head.open.mouth.rings import CONTACT, INNER, Rings
from avface.head.open.mouth.teeth import ARCH, LOWER_TILT, UPPER_TILT, Solid, arches

HANDLES = (0, 1, 5, 9)
"""Rings whose displacement under a shape component teeth and cavity take part in."""

WIDTH_SHARE = 0.4
"""Share of the lips' growth under a shape component that teeth take part in: mouths vary more than arches of teeth."""
_TURNS = np.array(
    [
        [[0, 0, 0], [0, 0, -1], [0, 1, 0]],
        [[0, 0, 1], [0, 0, 0], [-1, 0, 0]],
        [[0, -1, 0], [1, 0, 0], [0, 0, 0]],
    ]
)
"""Displacements by small turns about the three axes."""


def bite_of(draft: Draft, rings: Rings, config: MouthConfig) -> F64:
    """(3,) the upper central incisors' edge."""
    contact = draft.template[rings[CONTACT]]
    middle = contact[np.argmin(np.abs(contact[:, 0]) + rings.lower)]
    return np.array([0.0, middle[1] - config.teeth_below, middle[2] - config.teeth_behind])


def lip_fit(draft: Draft, rings: Rings, offsets: F64) -> tuple[F64, F64]:
    """Similarity that moves teeth and cavity as offsets (..., V, 3) move the lips: matrix (..., 3, 3), offset
    (..., 3)."""
    handles = np.concatenate([rings[k] for k in HANDLES])
    points = draft.template[handles]
    centre = points.mean(0)
    local = points - centre
    moves = np.concatenate([np.eye(3)[None], _TURNS])  # scale, then turns about the axes
    design = np.stack([(local @ move.T).ravel() for move in moves], 1)
    moved = offsets[..., handles, :]
    shift = moved.mean(-2)
    flat = (moved - shift[..., None, :]).reshape(*moved.shape[:-2], -1)
    amounts = flat @ np.linalg.pinv(design).T
    amounts[..., 1:, 0] *= WIDTH_SHARE  # of all components but the size
    matrix = np.tensordot(amounts, moves, 1)
    return matrix, shift - matrix @ centre


def with_teeth(draft: Draft, rings: Rings, config: MouthConfig) -> Draft:
    """The draft with teeth and gums."""
    bite = bite_of(draft, rings, config)
    matrix, offset = lip_fit(draft, rings, draft.shape)
    for arch, name in zip(arches(), ("upper", "lower"), strict=True):
        for solid, part in ((arch.teeth, f"{name}_teeth"), (arch.gums, f"{name}_gums")):
            draft = _with_solid(draft, solid, part, bite, matrix, offset)
    return draft


def _with_solid(draft: Draft, solid: Solid, part: str, origin: F64, matrix: F64, offset: F64) -> Draft:
    points = solid.points * 1e-3 + origin
    shape = np.einsum("sij,vj->svi", matrix, points) + offset[:, None]
    weights = np.zeros((len(points), draft.skin_weights.shape[1]))
    weights[:, 1] = 1.0
    return draft.with_parts(
        points,
        solid.quads,
        np.full(len(solid.quads), part),
        solid.flat,
        solid.quads,
        shape=shape,
        skin_weights=weights,
    )


def with_cavity(draft: Draft, rings: Rings, config: MouthConfig) -> Draft:
    """The draft with a cavity that lies close around teeth, gums and tongue."""
    bite = bite_of(draft, rings, config)
    rim = draft.template[rings[0]]
    x = rim[:, 0]
    across = np.clip(x / np.where(x > 0, x[rings.left], -x[0]), -1, 1)
    up = np.where(rings.upper, 1.0, -1.0) * np.sqrt(1 - across**2)
    up[[0, rings.left]] = 0.0
    template = draft.template.copy()
    # half width, height above and depth below the bite, distance behind the wall in the middle above and below, and at
    # the corners behind those of the lips; metres
    rows = (
        (0.0258, 0.0075, 0.0045, 0.0, 0.0, 0.006),
        (0.0275, 0.0130, 0.0078, 0.0, 0.0, 0.013),
        (0.0290, 0.0170, 0.0106, 0.001, 0.0005, 0.020),
        (0.0302, 0.0205, 0.0132, 0.006, 0.006, 0.027),
        (0.0310, 0.0235, 0.0180, 0.015, 0.017, 0.034),
        (0.0315, 0.0240, 0.0215, 0.026, 0.026, 0.041),
        (0.0315, 0.0240, 0.0235, 0.038, 0.038, 0.048),
        (0.0310, 0.0235, 0.0235, 0.052, 0.052, 0.057),
        (0.0270, 0.0200, 0.0200, 0.068, 0.068, 0.068),
        (0.0160, 0.0120, 0.0130, 0.076, 0.076, 0.076),
    )
    arch_x = ARCH[:, 0] * 1e-3 + np.interp(ARCH[:, 0], [0, 15, 21], [0.0, 0.0035, 0.0055]) + config.wall_gap
    arch_z = ARCH[:, 1] * 1e-3
    wall = bite[2] + config.wall_gap + 0.0012
    corner = wall - rim[[0, rings.left], 2].mean()
    for ring, (half, high, low, above, below, beside) in enumerate(rows, start=1):
        back = np.where(up > 0, above, below)
        place = np.stack([half * across, bite[1] + np.where(up > 0, high, low) * up, np.zeros(len(up))], 1)
        front = np.interp(np.abs(place[:, 0]), arch_x, arch_z, right=arch_z[-1])
        height = place[:, 1] - bite[1]
        lean = np.where(up < 0, 0.0012 + LOWER_TILT * (0.002 - height), UPPER_TILT * height)
        behind = np.minimum(front * (1 - back / 0.08) + back, corner + beside)
        place[:, 2] = wall - np.minimum(lean, 0.008) * (1 - np.abs(across) ** 3) - behind
        template[rings[-ring]] = place
    deep = np.concatenate([rings[-k] for k in range(1, INNER + 1)])
    others = np.setdiff1d(draft.rows("mouth_cavity"), np.concatenate([deep, rings[0]]))
    if len(others):
        raise AvfaceError("the mouth's cavity has vertices beyond its rings")
    return replace(draft, template=template)
