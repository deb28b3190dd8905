"""Texture coordinates of the open head."""

from __future__ import annotations

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from avface.arrays import F64, Int
from avface.head.open.draft import Draft
from avface.head.open.outside.unwrap import unwrap

STRIP = 0.11
"""Height of the strip at the bottom of the square, below the skin."""
MARGIN = 0.05
"""Width of the margin on each side of an island, as a share of its cell."""
FACE_GAIN, FACE_SPREAD = 1.4, 0.25
"""How much denser texels lie in height at the middle of the face than far from it, and how far that reaches, as a share
of the skin's height."""
EYE_PARTS = ("eye", "iris", "pupil")


def layout_uv(draft: Draft) -> tuple[F64, Int]:
    """UV points (M, 2) and polygons (Q, 4) of a draft: the skin's island, unwrapped anew, fills the square upright; the
    rest lies in a strip below, one cell for each part, in which the part's islands lie in rows.

    v is up; all polygons are counter-clockwise. The face is magnified in height by a monotone map, so that no polygon
    flips and the square around it is nearly filled. Islands of other parts are the draft's, cut where they fold back,
    each in a square box whose side is in proportion to the square root of its area on the head.

    Raises:
        AvfaceError: if the skin isn't one piece with a loop at the neck.
    """
    draft = unwrap(draft)
    parts = draft.parts
    uv, uv_quads, island = _unfolded(draft.uv, draft.uv_quads)
    main = np.bincount(island[parts == "skin"]).argmax()
    placed = np.zeros_like(uv)
    rows = np.unique(uv_quads[island == main])
    square = _unit_square(uv[rows])
    face = np.zeros(len(uv), bool)
    face[uv_quads[draft.regions["face"][draft.quads] & (parts == "skin")[:, None]]] = True
    height = square[face[rows], 1]
    square[:, 1] = _magnify(square[:, 1], (height.min() + height.max()) / 2)
    placed[rows] = np.array([0, STRIP]) + np.array([1, 1 - STRIP]) * square

    size = np.sqrt(np.bincount(island, _areas(draft.template[draft.quads])))
    cells: dict[str, list[int]] = {}
    for number in np.unique(island[island != main]).tolist():
        cells.setdefault(_cell(str(parts[island == number][0])), []).append(number)
    width = 1 / max(len(cells), 1)
    cell = min(width, 0.95 * STRIP)
    for column, islands in enumerate(cells.values()):
        for number, (corner, side) in zip(islands, _boxes(size[islands]), strict=True):
            own = island == number
            rows = np.unique(uv_quads[own])
            points = uv[rows]
            pupil = uv_quads[own & np.char.endswith(parts, "_pupil")]
            if len(pupil):
                points = _wide_eyed(points, uv[np.unique(pupil)].mean(0))
            inside = corner + side * (MARGIN + (1 - 2 * MARGIN) * _unit_square(points))
            placed[rows] = cell * inside + np.array([column * width, 0])
    return placed, uv_quads


def _unfolded(uv: F64, uv_quads: Int) -> tuple[F64, Int, Int]:
    """UV points and polygons whose islands don't fold back, all counter-clockwise, and the island (Q,) of each polygon.

    Polygons that share an edge are of one island if they have the same direction; those of islands that face away are
    mirrored.
    """
    turned = _areas_2d(uv[uv_quads]) < 0
    sides = np.sort(np.stack([uv_quads, np.roll(uv_quads, -1, 1)], -1), axis=2).reshape(-1, 2)
    owner = np.repeat(np.arange(len(uv_quads)), 4)
    order = np.lexsort(sides.T)
    sides, owner = sides[order], owner[order]
    same = (sides[1:] == sides[:-1]).all(1) & (turned[owner[1:]] == turned[owner[:-1]])
    links = (np.ones(same.sum()), (owner[1:][same], owner[:-1][same]))
    _, island = connected_components(coo_matrix(links, shape=(len(uv_quads),) * 2), directed=False)
    keys, renumbered = np.unique(
        np.stack([np.repeat(island, 4), uv_quads.ravel()], 1), axis=0, return_inverse=True
    )
    points = uv[keys[:, 1]]
    away = np.zeros(island.max() + 1, bool)
    away[island] = turned
    points[away[keys[:, 0]], 0] *= -1
    return points, renumbered.reshape(-1, 4), island


def _areas_2d(corners: F64) -> F64:
    """Signed areas (Q,) of polygons (Q, 4, 2)."""
    first, second = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    area: F64 = (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2
    return area


def _areas(corners: F64) -> F64:
    """Areas (Q,) of polygons (Q, 4, 3)."""
    across = np.cross(corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1])
    return np.asarray(np.linalg.norm(across, axis=1) / 2)


def _boxes(sizes: F64) -> list[tuple[F64, float]]:
    """Lower left corner and side of a square box for each of the sizes (N,), in rows in the unit square, as large as
    they fit there in the order of their sizes."""
    order = np.argsort(-sizes, kind="stable")

    def rows(scale: float) -> tuple[list[tuple[F64, float]], float]:
        result: list[tuple[F64, float]] = [(np.zeros(2), 0.0)] * len(sizes)
        x = y = height = 0.0
        for number in order:
            side = scale * float(sizes[number])
            if x + side > 1 + 1e-9:
                x, y, height = 0.0, y + height, 0.0
            height = max(height, side)
            result[number] = (np.array([x, y]), side)
            x += side
        return result, y + height

    low, high = 0.0, 1 / float(sizes.max())
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if rows(middle)[1] <= 1 else (low, middle)
    return rows(low)[0]


def _wide_eyed(points: F64, centre: F64) -> F64:
    """An eyeball's points (N, 2) spread out around the pupil, so that the iris isn't tiny."""
    offset = points - centre
    distance = np.linalg.norm(offset, axis=1, keepdims=True)
    return np.asarray(offset / np.sqrt(np.maximum(distance, 1e-9)))


def _cell(part: str) -> str:
    """The cell of a part: an eyeball's parts share one."""
    side, _, kind = part.rpartition("_")
    return f"{side}_eye" if kind in EYE_PARTS else part


def _unit_square(points: F64) -> F64:
    return np.asarray((points - points.min(0)) / np.maximum(np.ptp(points, axis=0), 1e-12))


def _magnify(values: F64, centre: float) -> F64:
    """Monotone map of [0, 1] to itself whose slope is 1 + FACE_GAIN times as large around `centre` as far from it."""
    grid = np.linspace(0, 1, 2001)
    slope = 1 + FACE_GAIN * np.exp(-0.5 * ((grid - centre) / FACE_SPREAD) ** 2)
    stretched = np.concatenate([[0], np.cumsum((slope[1:] + slope[:-1]) / 2)])
    return np.interp(values, grid, stretched / stretched[-1])
