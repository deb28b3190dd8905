"""The jaw: a rigid motion about its axis, and how the skin takes part in it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from avface.arrays import F64, Int
from avface.geometry.interpolation import smoothstep
from avface.head.open.draft import Draft
from avface.head.open.mouth.config import MouthConfig
from avface.head.open.mouth.rings import CONTACT, OUTER, Rings, harmonic, hops

JAW_UNITS = ("jawOpen", "jawForward", "jawLeft", "jawRight")
CHIN_BULGE = 0.008
"""How far the skin between lower lip and chin comes forward with `mouthClose`; metres."""


@dataclass(frozen=True, eq=False)
class JawMotion:
    """The linear displacement of a rigid jaw: offset (3,) + matrix (3, 3) @ point."""

    matrix: F64
    offset: F64

    def __call__(self, points: F64) -> F64:
        """Displacements (..., 3) at points (..., 3)."""
        result: F64 = points @ self.matrix.T + self.offset
        return result


def open_motion(config: MouthConfig | None = None) -> JawMotion:
    """The jaw's displacement at `jawOpen` 1: rigid at that weight, along the chord below it."""
    config = config or MouthConfig()
    cos, sin = np.cos(config.open_angle), np.sin(config.open_angle)
    matrix = np.array([[0.0, 0, 0], [0, cos - 1, -sin], [0, sin, cos - 1]])
    hinge = np.array([0.0, *config.hinge])
    return JawMotion(matrix, np.array([0.0, *config.open_slide]) - matrix @ hinge)


def jaw_motions(draft: Draft, rings: Rings, config: MouthConfig) -> dict[str, JawMotion]:
    """The jaw's displacement under each of its units: of `jawOpen` by its axis, of the others as the chin moves."""
    motions = {"jawOpen": open_motion(config)}
    chin = _chin(draft, rings)
    for name in JAW_UNITS[1:]:
        motions[name] = JawMotion(np.zeros((3, 3)), draft.expression[draft.unit(name), chin].mean(0))
    return motions


def with_jaw(draft: Draft, rings: Rings, config: MouthConfig) -> Draft:
    """The draft with `jawOpen` by the jaw's rotation and `mouthClose` against it."""
    motion = open_motion(config)
    moved = motion(draft.template)
    unit, close = draft.unit("jawOpen"), draft.unit("mouthClose")
    old = draft.expression[unit]
    chin = _chin(draft, rings)
    # MakeHuman's distribution of the movement over cheeks and neck, by its share of the chin's.
    length = np.linalg.norm(moved, axis=1).clip(1e-3)
    share = (old * moved).sum(1) / length**2
    share = np.clip(share / share[chin].mean(), 0.0, 1.0)
    lips, corner = _lip_shares(draft, rings, config)
    fixed = {}
    for ring in range(0, 5):
        for column, vertex in enumerate(rings[ring]):
            fixed[int(vertex)] = np.array([lips[column], corner[column]])
    outer = np.concatenate([rings[k] for k in range(0, OUTER + 1)])
    rows = draft.rows("skin")
    band = np.flatnonzero(hops(draft, rings[OUTER], rows) <= 4)
    inside = np.unique(np.concatenate([outer, band]))
    edge = np.flatnonzero(hops(draft, inside, rows) == 1)
    second = np.flatnonzero(hops(draft, inside, rows) == 2)
    kept = np.concatenate([edge, second])
    for vertex in kept:
        fixed[int(vertex)] = np.array([share[vertex], 0.0])
    vertices, values = harmonic(draft, np.concatenate([inside, kept]), fixed, np.zeros(0, int), 2)
    inwards = np.zeros(len(share))
    share[vertices], inwards[vertices] = values.T
    skin = np.zeros((len(share), 1))
    skin[rows] = 1
    opening = share[:, None] * moved
    opening += _throat(draft, chin, share, moved)
    opening[:, 0] -= config.corner_inwards * inwards
    opening *= skin
    expression = draft.expression.copy()
    expression[unit] = opening
    expression[close] = _closing_unit(draft, rings, config, opening, inside, kept)
    return replace(draft, expression=expression)


def _chin(draft: Draft, rings: Rings) -> Int:
    """Skin over the front of the jaw."""
    low = draft.template[rings[OUTER][rings.lower]]
    middle = low[np.argmin(np.abs(low[:, 0]))]
    away = np.linalg.norm(draft.template - (middle - [0, 0.016, 0]), axis=1)
    skin = np.zeros(len(draft.template), bool)
    skin[draft.rows("skin")] = True
    return np.flatnonzero(skin & (away < 0.012))


def _lip_shares(draft: Draft, rings: Rings, config: MouthConfig) -> tuple[F64, F64]:
    """Share (N,) of the jaw's displacement of each column of the lips, and how much of a corner it is, (N,).

    Elliptic on either lip, so that the opening is an ellipse.
    """
    x = draft.template[rings[CONTACT], 0]
    middle = (x[0] + x[rings.left]) / 2
    across = np.clip(np.abs(x - middle) / ((x[rings.left] - x[0]) / 2), 0, 1)
    inner = np.where(rings.upper, config.upper_lip_share, config.lower_lip_share)
    round_off = np.sqrt(1 - across**2)
    shares = config.corner_share + (inner - config.corner_share) * round_off
    return shares, np.sign(x - middle) * across**3


def _throat(draft: Draft, chin: Int, share: F64, moved: F64) -> F64:
    """Displacements (V, 3) of the skin under the chin in addition to share (V,) of the jaw's (V, 3): it gives way
    downwards, so that it doesn't fold."""
    height, depth = draft.template[:, 1], draft.template[:, 2]
    front = draft.template[chin].mean(0)
    under = smoothstep(0.0, 0.02, front[2] - 0.008 - depth) * smoothstep(-0.007, 0.004, front[1] - height)
    part = np.clip(share, 1e-6, 1)
    result = (under * (part**0.75 - part))[:, None] * moved
    result[:, 1] -= under * 0.005 * 4 * part * (1 - part)
    return result


def _closing_unit(
    draft: Draft, rings: Rings, config: MouthConfig, opening: F64, inside: Int, kept: Int
) -> F64:
    """`mouthClose` (V, 3): takes `jawOpen` back on the lips, but for a drop of their line."""
    fixed = {}
    for ring in range(0, 8):
        for vertex in rings[ring]:
            fixed[int(vertex)] = np.array([1.0])
    vertices, values = harmonic(draft, inside, fixed, kept, 2)
    share = np.zeros((len(opening), 1))
    share[vertices] = values
    drop = config.shut_drop * np.array([0.0, -1.0, -0.6])
    # Without a bulge the skin between lip and chin would be stretched over the lower teeth.
    below = np.clip(opening[:, 1:2] / opening[:, 1].min(), 0, 1) ** 2
    bulge = np.maximum(4 * share * (1 - share), 0) * below * np.array([0.0, 0.0, CHIN_BULGE])
    return share * (drop - opening) + bulge
