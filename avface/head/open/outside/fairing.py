"""Fairing: the surface of least bending near a given one, as a linear map of its vertices."""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from avface.arrays import F64, Bool, Int
from avface.head.open.deformation import both_ways, cotangent_laplacian


def fair(values: F64, vertices: F64, quads: Int, free: Bool, reach: F64) -> F64:
    """Values (V, C) with the free vertices' (V,) replaced by those of least bending over the surface.

    The bending energy is that of the Laplacian of vertices (V, 3) with cotangent weights, mean of both ways of halving
    each quad (Q, 4), plus the squared distance to the given values in units of reach ** 2 (V,): detail finer than reach
    (metres) goes; where reach is infinite, nothing holds the value. Linear in values, and tangent to the fixed part.
    """
    quads = quads[free[quads].any(1) | _beside(quads, free)]
    used = np.unique(quads)
    number = np.full(len(vertices), -1)
    number[used] = np.arange(len(used))
    points = vertices[used] * 1000
    laplacian, area = cotangent_laplacian(points, number[both_ways(quads)])
    laplacian, area = laplacian / 2, area / 2
    bent = _interior(number[quads], len(used))  # on the border, the Laplacian isn't that of the surface
    energy = laplacian.T @ sp.diags(bent / area) @ laplacian
    hold = np.zeros(len(used))
    finite = np.isfinite(reach[used])
    hold[finite] = (1000 * reach[used][finite]) ** -4.0 * area[finite]
    inner = np.flatnonzero(free[used])
    outer = np.flatnonzero(~free[used])
    given = values[used]
    system = (energy + sp.diags(hold)).tocsr()
    right = hold[inner, None] * given[inner] - energy.tocsr()[inner][:, outer] @ given[outer]
    result = values.copy()
    result[used[inner]] = splu(system[inner][:, inner].tocsc()).solve(right)
    return result


def _beside(quads: Int, free: Bool) -> Bool:
    """Quads (Q,) that share a vertex with a quad of a free vertex: the fixed surface's curvature counts there."""
    near = np.zeros(len(free), bool)
    near[quads[free[quads].any(1)]] = True
    touched: Bool = near[quads].any(1)
    return touched


def _interior(quads: Int, count: int) -> F64:
    """1 for vertices (count,) inside a mesh, 0 on its border."""
    edges = np.sort(np.concatenate([quads[:, [k, (k + 1) % 4]] for k in range(4)]), axis=1)
    edges = edges[edges[:, 0] != edges[:, 1]]
    unique, uses = np.unique(edges, axis=0, return_counts=True)
    inside = np.ones(count)
    inside[unique[uses == 1]] = 0
    return inside
