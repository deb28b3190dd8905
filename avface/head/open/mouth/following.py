"""The inside of the mouth follows lips and jaw."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.spatial import cKDTree

from avface.arrays import F64
from avface.geometry.interpolation import smoothstep
from avface.head.open.draft import Draft
from avface.head.open.mouth.clearance import apart, out_of_teeth, spread
from avface.head.open.mouth.config import MouthConfig
from avface.head.open.mouth.jaw import jaw_motions
from avface.head.open.mouth.placement import bite_of, lip_fit
from avface.head.open.mouth.rings import INNER, OUTER, Rings, harmonic, mouth_rings
from avface.head.open.mouth.sealing import seal_units
from avface.head.open.mouth.teeth import arches

FOLLOWING = (0.95, 0.9, 0.8, 0.65, 0.45, 0.25, 0.1)
"""Share of the skin's displacement that the cavity's rings behind it take, from the rim inwards."""
SHAPE_FOLLOWING = (np.nan, 0.2, 0.15, 0.1)
"""The same under a shape component; the first ring lies between the rim and the next one."""
INWARDS = (0.2, 0.5, 0.8)
"""Share of the displacement of the cavity's rings towards the teeth, from the rim inwards, that flesh takes up by
getting thinner; the last one's for all further ones."""
SHAPE_INWARDS = (0.8, 1.0)
"""The same under a shape component, to and from the teeth, of what goes beyond the movement of the arches."""
FLESH = 0.006
"""Distance at which skin stops to displace the cavity behind it; metres."""
GIVING_WAY = 0.75
"""By how much the cavity's lower pocket gives way to skin that comes nearer as the jaw opens, since skin takes part in
the jaw's movement less: share of what the skin comes nearer."""
POCKET = 6
"""Ring of the cavity up to which the pocket reaches."""


def mouth_follows(draft: Draft, config: MouthConfig | None = None) -> Draft:
    """The draft with teeth, gums, tongue and cavity moved as jaw and lips move, under every component, unit and
    corrective."""
    config = config or MouthConfig()
    rings = mouth_rings(draft)
    names = draft.expression_names
    draft = seal_units(draft, rings)
    with_jaw, with_rim = _Following(draft, rings, (np.nan,) * 3), _Following(draft, rings, (0.6,))
    with_skin, with_shape = _Following(draft, rings, FOLLOWING), _Following(draft, rings, SHAPE_FOLLOWING)
    motions = jaw_motions(draft, rings, config)
    inwards = _inwards(draft, rings, config, INWARDS)
    lower = draft.rows("lower_teeth", "lower_gums")
    tongue = draft.rows("tongue")
    upper = draft.rows("upper_teeth", "upper_gums")
    expression = draft.expression.copy()
    for number, name in enumerate(names):
        jaw = motions.get(name)
        expression[number, upper] = 0.0
        expression[number, lower] = jaw(draft.template[lower]) if jaw else 0.0
        if name != "tongueOut":
            expression[number, tongue] = jaw(draft.template[tongue]) if jaw else 0.0
        deep = jaw(draft.template) if jaw else np.zeros_like(draft.template)
        way = {"jawOpen": with_jaw, "mouthClose": with_rim}.get(name, with_skin)
        way.apply(expression[number], np.zeros_like(deep), deep, None if jaw else inwards)
        if name == "jawOpen":
            expression[number] += _pocket_gives_way(draft, rings, expression[number])
    for number, name in enumerate(names):
        if name in ("mouthClose", "tongueOut") or (
            name.endswith("Right") and name not in ("jawRight", "mouthRight")
        ):
            continue
        if not expression[number, rings[0]].any():
            continue
        paired = name.endswith("Left") and name not in ("jawLeft", "mouthLeft")
        sides = [number, names.index(name.replace("Left", "Right"))] if paired else [number]
        size = np.linalg.norm(expression[sides], axis=2, keepdims=True) ** 2 + 1e-12
        for _ in range(3):
            moved = expression[sides].sum(0)
            push = apart(draft, rings, moved)
            push += spread(draft, rings, moved + push)
            push += out_of_teeth(draft, rings, config, moved + push, motions.get(name))
            expression[sides] += size / size.sum(0) * push
    shape = draft.shape.copy()
    arch = lip_fit(draft, rings)(draft.template)
    none = np.zeros_like(draft.template)
    inside = np.concatenate([rings[-k] for k in range(1, INNER + 1)])
    shape_inwards = _inwards(draft, rings, config, SHAPE_INWARDS)[inside]
    for offsets, rigid in zip(shape, arch, strict=True):
        relative = offsets - rigid
        with_shape.apply(relative, none, none)
        own = relative[inside]
        own -= (own * shape_inwards).sum(1, keepdims=True) * shape_inwards
        offsets[inside] = rigid[inside] + own
    pairs = draft.pair_offsets.copy()
    for each in pairs:
        with_skin.apply(each, np.zeros_like(each), np.zeros_like(each), inwards)
    return replace(draft, expression=expression, shape=shape, pair_offsets=pairs)


