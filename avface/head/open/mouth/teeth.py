"""Teeth and gums of the open head: two arches of 14 crowns each, with gums and a palate.

Sizes are those of human teeth (widths and heights of crowns as in textbooks of dental anatomy: upper central incisor
8.5 x 10.5 mm, lower 5.3 x 9 mm, overbite and overjet 2 mm); the shapes are a few rounded rings each. Everything is
built in a frame of its own: millimetres, x to the subject's left, y up, z to the front, the origin in the middle of the
upper incisors' edges.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
from scipy.interpolate import CubicSpline

from avface.arrays import F64, Int

AROUND = 8
"""Vertices of a ring around a crown; number 0 is the middle of the front, numbers rise towards the tooth's left."""
ARCH = np.array(
    [
        [0.0, 0.0],
        [4.3, 0.5],
        [8.4, 2.0],
        [11.7, 4.7],
        [14.5, 9.0],
        [16.6, 14.4],
        [18.3, 21.4],
        [19.8, 30.0],
        [20.9, 40.0],
        [21.3, 52.0],
    ]
)
"""Half of the curve through the contacts of the upper teeth: x, and depth behind its middle; mm."""
OVERJET, OVERBITE = 2.2, 2.0
"""Horizontal and vertical distance from the upper to the lower incisors' edges; mm."""
UPPER_TILT, LOWER_TILT = 0.12, 0.4
"""Depth of the teeth's roots behind their edges, as a share of the height."""


@dataclass(frozen=True, eq=False)
class Crown:
    """Levels from inside the gum to the edge, then one ring within the biting surface.

    height (mm) from the gum's line to the edge; width (mm) at the contacts; rise, share of the height above the gum's
    line of each level; breadth, share of the width; front and back, mm before and behind the arch's curve; cusps, mm
    that the corners of the last two levels stand above their middles.
    """

    width: float
    height: float
    rise: tuple[float, ...]
    breadth: tuple[float, ...]
    front: tuple[float, ...]
    back: tuple[float, ...]
    cusps: float = 0.0


def _incisor(width: float, height: float, thick: float) -> Crown:
    return Crown(
        width,
        height,
        (-0.07, 0.12, 0.45, 0.8, 0.97, 1.0),
        (0.74, 0.84, 0.95, 1.0, 0.95, 0.74),
        (0.2, 0.75, 1.15, 1.0, 0.7, 0.2),
        (0.80 * thick, 0.80 * thick, 0.55 * thick, 1.3, 0.9, 0.4),
    )


def _canine(width: float, height: float) -> Crown:
    return Crown(
        width,
        height,
        (-0.07, 0.12, 0.45, 0.74, 0.93, 1.03),
        (0.68, 0.84, 1.0, 0.92, 0.55, 0.18),
        (0.6, 1.5, 2.0, 1.7, 1.0, 0.3),
        (5.2, 5.4, 4.4, 2.6, 1.2, 0.4),
    )


def _premolar(width: float, height: float) -> Crown:
    return Crown(
        width,
        height,
        (-0.08, 0.12, 0.45, 0.78, 0.97, 0.84),
        (0.68, 0.84, 1.0, 0.96, 0.72, 0.34),
        (3.2, 4.0, 4.3, 4.0, 2.9, 1.2),
        (4.0, 4.4, 4.5, 4.2, 3.0, 1.2),
        0.3,
    )


def _molar(width: float, height: float) -> Crown:
    return Crown(
        width,
        height,
        (-0.1, 0.12, 0.45, 0.78, 0.95, 0.78),
        (0.78, 0.90, 1.0, 0.97, 0.80, 0.42),
        (4.4, 5.1, 5.3, 4.9, 3.7, 1.7),
        (4.9, 5.3, 5.4, 5.1, 3.9, 1.8),
        0.7,
    )


UPPER = (
    _incisor(8.5, 10.5, 6.6),
    _incisor(6.7, 9.4, 6.0),
    _canine(7.6, 10.2),
    _premolar(7.0, 8.4),
    _premolar(6.8, 8.0),
    _molar(10.2, 7.4),
    _molar(9.6, 7.0),
)
LOWER = (
    _incisor(5.3, 9.0, 5.6),
    _incisor(5.8, 9.0, 5.8),
    _canine(6.8, 9.4),
    _premolar(7.0, 7.8),
    _premolar(7.1, 7.6),
    _molar(10.8, 7.2),
    _molar(10.2, 7.0),
)
UPPER_EDGES = (0.0, 0.6, 0.0, 0.6, 0.9, 1.1, 1.6)
"""Height of the edges of the upper teeth over that of the middle ones; mm."""
LOWER_EDGES = (2.0, 2.0, 1.9, 0.4, 0.6, 0.8, 1.3)
"""The same of the lower teeth, which just touch the upper ones."""


