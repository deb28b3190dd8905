"""Texture coordinates of the open head."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from avface.arrays import F64, Int


def layout_uv(
    uv: F64,
    uv_faces: Int,
    faces: Int,
    parts: npt.NDArray[np.str_],
    template: F64,
) -> F64:
    """UV points (N, 2): MakeHuman's head island upright and filling the square, the face magnified; the rest below.

    v is up. The magnification is a monotone map of each axis, so that no triangle flips.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([uv_faces[:, [0, 1]], uv_faces[:, [1, 2]]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(len(uv), len(uv)))
    _, island = connected_components(graph, directed=False)
    face_island = island[uv_faces[:, 0]]
    main = np.bincount(face_island[parts == "skin"]).argmax()
    placed = np.zeros_like(uv)
    strip = 0.14

    rows = island == main
    raw = _unit_square(uv[rows])
    across, up = raw[:, 1], 1 - raw[:, 0]
    owner = np.zeros(len(uv), int)
    owner[uv_faces] = faces
    if np.corrcoef(across, template[owner[rows], 0])[0, 1] < 0:
        across = 1 - across
    tip = np.argmax(template[owner[rows], 2])  # the nose, centre of the face
    placed[rows, 0] = _magnify(across, across[tip], 0.13)
    placed[rows, 1] = strip + (1 - strip) * _magnify(up, up[tip] + 0.08, 0.2)

    others = [k for k in np.unique(face_island) if k != main]
    for cell, k in enumerate(others):
        rows = island == k
        placed[rows] = _unit_square(uv[rows]) * 0.9 + 0.05
        placed[rows] = (placed[rows] + [cell, 0]) * [1 / len(others), strip * 0.95]
    return placed


def _unit_square(points: F64) -> F64:
    return (points - points.min(0)) / np.ptp(points, axis=0)


def _magnify(t: F64, centre: float, width: float, gain: float = 2.0) -> F64:
    """Monotone map of [0, 1] with 1 + gain times the slope around `centre` as at the far ends."""
    grid = np.linspace(0, 1, 2001)
    density = 1 + gain * np.exp(-0.5 * ((grid - centre) / width) ** 2)
    stretched = np.concatenate([[0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return np.interp(t, grid, stretched / stretched[-1])
