"""Where teeth, cavity and tongue lie, and how they take part in the lips' shape."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from avface.arrays import F64
from avface.errors import AvfaceError
from avface.head.open.draft import Draft
from avface.head.open.mouth.config import MouthConfig
from avface.head.open.mouth.rings import CONTACT, INNER, Rings
from avface.head.open.mouth.teeth import ARCH, LOWER_TILT, UPPER_TILT, Solid, arches

HANDLES = (0, 1, 2, 3)
"""Rings whose displacement under a shape component teeth and cavity take part in."""
CORNER_WEIGHT = 0.15
"""Weight of a handle beyond `MIDDLE` of the mouth's half width; of the others 1."""
MIDDLE = 0.73
TURN_COST, GROWTH_COST = 10.0, 30.0
"""How much turns and growth in height and depth are avoided: lips vary in these more than arches of teeth; mm^2."""
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


@dataclass(frozen=True, eq=False)
class LipFit:
    """Displacements of teeth and cavity under S shape components, of a few degrees of freedom as arches of teeth vary.

    centre (3,); matrix (S, 3, 3) and offset (S, 3) of the affine part about it; bend (S,), of an arch's middle against
    its sides, 1/m.
    """

    centre: F64
    matrix: F64
    offset: F64
    bend: F64

    def __call__(self, points: F64) -> F64:
        """(S, N, 3) at points (N, 3)."""
        local = points - self.centre
        result = np.einsum("sij,vj->svi", self.matrix, local) + self.offset[:, None]
        result[..., 2] += self.bend[:, None] * local[:, 0] ** 2
        return result


def lip_fit(draft: Draft, rings: Rings) -> LipFit:
    """What moves teeth and cavity as the draft's shape components move the lips: shift, turn, growth, widening and
    bending; under the first component, the size, exactly growth."""
    handles = np.concatenate([rings[k] for k in HANDLES])
    points = draft.template[handles]
    half = np.abs(draft.template[rings[CONTACT]][[0, rings.left], 0]).mean()
    weights = np.where(np.abs(points[:, 0]) < MIDDLE * half, 1.0, CORNER_WEIGHT)
    centre = np.array([0.0, *np.average(points[:, 1:], axis=0, weights=weights)])
    local = 1e3 * (points - centre)  # millimetres, for the solver's conditioning
    moves = np.concatenate([_TURNS, np.eye(3)[None], np.diag([1.0, 0, 0])[None]])
    columns = [np.broadcast_to(axis, local.shape) for axis in np.eye(3)]
    columns += [local @ move.T for move in moves]
    columns.append(local[:, :1] ** 2 * np.array([0.0, 0.0, 1.0]))
    root = np.repeat(np.sqrt(weights / weights.sum()), 3)
    design = np.stack([column.ravel() for column in columns], 1) * root[:, None]
    moved = 1e3 * draft.shape[:, handles].reshape(len(draft.shape), -1) * root
    cost = np.diag([0.0] * 3 + [TURN_COST] * 3 + [GROWTH_COST, 0.0, 0.0])
    amounts = np.linalg.solve(design.T @ design + cost, design.T @ moved.T).T
    matrix, offset = np.tensordot(amounts[:, 3:-1], moves, 1), 1e-3 * amounts[:, :3]
    bend = 1e3 * amounts[:, -1]
    matrix[0], offset[0], bend[0] = draft.size_sigma * np.eye(3), draft.size_sigma * centre, 0.0
    return LipFit(centre, matrix, offset, bend)


LIP_THICKNESS = {1: 0.6, 2: 0.85}
"""Share of the lips' movement before the teeth under a shape component that their inner side takes part in, by ring."""
RIM_THICKNESS = 0.6
"""The same of the rim's, of the movement of the contact before it."""


def with_thickness(draft: Draft, rings: Rings, config: MouthConfig) -> Draft:
    """The draft with lips that get thicker and thinner to the front: their inner side keeps its distance from the teeth
    under shape components, and the rim that from the contact of the lips, so that neither folds."""
    fit, bite = lip_fit(draft, rings), bite_of(draft, rings, config)
    surface = arches()[0].surface
    shape = draft.shape.copy()

    def nearer(ring: int, relative: F64, share: float) -> None:
        front = surface.outside(1e3 * (draft.template[rings[ring]] - bite))[1]
        kept = relative - (1 - share) * (relative * front).sum(2, keepdims=True) * front
        shape[:, rings[ring]] = fit(draft.template[rings[ring]]) + kept

    for ring, share in LIP_THICKNESS.items():
        nearer(ring, shape[:, rings[ring]] - fit(draft.template[rings[ring]]), share)
    contact = rings[CONTACT]
    nearer(0, shape[:, contact] - fit(draft.template[contact]), RIM_THICKNESS)
    return replace(draft, shape=shape)


def with_teeth(draft: Draft, rings: Rings, config: MouthConfig) -> Draft:
    """The draft with teeth and gums."""
    bite = bite_of(draft, rings, config)
    fit = lip_fit(draft, rings)
    for arch, name in zip(arches(), ("upper", "lower"), strict=True):
        for solid, part in ((arch.teeth, f"{name}_teeth"), (arch.gums, f"{name}_gums")):
            draft = _with_solid(draft, solid, part, bite, fit)
    return draft


def _with_solid(draft: Draft, solid: Solid, part: str, origin: F64, fit: LipFit) -> Draft:
    points = solid.points * 1e-3 + origin
    weights = np.zeros((len(points), draft.skin_weights.shape[1]))
    weights[:, 1] = 1.0
    return draft.with_parts(
        points,
        solid.quads,
        np.full(len(solid.quads), part),
        solid.flat,
        solid.quads,
        shape=fit(points),
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
