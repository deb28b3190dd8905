"""Measures of eyeballs and of lids on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from avface.arrays import F64, Bool, Int
from avface.geometry.rasteriser import rasterise
from avface.geometry.rotations import rotvec_to_rotmat
from avface.head.anatomy.poses import joint_centres
from avface.head.anatomy.surface import boundary_edges, fit_sphere, radii, vertex_normals
from avface.head.model import HeadModel
from avface.head.schemes import LEFT_EYE_CORNERS, RIGHT_EYE_CORNERS

SCLERA = ("eye", "sclera", "eyeball")
IRIS = ("iris", "pupil")
BALL = (*SCLERA, *IRIS, "cornea", "limbus")
"""What the parts of an eyeball are called, after `left_` or `right_`."""

REACH = 1.6
"""Distance from the eyeball's centre, in its radii, within which the skin in front of it is a lid."""
HIDDEN = 1.25
"""Distance from the eyeball's centre, in its radii, within which the skin may end: the lids cover it."""
STEP = np.radians(0.25)
"""Width of the columns and rows in which the opening between the lids is found."""
COLUMNS = np.linspace(0.03, 0.97, 48)
"""Where the lid line is measured, as shares of the open eye's width."""
TEAR_LAKE = 0.17
"""Share of the eye's width, from the inner corner, in which the lids needn't lie on the eyeball: on the caruncle."""
MARGIN = 0.0015
"""Metres from the lid's edge within which it touches the eyeball; the edge itself is rounded."""
NEAR_EDGE = 0.005
"""Metres from the lid's edge within which it must not be inside the eyeball."""
SUNK = 0.00005
"""Metres inside the eyeball from which a part of the lid can't be seen."""
FACING = 0.3
"""Cosine to the radius from which a lid's surface is its outer one."""
OPEN = 0.0003
"""Metres between the lids from which an eye is open in a column."""


@dataclass(frozen=True, eq=False)
class Eye:
    """An eye of a head.

    joint: its number; ball, iris, skin (F, 3): faces; sclera (N,): vertices; lid (N,): vertices of the skin in front of
    it, upper (N,): whether they belong to the upper lid; lid_edges (M, 2): rows of lid, both of one lid.
    """

    side: str
    joint: int
    ball: Int
    iris: Int
    skin: Int
    sclera: Int
    lid: Int
    upper: Bool
    lid_edges: Int


def find_eye(head: HeadModel, side: str) -> Eye | str:
    """The left or right eye of a head, or why it can't be measured."""
    names = {f"{side}_{part}" for part in BALL} & set(head.part_names)
    if f"{side}_eye" not in head.joint_names or not names & {f"{side}_{part}" for part in SCLERA}:
        return "no eyeballs"
    if "mediapipe478" not in head.embeddings:
        return "no landmarks mediapipe478"
    faces = head.faces.cpu().numpy()

    def of(parts: tuple[str, ...]) -> Int:
        numbers = [head.part_names.index(f"{side}_{part}") for part in parts if f"{side}_{part}" in names]
        return faces[np.isin(head.face_parts, numbers)]

    template = head.template.cpu().double().numpy()
    joint = head.joint_names.index(f"{side}_eye")
    centre = joint_centres(head, np.zeros(head.num_shape))[joint]
    sclera = np.unique(of(SCLERA))
    if not len(sclera):
        return "no eyeballs"
    radius = fit_sphere(template[sclera])[1]
    skin = faces[head.face_parts == head.part_names.index("skin")]
    offset = template - centre
    near = (np.linalg.norm(offset, axis=1) < REACH * radius) & (offset[:, 2] > 0.2 * radius)
    skin = skin[near[skin].all(1)]
    angles = _angles(offset)
    marks = LEFT_EYE_CORNERS if side == "left" else RIGHT_EYE_CORNERS
    corners = _angles(head.embedding("mediapipe478").on(template)[marks] - centre)
    middle = _opening(angles, skin, corners)
    if middle is None:
        return "no opening between the lids"
    lid = np.unique(skin)
    upper = angles[lid, 1] > np.interp(angles[lid, 0], *middle)
    row = np.zeros(len(template), np.int64)
    row[lid] = np.arange(len(lid))
    edges = row[
        np.unique(np.sort(np.concatenate([skin[:, [0, 1]], skin[:, [1, 2]], skin[:, [2, 0]]]), 1), axis=0)
    ]
    edges = edges[upper[edges[:, 0]] == upper[edges[:, 1]]]
    return Eye(side, joint, of(BALL), of(IRIS), skin, sclera, lid, upper, edges)


