"""Lids of the open head that lie on the eyeballs at rest, for every shape."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from avface.arrays import F64, Int
from avface.errors import AvfaceError
from avface.geometry.interpolation import smoothstep
from avface.head.open.deformation import both_ways, cotangent_laplacian
from avface.head.open.draft import Draft
from avface.head.open.eyes.region import INNER_RINGS, LidRings, lid_rings

RADIUS = 0.012
"""Radius of the mean head's eyeballs in metres."""
GAP = 0.0002
"""Distance in metres of the lids' inner edge to the eyeball at rest."""


@dataclass(frozen=True)
class LidFitConfig:
    """Parameters of the lids at rest; lengths in metres on the mean head."""

    radius: float = RADIUS
    """Radius of the eyeball."""
    gap: float = GAP
    """Distance of the lids' inner edge to the eyeball."""
    thickness: float = 0.0017
    """Thickness of the lids' margin."""
    inner_angles: tuple[float, float] = (10.0, 30.0)
    """How far the rings of the inner surface lie behind the margin, in degrees about the eyeball's centre."""
    caruncle: tuple[float, float] = (0.75, 0.93)
    """Where the lids leave the eyeball towards the inner corner: from and to, in shares of the lids' columns."""
    inner_gap: float = 0.0003
    """Distance of the inner surface to the sclera: the cornea turns below it."""
    upright: float = 0.8
    """Share of the way from MakeHuman's slanted margin, whose inner edge reaches farther outwards and higher than its
    outer one, to one along the eyeball's radii."""
    variety: float = 0.3
    """Share that is kept of how the lids of different people lie on the eyeball. MakeHuman's openings are 5 to 14 mm
    high, people's 8 to 11; and offsets along a straight line leave the eyeball where they are long."""
    height_variety: float = 0.45
    """The same for the opening's height."""
    slant_variety: float = 0.3
    """The same for how the margin slants: where its outer edge hangs far below its inner one, it is off the eyeball."""
    skin_variety: float = 0.64
    """The same for how far the skin around the lids is from the eyeball: where it is thin, cheeks that lie far back
    would be inside."""
    skin_heights: tuple[float, float] = (0.006, 0.014)
    """Heights of the skin above the mean head's eyeball from which on, and up to which, it varies more and more as
    MakeHuman's; metres."""
    soft_rings: int = 8
    """Rings of skin outside the margin over which a change of the lids fades out."""

    def __post_init__(self) -> None:
        for name in ("radius", "gap", "thickness", "inner_gap", "soft_rings"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")
        for name in ("upright", "variety", "height_variety", "slant_variety", "skin_variety"):
            if not 0 <= getattr(self, name) <= 1:
                raise AvfaceError(f"{name}={getattr(self, name)} must be from 0 to 1")
        for name in ("inner_angles", "caruncle", "skin_heights"):
            first, last = getattr(self, name)
            if not 0 <= first < last:
                raise AvfaceError(f"{name}={getattr(self, name)} must rise, from 0 on")


class LidField:
    """Smooth displacement fields of the skin around one eye, given those of the margin and of the inner surface.

    Fields of least bending (cotangent weights) that are 0, with slope 0, from the last soft ring outwards.
    """

    def __init__(self, draft: Draft, rings: LidRings, soft_rings: int) -> None:
        self.rings = rings
        self.handles: Int = np.concatenate(rings.rings[: INNER_RINGS + 3])
        """(H,) vertices whose displacement is given: ring by ring, inwards to outwards."""
        free = np.concatenate(rings.skin[:soft_rings])
        triangles = both_ways(draft.quads)  # so that the fields of both sides mirror each other
        inside = np.zeros(len(draft.template), bool)
        inside[self.handles] = inside[free] = True
        near = np.isin(triangles, np.flatnonzero(inside)).any(1)
        reached = np.unique(triangles[near])
        triangles = triangles[np.isin(triangles, reached).any(1)]
        used, local = np.unique(triangles, return_inverse=True)
        laplacian, area = cotangent_laplacian(draft.template[used] * 1000, local.reshape(-1, 3))
        bending = (laplacian @ sp.diags(1 / area) @ laplacian).tocsr()
        number = np.full(len(draft.template), -1)
        number[used] = np.arange(len(used))
        self.free: Int = free
        self._solver = splu(bending[number[free]][:, number[free]].tocsc())
        self._coupling = bending[number[free]][:, number[self.handles]]

    def rows(self) -> Int:
        """(H + N,) the vertices that fields move: handles, then skin."""
        return np.concatenate([self.handles, self.free])

    def solve(self, values: F64) -> F64:
        """(H + N, C) the field at `rows`, given the handles' values (H, C)."""
        free = self._solver.solve(-(self._coupling @ values))
        return np.concatenate([values, free])


def fit_lids(draft: Draft, config: LidFitConfig) -> Draft:
    """The draft with lids on the eyeballs about `Draft.eye_centres`, of the mean head and of every shape component.

    The margin's inner edge lies on the eyeball but for the caruncle at the inner corner, the rings of the inner surface
    everywhere. Shape components carry the lids along with the eyeball and over its surface, but not off it. The skin
    around follows smoothly. Component 0 scales the whole head, as before.
    """
    template, shape = draft.template.copy(), draft.shape.copy()
    for side, rings in enumerate(lid_rings(draft)):
        field = LidField(draft, rings, config.soft_rings)
        rows, handles = field.rows(), field.handles
        centre = draft.eye_centres[0, side]
        target = _rest(draft.template, rings, centre, config)
        template[rows] += field.solve(target - draft.template[handles])
        moves = draft.eye_centres[1:, side]
        off = _off_the_ball(draft.shape[:, handles], moves, target, rings, centre, config)
        count = len(handles)
        solved = field.solve(np.moveaxis(off, 0, 1).reshape(count, -1)).reshape(len(rows), len(off), 3)
        shape[:, rows] -= np.moveaxis(solved, 1, 0)
        around = np.setdiff1d(draft.rows("skin"), handles)
        outwards = template[around] - centre
        height = np.linalg.norm(outwards, axis=1)
        outwards /= height[:, None]
        damped = (1 - config.skin_variety) * smoothstep(*config.skin_heights[::-1], height - config.radius)
        relative = shape[1:, around] - moves[1:, None]
        shape[1:, around] -= (damped * (relative * outwards).sum(2))[..., None] * outwards
    shape[0] = draft.size_sigma * template
    return replace(draft, template=template, shape=shape)


def angles_of(offset: F64) -> tuple[F64, F64]:
    """Azimuth and height in radians of offsets (K, 3) from the eyeball's centre."""
    x, y, z = offset.T
    return np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))


