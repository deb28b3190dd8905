"""What is seen between lips from the front."""

from __future__ import annotations

import torch
from torch import Tensor

from avface.geometry.rasteriser import rasterise
from avface.head.lips import LipRegion
from avface.head.model import HeadModel

PIXEL = 0.0002
"""Metres."""


def inside_seen(head: HeadModel, region: LipRegion, lips: Tensor, jaw_open: float) -> int:
    """Number of pixels in which the mouth's inside is seen from the front of the mean face.

    lips (N, 3) of the region, in place of those that the unit jawOpen gives.
    """
    weights = torch.zeros(1, head.num_expression)
    weights[0, head.expression_names.index("jawOpen")] = jaw_open
    vertices = head(torch.zeros(1, head.num_shape), weights)[0]
    vertices[region.vertices] = lips
    across = (vertices[:, :2] - lips.mean(0)[:2]) * torch.tensor([1.0, -1.0])
    seen = rasterise(across / PIXEL + torch.tensor([150.0, 50.0]), 1 - vertices[:, 2], head.faces, 100, 300)
    assert (seen.triangle >= 0).all()
    return int((head.face_parts[seen.triangle.numpy()] != head.part_names.index("skin")).sum())
