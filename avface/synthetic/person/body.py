"""Neck and shoulders below a head: images of a head alone are outside the training data of face trackers."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from avface.geometry.mesh import open_loops
from avface.head import HeadModel


def torso_mesh(head: HeadModel, shape: Tensor, rings: int = 32) -> tuple[Tensor, Tensor, Tensor]:
    """Neck and shoulders that extend the open boundary of the mesh, for a head of shape (S,).

    Returns the boundary's vertices (R,) in order, faces (F, 3) whose indices follow the head's vertices, and points
    (rings * R, 3) in metres in the head's frame, ring by ring downwards.
    """
    rim = _neck_boundary(head)
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
        level = max(
            0.0, 1 - step / 0.06
        )  # from the boundary, which isn't horizontal, to horizontal shoulders
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


def _neck_boundary(head: HeadModel) -> Tensor:
    """The vertices of the mesh's lower boundary, in order around the neck."""
    low = float(head.template[:, 1].min() + 0.3 * (head.template[:, 1].max() - head.template[:, 1].min()))
    lowest = [loop for loop in open_loops(head.faces.numpy()) if float(head.template[loop, 1].max()) < low]
    return torch.as_tensor(max(lowest, key=len))