class _Following:
    """Moves the cavity with the lips, the upper arch and the jaw.

    shares: how much of the displacement of the skin before them the rings take from the rim inwards, the rest is that
    of the arches; nan: as harmonic as between their neighbours.
    """

    def __init__(self, draft: Draft, rings: Rings, shares: tuple[float, ...]) -> None:
        count = rings.loops.shape[1]
        up = _upness(draft, rings)
        self._rim = rings[0]
        self._sources = np.concatenate([rings[k] for k in range(OUTER + 1)])
        size = len(self._sources)
        fixed = dict(zip(rings[0].tolist(), np.eye(count, size + 2), strict=True))
        for ring, share in enumerate(shares + (0.0,) * (INNER - len(shares)), start=1):
            if np.isnan(share):
                continue
            for column, vertex in enumerate(rings[-ring]):
                row = np.zeros(size + 2)
                before = column + count * np.arange(OUTER + 1)
                away = draft.template[self._sources[before]] - draft.template[vertex]
                near = np.exp(-0.5 * ((away**2).sum(1) - (away**2).sum(1).min()) / FLESH**2)
                row[before] = share * near / near.sum()
                row[size], row[size + 1] = (1 - share) * up[column], (1 - share) * (1 - up[column])
                fixed[int(vertex)] = row
        inside = np.concatenate([rings[-k] for k in range(1, INNER + 1)])
        self._moved, matrix = harmonic(draft, inside, fixed, np.zeros(0, int))
        self._from_skin, self._from_arches = matrix[:, :size], matrix[:, size:]

    def apply(self, offsets: F64, upper: F64, lower: F64, inwards: F64 | None = None) -> None:
        """Sets the cavity's offsets within (V, 3) from the skin's, and from those of arch and jaw (V, 3).

        inwards (V, 3): directions in which the cavity doesn't follow, since teeth are there.
        """
        moved = self._from_skin @ offsets[self._sources]
        moved += self._from_arches[:, :1] * upper[self._moved]
        moved += self._from_arches[:, 1:] * lower[self._moved]
        if inwards is not None:
            towards = inwards[self._moved]
            moved -= np.maximum((moved * towards).sum(1, keepdims=True), 0) * towards
        rim = np.isin(self._moved, self._rim)
        offsets[self._moved[~rim]] = moved[~rim]


def _inwards(draft: Draft, rings: Rings, config: MouthConfig, shares: tuple[float, ...]) -> F64:
    """Horizontal directions (V, 3) to the arch of teeth, of the cavity's vertices, 0 elsewhere; their squared lengths
    are the shares of the rings from the rim inwards, the last one's for all further ones."""
    result = np.zeros_like(draft.template)
    bite = bite_of(draft, rings, config)
    surface = arches()[0].surface
    for ring in range(1, INNER + 1):
        rows = rings[-ring]
        front = surface.outside(1e3 * (draft.template[rows] - bite))[1]
        result[rows] = -front * shares[min(ring, len(shares)) - 1] ** 0.5
    return result


def _pocket_gives_way(draft: Draft, rings: Rings, offsets: F64) -> F64:
    """Corrections (V, 3) of the cavity's lower part that approaches the skin before it under offsets (V, 3)."""
    result = np.zeros_like(offsets)
    skin = draft.rows("skin")
    pocket = np.concatenate([rings[-k][rings.lower] for k in range(1, POCKET + 1)])
    distance, near = cKDTree(draft.template[skin]).query(draft.template[pocket], k=6)
    weights = 1 / distance
    weights /= weights.sum(1, keepdims=True)

    def from_skin(values: F64) -> F64:
        """(N, 3) the pocket's values less those of the skin before it."""
        return np.asarray(values[pocket] - np.einsum("nk,nkc->nc", weights, values[skin[near]]))

    away = from_skin(draft.template)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    nearer = np.maximum(-(from_skin(offsets) * away).sum(1, keepdims=True), 0)
    ring = np.repeat(np.arange(1, POCKET + 1), int(rings.lower.sum()))
    fade = smoothstep(0, 2, ring) * smoothstep(POCKET + 1, POCKET - 2, ring)
    result[pocket] = GIVING_WAY * fade[:, None] * nearer * away
    return result


def _upness(draft: Draft, rings: Rings) -> F64:
    """Share (N,) of the upper arch in the movement of the cavity's columns; the rest is the jaw's."""
    ring = draft.template[rings[-6]]
    middle = (ring[:, 1].max() + ring[:, 1].min()) / 2
    half = np.ptp(ring[:, 1]) / 2
    return smoothstep(-0.6, 0.6, (ring[:, 1] - middle) / half)
