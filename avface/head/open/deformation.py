"""Smooth displacement fields over a surface, steered at points."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from avface.arrays import F64, Bool, Int


class SmoothFields:
    """Displacement fields of least bending over a triangle mesh: thin plates under tension along the surface.

    The energy is that of the field's Laplacian (cotangent weights) plus `tension` times that of its gradient, so that
    fields fade out smoothly where nothing steers them and overshoot little. Distances count along the surface: lips
    that touch move apart.
    """

    def __init__(self, vertices: F64, triangles: Int, reach: float) -> None:
        """vertices (V, 3) metres; triangles (F, 3); reach in metres: tension shapes what lies farther from a handle."""
        used = np.unique(triangles)
        self._used = used
        self._count = len(vertices)
        points = vertices[used] * 1000  # millimetres, for the solver's conditioning
        number = np.full(len(vertices), -1)
        number[used] = np.arange(len(used))
        laplacian, area = cotangent_laplacian(points, number[triangles])
        self._energy = (laplacian @ sp.diags(1 / area) @ laplacian + (1000 * reach) ** -2 * laplacian).tocsc()

    def solve(self, vertices: Int, weights: F64, targets: F64, held: Bool, stiffness: float = 4.0) -> F64:
        """(V, 3) a field that is 0 where held (V,) and off the mesh, and takes targets at handles.

        vertices (H, k) and weights (H, k): the handles as weighted means of vertices; targets (H, 3). Handles are soft,
        so that neighbours which disagree bend the surface without a crease: the larger the stiffness, the closer.
        """
        number = np.full(self._count, -1)
        free = np.flatnonzero(~held[self._used])
        number[self._used[free]] = np.arange(len(free))
        rows = np.repeat(np.arange(len(vertices)), vertices.shape[1])
        columns = number[vertices.ravel()]
        kept = columns >= 0
        handles = sp.csc_matrix(
            (weights.ravel()[kept], (rows[kept], columns[kept])), shape=(len(vertices), len(free))
        )
        system = self._energy[free][:, free] + stiffness * handles.T @ handles
        field = np.zeros((self._count, 3))
        field[self._used[free]] = splu(system.tocsc()).solve(stiffness * (handles.T @ targets))
        return field


def both_ways(quads: Int) -> Int:
    """Triangles of both diagonals of quads (Q, 4), so that the result doesn't depend on the choice; a triangle counts
    twice."""
    halves = np.concatenate(
        [quads[:, [0, 1, 2]], quads[:, [0, 2, 3]], quads[:, [0, 1, 3]], quads[:, [1, 2, 3]]]
    )
    a, b, c = halves.T
    whole: Int = halves[(a != b) & (b != c) & (c != a)]
    return whole


def cotangent_laplacian(vertices: F64, triangles: Int) -> tuple[sp.csr_matrix, F64]:
    """Positive semi-definite Laplacian (V, V) and the area (V,) of each vertex (a third of its triangles').

    Cotangents are kept above 0.05, so that thin triangles can't turn a weight negative.
    """
    count = len(vertices)
    corners = vertices[triangles]
    first, second = [], []
    values = []
    for k in range(3):
        a, b, c = (corners[:, (k + j) % 3] for j in range(3))
        cross = np.linalg.norm(np.cross(b - a, c - a), axis=1)
        cotangent = ((b - a) * (c - a)).sum(1) / np.maximum(cross, 1e-12)
        first.append(triangles[:, (k + 1) % 3])
        second.append(triangles[:, (k + 2) % 3])
        values.append(np.clip(cotangent, 0.05, 20) / 2)
    i, j, w = np.concatenate(first), np.concatenate(second), np.concatenate(values)
    adjacency = sp.coo_matrix((w, (i, j)), shape=(count, count))
    adjacency = (adjacency + adjacency.T).tocsr()
    laplacian = sp.diags(np.asarray(adjacency.sum(1)).ravel()) - adjacency
    double = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    area = np.bincount(triangles.ravel(), np.repeat(double / 6, 3), minlength=count)
    return laplacian.tocsr(), np.maximum(area, np.median(area) * 0.02)