@dataclass(frozen=True, eq=False)
class Solid:
    """A mesh: points (N, 3) mm, quads (Q, 4) counter-clockwise seen from outside, flat (N, 2) its UV points, 0 to 1."""

    points: F64
    quads: Int
    flat: F64


class _Curve:
    """A symmetric plane curve by its length from the middle, positive to the left."""

    def __init__(self, half: F64) -> None:
        whole = np.concatenate([half[:0:-1] * [-1, 1], half])
        length = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(whole, axis=0), axis=1))])
        self._spline = CubicSpline(length - length[len(half) - 1], whole)

    def at(self, length: F64) -> tuple[F64, F64, F64]:
        """Points, directions to the left and to the front (..., 3), horizontal."""
        xz, slope = self._spline(length), self._spline(length, 1)
        slope = slope / np.linalg.norm(slope, axis=-1, keepdims=True)
        none = np.zeros(np.shape(length))
        point = np.stack([xz[..., 0], none, -xz[..., 1]], -1)
        left = np.stack([slope[..., 0], none, -slope[..., 1]], -1)
        front = np.stack([slope[..., 1], none, slope[..., 0]], -1)
        return point, left, front

    def nearest(self, points: F64) -> tuple[F64, F64, F64]:
        """Nearest points (N, 3) of the curve in plan, their directions to the front (N, 3), and lengths (N,)."""
        length = np.linspace(-58, 58, 233)
        on, _, front = self.at(length)
        away = np.linalg.norm(points[:, None, ::2] - on[None, :, ::2], axis=2)
        best = away.argmin(1)
        return on[best] * [1, 0, 1] + points * [0, 1, 0], front[best], length[best]


@dataclass(frozen=True, eq=False)
class ArchSurface:
    """The front of an arch, as a wall that teeth and gums don't cross.

    middles (7,): the teeth's middles along the curve, from the middle one; bulge (7,): how far the wall is before it.
    """

    curve: _Curve
    middles: F64
    bulge: F64
    up: float

    def outside(self, points: F64) -> tuple[F64, F64]:
        """Signed distances (N,) of points (N, 3) mm from the wall, positive before it, and its normals (N, 3)."""
        upright = points + np.stack([np.zeros(len(points)), np.zeros(len(points)), _lean(points, self.up)], 1)
        nearest, front, length = self.curve.nearest(upright)
        distance = ((upright - nearest) * front).sum(1)
        return distance - np.interp(np.abs(length), self.middles, self.bulge), front


@dataclass(frozen=True, eq=False)
class Arch:
    """One arch in mm.

    surface: how far its teeth and gums reach.
    """

    teeth: Solid
    gums: Solid
    surface: ArchSurface


@cache
def arches() -> tuple[Arch, Arch]:
    """The upper and the lower arch, clenched."""
    lower_curve = ARCH * [0.95, 1.0] + np.array([0.0, OVERJET])
    return (
        _arch(UPPER, UPPER_EDGES, ARCH, 1.0),
        _arch(LOWER, LOWER_EDGES, lower_curve, -1.0),
    )


def _lean(points: F64, up: float) -> F64:
    """How far points (N, 3) mm of an arch stand back for its teeth's tilt, (N,); not the upper teeth's palate."""
    if up > 0:
        return UPPER_TILT * np.clip(points[:, 1], -3.0, 18.0)
    return LOWER_TILT * (LOWER_EDGES[0] - points[:, 1])


def _arch(crowns: tuple[Crown, ...], edges: tuple[float, ...], half: F64, up: float) -> Arch:
    """up: 1 for the upper arch, whose gums are above its edges, -1 for the lower."""
    curve = _Curve(half)
    ends = np.concatenate([[0], np.cumsum([crown.width for crown in crowns])])
    middles = (ends[:-1] + ends[1:]) / 2
    order = [(k, -1.0) for k in range(len(crowns))][::-1] + [(k, 1.0) for k in range(len(crowns))]
    solids = [_tooth(crowns[k], curve, side * middles[k], edges[k], up) for k, side in order]
    cells = [(solid, np.array([number, 0.0])) for number, solid in enumerate(solids)]
    flat = [(solid.flat * 0.9 + 0.05 + cell) / [len(solids), 1] for solid, cell in cells]
    parts, quads = [solid.points for solid in solids], [solid.quads for solid in solids]
    starts = np.cumsum([0] + [len(each) for each in parts[:-1]])
    teeth = Solid(
        np.concatenate(parts),
        np.concatenate([q + start for q, start in zip(quads, starts, strict=True)]),
        np.concatenate(flat),
    )
    gums = _gums(crowns, edges, curve, ends, up)
    for points in (teeth.points, gums.points):
        points[:, 2] -= _lean(points, up)
    bulge = np.array([max(crown.front) for crown in crowns])
    return Arch(teeth, gums, ArchSurface(curve, middles, bulge + GUM_BULGE, up))