def ball_diameter(eye: Eye, neutral: F64) -> float:
    """Metres, of the sphere nearest to the sclera of a neutral face (V, 3)."""
    return 2 * fit_sphere(neutral[eye.sclera])[1]


def iris_diameters(eye: Eye, neutral: F64) -> tuple[float, float]:
    """Smallest and largest diameter, in metres, of the iris of a neutral face (V, 3), seen along its axis.

    Of its outline as drawn, with the middles of its straight sides.
    """
    edges = boundary_edges(eye.iris)
    points = np.concatenate([neutral[edges[:, 0]], neutral[edges].mean(1)])
    points = points - neutral[np.unique(edges)].mean(0)
    axes = np.linalg.svd(points, full_matrices=False)[2][:2]
    along = np.linspace(0, np.pi, 90, endpoint=False)
    widths = np.ptp(points @ axes.T @ np.stack([np.cos(along), np.sin(along)]), axis=0)
    return float(widths.min()), float(widths.max())


def hidden_by_eyeball(eye: Eye, neutral: F64, edges: Int) -> Bool:
    """(N,) which of edges (N, 2) of the skin end behind the lids, at the eyeball; neutral (V, 3)."""
    centre, radius = fit_sphere(neutral[eye.sclera])
    result: Bool = (np.linalg.norm(neutral[edges] - centre, axis=2) < HIDDEN * radius).all(1)
    return result


@dataclass(frozen=True, eq=False)
class LidLine:
    """Both lids of an eye along its width, from one corner to the other: C columns.

    gap (C,): metres along the eyeball from the lower to the upper lid, negative where they overlap; off (2, C): metres
    between the eyeball and the edge of the upper and of the lower lid, 0 where it is inside, and beside the tear lake;
    inside: metres at most that the lids' edges are inside the sclera (the cornea may bulge into them), or their outer
    sides inside the eyeball.
    """

    gap: F64
    off: F64
    inside: float


def open_columns(head: HeadModel, eye: Eye, neutral: F64, centre: F64) -> F64:
    """Azimuths (C,) from the inner to the outer corner of a person's open eye; neutral (V, 3), the eye's centre (3,).

    Empty if the eye isn't open.
    """
    angles = _angles(neutral[eye.lid] - centre)
    marks = LEFT_EYE_CORNERS if eye.side == "left" else RIGHT_EYE_CORNERS[::-1]
    corners = _angles(head.embedding("mediapipe478").on(neutral)[marks] - centre)[:, 0]
    fine = np.arange(corners.min(), corners.max(), STEP)
    low, high = (_edge(angles, eye, fine, upper, np.ones(len(eye.lid))).elevation for upper in (False, True))
    wide = np.flatnonzero((high - low) * fit_sphere(neutral[eye.sclera])[1] > OPEN)
    if not len(wide):
        return np.zeros(0)
    run = max(np.split(wide, np.flatnonzero(np.diff(wide) > 1) + 1), key=len)
    first, last = fine[run[[0, -1]]][:: 1 if eye.side == "left" else -1]
    result: F64 = first + COLUMNS * (last - first)
    return result


def lid_line(eye: Eye, neutral: F64, posed: F64, centre: F64, turn: F64, columns: F64) -> LidLine:
    """The lids of a person in a pose.

    Shapes: neutral, posed (V, 3) vertices; centre (3,) of the eyeball; turn (3,) rotation of the eye as axis-angle;
            columns (C,) of `open_columns`.
    """
    rotation = rotvec_to_rotmat(torch.as_tensor(turn)[None])[0].numpy()
    offset = posed[eye.lid] - centre
    angles = _angles(offset)
    radius = fit_sphere(neutral[eye.sclera])[1]
    used = np.unique(eye.ball)
    number = np.zeros(len(neutral), np.int64)
    number[used] = np.arange(len(used))
    away = np.linalg.norm(offset, axis=1)
    height = away - radii(offset @ rotation, neutral[used] - centre, number[eye.ball])
    low, high = (_edge(angles, eye, columns, upper, height) for upper in (False, True))

    off = np.stack([np.maximum(lid.lowest(lid.visible, MARGIN / radius), 0) for lid in (high, low)])
    off[:, COLUMNS < TEAR_LAKE] = 0
    facing = np.einsum("nk,nk->n", vertex_normals(posed, eye.skin)[eye.lid], offset) / away > FACING
    edge = np.where(
        eye.upper, *(np.interp(angles[:, 0], *_rising(columns, lid.elevation)) for lid in (high, low))
    )
    between = (angles[:, 0] >= columns.min()) & (angles[:, 0] <= columns.max())
    outer = facing & between & (np.abs(angles[:, 1] - edge) * radius < NEAR_EDGE)
    on_sclera = (_edge(angles, eye, columns, upper, away - radius) for upper in (False, True))
    margins = (lid.lowest(lid.elevation, MARGIN / radius) for lid in on_sclera)
    depth = -np.concatenate([height[outer], *margins])
    return LidLine((high.visible - low.visible) * radius, off, max(0.0, float(np.nanmax(depth, initial=0))))