def direction_of(azimuth: F64, height: F64) -> F64:
    """(K, 3) directions of azimuths and heights."""
    return np.stack([np.sin(azimuth) * np.cos(height), np.sin(height), np.cos(azimuth) * np.cos(height)], 1)


def on_the_ball(columns: int, config: LidFitConfig) -> F64:
    """(K,) 1 for columns of the lids that lie on the eyeball, 0 at the inner corner's caruncle, smooth between."""
    along = np.minimum(np.arange(columns), columns - np.arange(columns)) / (columns / 2)
    first, last = config.caruncle
    return smoothstep(last, first, along)


def _rest(template: F64, rings: LidRings, centre: F64, config: LidFitConfig) -> F64:
    """(H, 3) places of margin and inner surface on the mean head."""
    weight = on_the_ball(rings.columns, config)
    reach = config.radius + config.gap
    margin = []
    offsets = [template[ring] - centre for ring in rings.margin]
    angles = [np.stack(angles_of(offset)) for offset in offsets]
    common = (angles[0] + angles[2]) / 2
    for offset, share, angle in zip(offsets, (0, 0.5, 1), angles, strict=True):
        distance = np.linalg.norm(offset, axis=1)
        goal = distance + weight * (reach + share * config.thickness - distance)
        turned = direction_of(*(angle + config.upright * weight * (common - angle)))
        margin.append(centre + goal[:, None] * turned)
    offset = margin[0] - centre
    around = np.arctan2(offset[:, 1], offset[:, 0])
    angle = np.arctan2(np.hypot(offset[:, 0], offset[:, 1]), offset[:, 2])
    column = np.arange(rings.columns)
    upwards = np.sign(rings.columns / 2 - column) * (column > 0)
    along = 2 * np.minimum(column, rings.columns - column) / rings.columns
    away = np.radians(13) * smoothstep(0.55, 0.93, along)
    away *= upwards * np.clip(np.abs(rings.columns / 2 - column) / 3, 0, 1)
    # Near the outer corner it stays away from the line where the lids meet.
    away += np.radians(9) * upwards * np.clip(1.2 - np.minimum(column, rings.columns - column) / 13, 0, 1)
    inner = []
    for degrees in config.inner_angles[::-1]:
        a = np.minimum(angle + np.radians(degrees), np.radians(70 + degrees))
        ring = np.stack([np.sin(a) * np.cos(around), np.sin(a) * np.sin(around), np.cos(a)], 1)
        azimuth, height = angles_of(ring)
        inner.append(centre + (config.radius + config.inner_gap) * direction_of(azimuth, height + away))
    return np.concatenate([*inner, *margin])


def _off_the_ball(
    moved: F64, moves: F64, target: F64, rings: LidRings, centre: F64, config: LidFitConfig
) -> F64:
    """(S, H, 3) the part of the shape components' offsets (S, H, 3) that would move the lids off the eyeball, which
    moves by (S, 3)."""
    relative = moved - moves[:, None]
    outwards = (target - centre) / np.linalg.norm(target - centre, axis=1, keepdims=True)
    count = rings.columns
    facing = (count - np.arange(count)) % count
    off = np.empty_like(moved)
    off[:, : INNER_RINGS * count] = relative[
        :, : INNER_RINGS * count
    ]  # the inner surface is the ball's alone
    share = on_the_ball(count, config)
    edge = np.zeros_like(relative[:, :count])
    for k in range(INNER_RINGS, INNER_RINGS + 3):
        ring = slice(k * count, (k + 1) * count)
        common = 0.5 * (relative[:, ring] + relative[:, ring][:, facing])
        apart = config.height_variety * (relative[:, ring] - common)
        move = apart + (1 - share[:, None] * (1 - config.variety)) * common
        if k == INNER_RINGS:
            edge = move
        move = edge + (1 - share[:, None] * (1 - config.slant_variety)) * (move - edge)
        normal = outwards[ring]
        lifted = np.einsum("skc,kc->sk", move, normal) * share
        off[:, ring] = relative[:, ring] - move + lifted[..., None] * normal
    return off
