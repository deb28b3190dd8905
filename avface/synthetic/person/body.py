"""What is below the head: pictures of a head alone look like nothing a face tracker has seen."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avface.head import HeadModel


def torso_mesh(head: HeadModel, shape: Tensor, rings: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """A neck and shoulders that go on from the open edge of the mesh, for a head of shape (S,).

    Returns the edge's vertices (R,) in order, faces numbered after the head's vertices, and points (rings * R, 3) in
    the head's frame, ring by ring downwards.
    """
    rim = _open_edge(head)
    edge = head.neutral(shape)[rim]
    centre = edge.mean(0)
    profile = np.array(
        [
            [0, 1, 1],
            [0.03, 1, 1],
            [0.045, 1.15, 1.05],
            [0.06, 1.7, 1.2],
            [0.08, 2.6, 1.4],
            [0.11, 3.3, 1.5],
            [0.3, 3.7, 1.7],
        ]
    )
    points = []
    for step in np.linspace(0, 0.3, rings).tolist():
        wide, deep = (float(np.interp(step, profile[:, 0], column)) for column in profile[:, 1:].T)
        level = max(0.0, 1 - step / 0.06)  # the edge isn't level; the shoulders are
        ring = (edge - centre) * torch.tensor([wide, level, deep], dtype=edge.dtype)
        points.append(centre + ring - torch.tensor([0.0, step, 0.0]))
    count, first = len(rim), head.num_vertices
    around = torch.arange(count)
    after = (around + 1) % count
    faces = []
    for r in range(rings - 1):
        a, b = first + r * count, first + (r + 1) * count
        faces += [
            torch.stack([a + around, a + after, b + after], 1),
            torch.stack([a + around, b + after, b + around], 1),
        ]
    return rim, torch.cat(faces), torch.cat(points)


def _open_edge(head: HeadModel) -> Tensor:
    """The vertices of the mesh's open lower edge, in order around the neck."""
    faces = head.faces.numpy()
    directed = {(int(a), int(b)) for face in faces for a, b in zip(face, np.roll(face, -1), strict=True)}
    following = {b: a for a, b in directed if (b, a) not in directed}
    low = float(head.template[:, 1].min() + 0.3 * (head.template[:, 1].max() - head.template[:, 1].min()))
    loops, left = [], set(following)
    while left:
        start = vertex = left.pop()
        loop = [start]
        while (vertex := following.get(vertex, start)) != start:
            loop.append(vertex)
            left.discard(vertex)
        loops.append(loop)
    lowest = [loop for loop in loops if float(head.template[loop, 1].max()) < low]
    return torch.tensor(max(lowest, key=len))