def _tooth(crown: Crown, curve: _Curve, length: float, edge: float, up: float) -> Solid:
    """A crown at a length along the arch."""
    origin, left, front = curve.at(np.array(length))
    angle = np.arange(AROUND) * 2 * np.pi / AROUND
    across = np.sign(np.sin(angle)) * np.abs(np.sin(angle)) ** 0.62  # corners fuller than an ellipse's
    along = np.sign(np.cos(angle)) * np.abs(np.cos(angle)) ** 0.62
    corners = np.abs(np.sin(2 * angle))
    rings = []
    for level, rise in enumerate(crown.rise):
        depth = np.where(along > 0, crown.front[level] * along, crown.back[level] * along)
        # a short crown's edge is at `edge`; its gum's line is the height further up
        height = edge + up * (1 - rise) * crown.height * np.ones(AROUND)
        if level >= len(crown.rise) - 2:
            height = height - up * crown.cusps * corners
        rings.append(
            origin
            + (crown.width / 2 * crown.breadth[level] * 0.985 * across)[:, None] * left
            + depth[:, None] * front
            + height[:, None] * np.array([0.0, 1.0, 0.0])
        )
    levels = len(rings)
    quads = _wall(levels, AROUND)
    last = (levels - 1) * AROUND
    cap = np.array([[0, 1, 7, 7], [1, 2, 6, 7], [2, 3, 5, 6], [3, 4, 5, 5]])
    quads = np.concatenate([quads, last + cap, cap[:, ::-1]])
    if up > 0:  # levels go down, so that left-handed rings turn the other way
        quads = quads[:, ::-1]
    flat = np.stack(
        [
            np.tile(0.5 + 0.5 * across, levels) * 0.5 + np.repeat(np.linspace(0, 0.5, levels), AROUND),
            np.tile(0.5 + 0.5 * along, levels),
        ],
        1,
    )
    return Solid(np.concatenate(rings), _repeat_last(quads), flat)


def _wall(levels: int, around: int) -> Int:
    """Quads between successive rings, counter-clockwise seen from outside where rings rise along +y."""
    k, after = np.arange(around), (np.arange(around) + 1) % around
    return np.concatenate(
        [
            np.stack([n * around + k, n * around + after, (n + 1) * around + after, (n + 1) * around + k], 1)
            for n in range(levels - 1)
        ]
    )


def _repeat_last(quads: Int) -> Int:
    """Quads with a repeated corner turned so that it is the last one."""
    result = quads.copy()
    for shift in range(1, 4):
        turned = np.roll(quads, -shift, 1)
        rows = (result[:, 2] != result[:, 3]) & (turned[:, 2] == turned[:, 3])
        result[rows] = turned[rows]
    return result


GUM_BULGE = 0.7
"""How far gums reach before the crowns' fronts; mm."""
GUM_ROWS = (
    # height over the gum's line (mm), mm before (+) the crown's front or behind (-) its back, side
    (8.5, -0.8, 1),
    (3.6, 0.8, 1),
    (1.4, 0.75, 1),
    (0.0, 0.25, 1),
    (0.6, 0.0, 0),
    (0.0, -0.25, -1),
    (1.6, -0.9, -1),
    (7.0, -2.2, -1),
)
"""Rows of the gums from the fold behind the lips over the crest to the inner side."""
PAPILLA = 2.6
"""Height of the gum between two teeth over that at a tooth's middle; mm."""
PALATE = (0.25, 0.5, 0.75)
"""Where the palate's rows of vertices lie between both sides of the gums."""
PALATE_HEIGHT = 3.5
"""How much higher the palate's middle is than the inner side of the gums; mm."""


def _gum_stations(crowns: tuple[Crown, ...], edges: tuple[float, ...], ends: F64, up: float) -> F64:
    """(M, 5) places along the arch: length, height of the gum's line, 1 between teeth and 0 at them, and how far the
    teeth reach before and behind the curve; mm."""
    stations: list[tuple[float, float, float, float, float]] = []
    count = len(crowns)
    lines = [edge + up * crown.height for edge, crown in zip(edges, crowns, strict=True)]
    for k, crown in enumerate(crowns):
        before = max(k - 1, 0)
        stations.append(
            (
                ends[k],
                (lines[before] + lines[k]) / 2,
                1.0,
                (crown.front[0] + crowns[before].front[0]) / 2 - 0.35,
                (crown.back[0] + crowns[before].back[0]) / 2 - 0.3,
            )
        )
        for share in (0.24, 0.76):
            stations.append(
                (ends[k] + share * crown.width, lines[k], 0.0, crown.front[1] - 0.3, crown.back[1] - 0.3)
            )
    stations.append((ends[count] + 0.8, lines[-1], 0.2, crowns[-1].front[0], crowns[-1].back[0]))
    half = np.array(stations)
    return np.concatenate([half[:0:-1] * [-1, 1, 1, 1, 1], half])


