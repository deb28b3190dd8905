"""Texture coordinates of the open head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from avface.arrays import F64, Int

STRIP = 0.14
"""Height of the strip at the bottom of the square, below the skin."""
MARGIN = 0.05
"""Width of the margin on each side of an island, as a share of its cell."""
EYE_PARTS = ("eye", "iris", "pupil")


def layout_uv(
    uv: F64,
    uv_quads: Int,
    quads: Int,
    parts: npt.NDArray[np.str_],
    template: F64,
) -> F64:
    """UV points (M, 2): MakeHuman's island of the head upright and filling the square, the face magnified; the rest in
    a strip below, one cell for each part, in which the part's islands lie in a grid.

    v is up. The magnification is a monotone map of each axis, so that no polygon flips. Islands keep their proportions;
    the points uv (M, 2) of polygons uv_quads (Q, 4) with the vertices quads (Q, 4) of template (V, 3).
    """
    edges = np.concatenate([uv_quads[:, [k, (k + 1) % 4]] for k in range(4)])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(uv), len(uv)))
    _, island = connected_components(graph, directed=False)
    of_quad = island[uv_quads[:, 0]]
    main = np.bincount(of_quad[parts == "skin"]).argmax()
    placed = np.zeros_like(uv)

    rows = island == main
    raw = _unit_square(uv[rows])
    across, up = raw[:, 1], 1 - raw[:, 0]
    owner = np.zeros(len(uv), int)
    owner[uv_quads] = quads
    if np.corrcoef(across, template[owner[rows], 0])[0, 1] < 0:
        across = 1 - across
    tip = np.argmax(template[owner[rows], 2])  # the nose, centre of the face
    placed[rows, 0] = _magnify(across, across[tip], 0.13)
    placed[rows, 1] = STRIP + (1 - STRIP) * _magnify(up, up[tip] + 0.08, 0.2)

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
            inside = (corner + MARGIN + (1 - 2 * MARGIN) * _centred(uv[rows])) / side
            placed[rows] = size * inside + np.array([column * width, 0])
    return placed


def _cell(part: str) -> str:
    """The cell of a part: an eyeball's parts share one."""
    side, _, kind = part.rpartition("_")
    return f"{side}_eye" if kind in EYE_PARTS else part


def _unit_square(points: F64) -> F64:
    return (points - points.min(0)) / np.ptp(points, axis=0)


def _centred(points: F64) -> F64:
    """Points in the middle of the unit square, as large as fits, with their proportions."""
    span = np.ptp(points, axis=0)
    return 0.5 + (points - points.min(0) - span / 2) / max(float(span.max()), 1e-12)


def _magnify(t: F64, centre: float, width: float, gain: float = 2.0) -> F64:
    """Monotone map of [0, 1] with 1 + gain times the slope around `centre` as at the far ends."""
    grid = np.linspace(0, 1, 2001)
    density = 1 + gain * np.exp(-0.5 * ((grid - centre) / width) ** 2)
    stretched = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(t, grid, stretched / stretched[-1])
