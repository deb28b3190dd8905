"""Measures of the mouth's inside: teeth, and whether one sees through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import torch

from avface.arrays import F64
from avface.geometry.rasteriser import rasterise
from avface.head.anatomy import parts
from avface.head.anatomy.surface import bodies, boundary_loops
from avface.head.model import HeadModel

PIXEL = 0.0008
"""Metres of a pixel of the pictures in which openings are looked for."""
VIEWS = {
    "from the front": (0.0, 0.0),
    "from the left": (0.0, 0.5),
    "from above": (0.35, 0.0),
    "from below": (-0.35, 0.0),
}
"""Radians, from above and from the subject's left, from which one looks, in parallel projection."""


def count_teeth(head: HeadModel) -> int:
    """Number of separate bodies among the teeth."""
    return int(bodies(parts.teeth(head)).max(initial=-1)) + 1


def see_through(
    head: HeadModel, posed: F64, views: Sequence[str] | None = None
) -> Iterator[tuple[str, float]]:
    """Area in square metres, from each view, of the background and of surfaces' inner sides that are seen in the head.

    posed (V, 3). What is seen below the neck's edge isn't counted.
    """
    from scipy.ndimage import label

    loops = boundary_loops(head.faces.cpu().numpy())
    neck = min(loops, key=lambda loop: float(posed[loop, 1].min())) if loops else np.zeros(0, np.int64)
    for name, drawn, flat in _pictures(head, posed, views):
        empty, _ = label(drawn < 0)
        enclosed = (empty > 0) & (empty != empty[0, 0])
        a, b, c = np.moveaxis(flat[head.faces.cpu().numpy()], 1, 0)
        across, along = b - a, c - a
        away = across[:, 0] * along[:, 1] - across[:, 1] * along[:, 0] > 0  # counter-clockwise, with y down
        seen = enclosed | (drawn >= 0) & away[np.maximum(drawn, 0)]
        above_neck = np.arange(len(drawn)) < flat[neck, 1].min(initial=np.inf)
        yield name, float(seen[above_neck].sum() * PIXEL**2)


def inside_seen(
    head: HeadModel, posed: F64, views: Sequence[str] | None = None
) -> Iterator[tuple[str, float]]:
    """Area in square metres, from each view, in which parts of the mouth's inside are seen; posed (V, 3)."""
    inner = parts.inside(head)[head.face_parts]
    for name, drawn, _ in _pictures(head, posed, views):
        yield name, float(((drawn >= 0) & inner[np.maximum(drawn, 0)]).sum() * PIXEL**2)


def _pictures(
    head: HeadModel, posed: F64, views: Sequence[str] | None
) -> Iterator[tuple[str, npt.NDArray[np.int64], F64]]:
    """Names of views, faces (H, W) seen at the pixels, -1 for none, and the vertices' pixels (V, 2)."""
    for name in views or VIEWS:
        down, left = VIEWS[name]
        across = np.array([np.cos(left), 0, -np.sin(left)])
        towards = np.array([np.sin(left) * np.cos(down), np.sin(down), np.cos(left) * np.cos(down)])
        plane = np.stack([posed @ across, -posed @ np.cross(towards, across)], 1)
        low = plane.min(0) - 2 * PIXEL
        width, height = np.ceil((plane.max(0) + 2 * PIXEL - low) / PIXEL).astype(int)
        flat = (plane - low) / PIXEL
        depth = torch.as_tensor(1 - posed @ towards)
        drawn = rasterise(torch.as_tensor(flat), depth, head.faces, int(height), int(width))
        yield name, drawn.triangle.numpy(), flat