def _gums(crowns: tuple[Crown, ...], edges: tuple[float, ...], curve: _Curve, ends: F64, up: float) -> Solid:
    """A strip over the crowns' roots; of the upper arch with the palate."""
    table = _gum_stations(crowns, edges, ends, up)
    length, line, papilla, ahead, behind = table.T
    origin, _, front = curve.at(length)
    levels = []
    for height, out, side in GUM_ROWS:
        lifted = PAPILLA if height < 1 else 0.3 * PAPILLA * (height < 3)
        level = line + up * (height - lifted * papilla)
        depth = {1: ahead + out, 0: (ahead - behind) / 2, -1: -behind + out}[side]
        levels.append(origin + depth[:, None] * front + level[:, None] * np.array([0.0, 1.0, 0.0]))
    n, m = len(GUM_ROWS), len(table)
    points = np.stack(levels)  # (n, m, 3)
    middle = m // 2
    flat = np.stack(np.broadcast_arrays(np.linspace(0, 1, m)[None], np.linspace(0, 0.6, n)[:, None]), -1)
    strip = np.arange(n * m).reshape(n, m)
    rows_quads = [_between(strip[k], strip[k + 1]) for k in range(n - 1)]
    right, left = strip[:, 0], strip[:, -1]
    caps = [right[_CAP], left[_CAP][:, ::-1]]
    if up < 0:
        quads = np.concatenate([*rows_quads, _between(strip[-1], strip[0]), *caps])
        return Solid(points.reshape(-1, 3), _repeat_last(quads), flat.reshape(-1, 2))
    inner, mirrored = points[-1, :middle], points[-1, : m - middle - 1 : -1]
    wide = np.minimum(np.linalg.norm(mirrored - inner, axis=1) / 35, 1.0)
    palate = np.stack([(1 - share) * inner + share * mirrored for share in PALATE])
    palate[..., 1] += PALATE_HEIGHT * 4 * np.outer(np.multiply(PALATE, np.subtract(1, PALATE)), wide)
    dome = n * m + np.arange(len(PALATE) * middle).reshape(len(PALATE), middle)
    foremost = np.full((len(PALATE), 1), strip[-1, middle])
    across = [strip[-1, : middle + 1], *np.hstack([dome, foremost]), strip[-1, : middle - 1 : -1]]
    ridge = (points[0, :middle] + points[0, : m - middle - 1 : -1]) / 2  # of the cover over the palate
    ridge[:, 1] = np.maximum(ridge[:, 1], palate[..., 1].max(0)) + 2.0
    top = np.append(n * m + palate.size // 3 + np.arange(middle), strip[0, middle])
    cover = [strip[0, : middle - 1 : -1], top, strip[0, : middle + 1]]
    first, second, third = dome[:, 0]
    back = np.array(
        [
            [right[0], right[-1], first, top[0]],
            [top[0], first, second, second],
            [top[0], second, third, third],
            [top[0], third, left[-1], left[0]],
        ]
    )
    sheets = [_between(*pair) for rows in (across, cover) for pair in pairwise(rows)]
    quads = np.concatenate([*rows_quads, *sheets, *caps, back])
    # The strip, the palate as a half disc above it and the cover as one below: an island that doesn't overlap itself
    radius = 0.5 - flat[0, :middle, 0]
    turn = np.pi * np.array(PALATE)[:, None]
    dome_flat = np.stack([0.5 - radius * np.cos(turn), 0.6 + 0.8 * radius * np.sin(turn)], -1)
    ridge_flat = np.stack([np.full(middle, 0.5), -0.8 * radius], -1)
    island = np.concatenate([flat.reshape(-1, 2), dome_flat.reshape(-1, 2), ridge_flat])
    island[:, 1] = (island[:, 1] - ridge_flat[0, 1]) / (1 - ridge_flat[0, 1])
    return Solid(
        np.concatenate([points.reshape(-1, 3), palate.reshape(-1, 3), ridge]),
        _repeat_last(quads[:, ::-1]),
        island,
    )


_CAP = np.array([[0, 1, 6, 7], [1, 2, 5, 6], [2, 3, 4, 5]])
"""Quads over the end of a strip of `GUM_ROWS`."""


def _between(one: Int, other: Int) -> Int:
    """Quads between two rows of the same number of vertices."""
    return np.stack([one[:-1], one[1:], other[1:], other[:-1]], 1)
