"""Subdivision of a head's mesh for displacement maps."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample, normalize

from avface.arrays import F32, F64, Bool, Int
from avface.geometry.mesh import vertex_normals
from avface.head.model import HeadModel
from avface.head.skin.atlas import detail_atlas

LEVELS = 2
"""Times every edge of the face is halved: triangles become 1.1 mm wide, a texel is 0.7 mm."""
ROUNDNESS = 0.75
"""Shape factor of Phong tessellation: 0 is flat, 1 the mean projection on the tangent planes of an edge's ends."""


class DetailedSurface:
    """Each triangle of the face split into 16, their neighbours to match, so that the mesh stays watertight.

    faces (F, 3) of the N vertices, of which the first V are the head's own; uv (M, 2), uv_faces (F, 3) as the head's.
    New vertices are placed by Phong tessellation.
    Source: Boubekeur and Alexa, Phong tessellation, 2008.
    """

    def __init__(self, head: HeadModel, resolution: int) -> None:
        """For displacement maps of `resolution` texels across the head's window.

        Raises:
            AvfaceError: if the head has no region "face" or isn't symmetric.
        """
        atlas = detail_atlas(head, resolution)
        self._atlas, self._own = atlas, head.faces.cpu()
        faces, uv_faces = atlas.faces.numpy(), np.asarray(head.uv_faces)
        uv = np.asarray(head.uv, np.float64)
        moved = np.zeros(head.num_vertices, bool)
        moved[faces[np.unique(atlas.atlas.triangle[atlas.mask > 0].numpy())]] = True
        self._ends: list[Tensor] = []
        for _ in range(LEVELS):
            fine = moved[faces].any(1)
            count = len(moved)
            faces, uv_faces, uv, ends = _halved(faces, uv_faces, uv, fine, count)
            moved = np.concatenate([moved, moved[ends].any(1)])
            self._ends.append(torch.as_tensor(ends))
        self.faces: Int = faces
        self.uv: F32 = uv.astype(np.float32)
        self.uv_faces: Int = uv_faces
        self._place, self._share = self._in_window(len(moved))

    def __len__(self) -> int:
        """Number of vertices N."""
        return len(self._share)

    def vertices(self, points: Tensor, displacement: Tensor) -> Tensor:
        """Vertices (..., N, 3) of the head's own (..., V, 3) and a displacement map (..., R, R) in metres."""
        normals = vertex_normals(points, self._own)
        for ends in self._ends:
            one, other = points[..., ends[:, 0], :], points[..., ends[:, 1], :]
            by_one, by_other = normals[..., ends[:, 0], :], normals[..., ends[:, 1], :]
            across = other - one
            bulge = (across * by_one).sum(-1, keepdim=True) * by_one - (across * by_other).sum(
                -1, keepdim=True
            ) * by_other
            points = torch.cat([points, (one + other) / 2 - ROUNDNESS / 4 * bulge], -2)
            normals = torch.cat([normals, normalize(by_one + by_other, dim=-1)], -2)
        maps = displacement.reshape(-1, 1, *displacement.shape[-2:]).to(points.dtype)
        grid = self._place[None, None].expand(len(maps), -1, -1, -1).to(points.dtype)
        height = grid_sample(maps, grid, padding_mode="border", align_corners=False)[:, 0, 0]
        height = height.reshape(*displacement.shape[:-2], -1) * self._share
        return points + height[..., None] * normals

    def _in_window(self, count: int) -> tuple[Tensor, Tensor]:
        """Place of each vertex in the window, (N, 2) from -1 to 1, and whether it is inside, (N,)."""
        atlas = self._atlas
        place = np.full((count, 2), -2.0)
        place[self.faces.ravel()] = self.uv[self.uv_faces.ravel()]
        x = 2 * (place[:, 0] - atlas.corner[0]) / atlas.side - 1
        y = 2 * (1 - place[:, 1] - atlas.corner[1]) / atlas.side - 1
        grid = torch.as_tensor(np.stack([x, y], 1), dtype=torch.float32)
        return grid, (grid.abs() <= 1).all(1).float()


def _halved(
    faces: Int,
    uv_faces: Int,
    uv: F64,
    fine: Bool,
    count: int,
) -> tuple[Int, Int, F64, Int]:
    """Halve all edges of the `fine` triangles (F,): new faces, uv_faces and uv, and the ends (E, 2) of the edges whose
    midpoints are the new vertices count, count + 1, ...

    Neighbouring triangles are split at their halved edges.
    """
    corners, uv_corners = (np.stack([f, np.roll(f, -1, 1)], 2) for f in (faces, uv_faces))  # (F, 3 edges, 2)
    edges, number = np.unique(np.sort(corners.reshape(-1, 2), 1), axis=0, return_inverse=True)
    number = number.reshape(-1, 3)
    halved = np.zeros(len(edges), bool)
    halved[number[fine]] = True
    middle = np.where(halved, count - 1 + np.cumsum(halved), -1)[number]  # (F, 3), -1 where an edge stays
    uv_edges, uv_number = np.unique(np.sort(uv_corners.reshape(-1, 2), 1), axis=0, return_inverse=True)
    uv_number = uv_number.reshape(-1, 3)
    uv_middle = len(uv) + uv_number
    uv = np.concatenate([uv, uv[uv_edges].mean(1)])
    parts_: list[tuple[Int, Int]] = []
    pattern = (middle >= 0) @ np.array([1, 2, 4])
    for code in range(8):
        chosen = pattern == code
        points = np.concatenate([faces[chosen], middle[chosen]], 1)
        uv_points = np.concatenate([uv_faces[chosen], uv_middle[chosen]], 1)
        for triangle in _CUTS[code]:
            parts_.append((points[:, triangle], uv_points[:, triangle]))
    faces, uv_faces = (np.concatenate(parts) for parts in zip(*parts_, strict=True))
    used, uv_faces = np.unique(uv_faces, return_inverse=True)
    return faces, uv_faces.reshape(-1, 3), uv[used], edges[halved]


_CUTS: tuple[tuple[tuple[int, int, int], ...], ...] = (
    ((0, 1, 2),),
    ((0, 3, 2), (3, 1, 2)),
    ((0, 1, 4), (0, 4, 2)),
    ((0, 3, 2), (3, 4, 2), (3, 1, 4)),
    ((0, 1, 5), (5, 1, 2)),
    ((0, 3, 5), (3, 1, 2), (3, 2, 5)),
    ((0, 1, 4), (0, 4, 5), (5, 4, 2)),
    ((0, 3, 5), (3, 1, 4), (5, 4, 2), (3, 4, 5)),
)
"""Triangles of corners 0 to 2 and midpoints 3 to 5 of edges 01, 12, 20, by the halved edges (bits 1, 2, 4)."""
