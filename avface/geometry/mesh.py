"""Triangles of polygon meshes, and normals of triangle meshes."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avface.arrays import Int, Ints


def triangulate(quads: Ints) -> Int:
    """Triangles (F, 3) of quads (Q, 4): two for each, along its first diagonal, one where the last vertex repeats."""
    both = np.asarray(quads, np.int64)[:, [[0, 1, 2], [0, 2, 3]]].reshape(-1, 3)
    result: Int = both[both[:, 1] != both[:, 2]]
    return result


def open_loops(polygons: Ints) -> list[Int]:
    """The open boundaries of a mesh, each a loop of vertices (N,) in the direction of its polygons, from its lowest
    number on, the loop with the lowest one first.

    polygons: (F, K) vertices, all turning the same way; one that repeats a vertex has fewer corners.

    Raises:
        ValueError: if two boundaries meet in a vertex.
    """
    corners = np.asarray(polygons, np.int64)
    edges = np.stack([corners, np.roll(corners, -1, 1)], 2).reshape(-1, 2)
    edges = edges[edges[:, 0] != edges[:, 1]]
    _, first, uses = np.unique(np.sort(edges, 1), axis=0, return_index=True, return_counts=True)
    after = dict(sorted(edges[first[uses == 1]].tolist()))
    loops = []
    while after:
        loop = [next(iter(after))]
        following = after.pop(loop[0])
        while following in after:
            loop.append(following)
            following = after.pop(following)
        if following != loop[0]:
            raise ValueError(f"open boundaries meet near vertex {following}")
        loops.append(np.array(loop, np.int64))
    return loops


def vertex_normals(vertices: Tensor, faces: Tensor) -> Tensor:
    """Unit normals (..., V, 3) of vertices (..., V, 3): the area-weighted mean of the normals of faces (F, 3).

    A vertex of no face, or of degenerate faces only, gets a zero vector.
    """
    corners = vertices[..., faces, :]
    across = torch.linalg.cross(
        corners[..., 1, :] - corners[..., 0, :], corners[..., 2, :] - corners[..., 0, :], dim=-1
    )
    normals = torch.zeros_like(vertices)
    for corner in range(3):
        normals = normals.index_add(-2, faces[:, corner], across)
    return torch.nn.functional.normalize(normals, dim=-1)