def _rising(columns: F64, values: F64) -> tuple[F64, F64]:
    """Columns and values for `np.interp`, which needs rising places, without nan."""
    order = np.argsort(columns)
    kept = order[np.isfinite(values[order])]
    if not len(kept):
        return np.zeros(1), np.full(1, np.inf)
    return columns[kept], values[kept]


def _angles(offset: F64) -> F64:
    """Azimuth, to the subject's left, and elevation (..., 2) in radians of points (..., 3) around the origin."""
    x, y, z = np.moveaxis(offset, -1, 0)
    return np.stack([np.arctan2(x, z), np.arctan2(y, np.hypot(x, z))], -1)


@dataclass(frozen=True, eq=False)
class _Edge:
    """Where a lid's surface crosses columns: K crossings of its edges.

    elevation (C,): of the lid's edge; visible (C,): of the edge of what is outside the eyeball; column, at, above (K,):
    the crossings' columns, elevations and heights in metres above the eyeball. nan in columns without crossings.
    """

    elevation: F64
    visible: F64
    column: Int
    at: F64
    above: F64

    def lowest(self, edge: F64, reach: float) -> F64:
        """(C,) least height within reach, in radians, of an edge (C,)."""
        result = np.full(len(edge), np.inf)
        close = np.abs(self.at - edge[self.column]) < reach
        np.minimum.at(result, self.column[close], self.above[close])
        return np.where(np.isfinite(result), result, np.nan)


def _edge(angles: F64, eye: Eye, columns: F64, upper: bool, height: F64) -> _Edge:
    """A lid in columns (C,) of azimuth; angles (N, 2) and heights above the eyeball (N,) of the lids' vertices."""
    edges = eye.lid_edges[eye.upper[eye.lid_edges[:, 0]] == upper]
    azimuth = angles[edges, 0]
    order = np.argsort(columns)
    first, last = (np.searchsorted(columns[order], ends) for ends in (azimuth.min(1), azimuth.max(1)))
    number = np.repeat(np.arange(len(edges)), last - first)
    place = np.arange(len(number)) - np.repeat(np.cumsum(last - first) - last, last - first)
    column = order[place]
    start, end = edges[number].T
    along = angles[end, 0] - angles[start, 0]
    share = (columns[column] - angles[start, 0]) / np.where(along == 0, 1.0, along)
    at = angles[start, 1] + share * (angles[end, 1] - angles[start, 1])
    above = height[start] + share * (height[end] - height[start])

    down = 1 if upper else -1  # towards the other lid
    order = np.lexsort((down * at, column))
    present, nearest = np.unique(column[order], return_index=True)
    elevation, visible = np.full((2, len(columns)), np.nan)
    elevation[present] = at[order][nearest]
    order = order[above[order] > -SUNK]
    present, nearest = np.unique(column[order], return_index=True)
    visible[present] = at[order][nearest]
    return _Edge(elevation, visible, column, at, above)


def _opening(angles: F64, skin: Int, corners: F64) -> tuple[F64, F64] | None:
    """Azimuths and elevations of the middle between the lids, as the eyeball's centre sees them; beyond the corners
    horizontal. None if there is no opening between corners (2, 2)."""
    from scipy.ndimage import label

    size = round(np.pi / STEP)
    shown = torch.as_tensor((angles + np.pi / 2) / STEP)
    drawn = rasterise(shown, torch.ones(len(shown)), torch.as_tensor(skin), size, size)
    free, _ = label(drawn.triangle.numpy() < 0)
    middle = (corners.mean(0) + np.pi / 2) / STEP
    columns = np.arange(round(middle[0]) - 8, round(middle[0]) + 9)
    rows = np.arange(round(middle[1]) - 8, round(middle[1]) + 9)
    found = free[np.ix_(rows, columns)]
    outside = free[0, 0]
    found = found[(found > 0) & (found != outside)]
    if not len(found):
        return None
    hole = free == np.bincount(found).argmax()
    columns = np.flatnonzero(hole.any(0))
    rows = np.arange(size)[:, None]
    low = np.where(hole, rows, size).min(0)[columns]
    high = np.where(hole, rows, -1).max(0)[columns]
    return columns * STEP - np.pi / 2, (low + high) / 2 * STEP - np.pi / 2
