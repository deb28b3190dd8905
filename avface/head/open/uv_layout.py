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
FACE_GAIN, FACE_SPREAD = 1.2, 0.25
"""How much denser texels lie in height at the middle of the face than far from it, and how far that reaches, as a share
of the skin's height."""
EYE_PARTS = ("eye", "iris", "pupil")


def layout_uv(draft: Draft) -> tuple[F64, Int]:
    """UV points (M, 2) and polygons (Q, 4) of a draft: the skin's island, unwrapped anew, fills the square upright; the
    rest lies in a strip below, one cell for each part, in which the part's islands form a grid.

    v is up. Islands of the strip are stretched to fill their cells. The face is magnified in height by a monotone map,
    so that no polygon flips and the square around it is nearly filled.

    Raises:
        AvfaceError: if the skin isn't one piece with a loop at the neck.
    """
    draft = unwrap(draft)
    uv, uv_quads, parts = draft.uv, draft.uv_quads, draft.parts
    edges = np.concatenate([uv_quads[:, [k, (k + 1) % 4]] for k in range(4)])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(uv), len(uv)))
    _, island = connected_components(graph, directed=False)
    of_quad = island[uv_quads[:, 0]]
    main = np.bincount(of_quad[parts == "skin"]).argmax()
    placed = np.zeros_like(uv)
    rows = island == main
    square = _unit_square(uv[rows])
    face = np.zeros(len(uv), bool)
    face[uv_quads[draft.regions["face"][draft.quads] & (parts == "skin")[:, None]]] = True
    height = square[face[rows], 1]
    square[:, 1] = _magnify(square[:, 1], (height.min() + height.max()) / 2)
    placed[rows] = np.array([0, STRIP]) + np.array([1, 1 - STRIP]) * square

    cells: dict[str, list[int]] = {}
    for number in np.unique(of_quad[of_quad != main]).tolist():
        cells.setdefault(_cell(str(parts[of_quad == number][0])), []).append(number)
    width = 1 / max(len(cells), 1)
    size = min(width, 0.95 * STRIP)
    for column, islands in enumerate(cells.values()):
        side = int(np.ceil(np.sqrt(len(islands))))
        for place, number in enumerate(islands):
            rows = island == number
            corner = np.array([place % side, place // side])
            inside = (corner + MARGIN + (1 - 2 * MARGIN) * _unit_square(uv[rows])) / side
            placed[rows] = size * inside + np.array([column * width, 0])
    return placed, uv_quads


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
