"""How far people's shapes may stretch and press the skin: as far as in real faces."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import splu

from avface.arrays import F64, Int
from avface.errors import AvfaceError
from avface.geometry.interpolation import smoothstep
from avface.head.open.deformation import both_ways
from avface.head.open.draft import Draft

DIRECTIONS = 12
"""Directions in a triangle's plane in which strain is measured, evenly over half a turn."""


@dataclass(frozen=True)
class StrainConfig:
    """Parameters of `bounded_strain`."""

    largest: float = 0.15
    """Standard deviation of the skin's strain over people, up to which shapes stay as they are."""
    spread: float = 0.05
    """How far around what takes up the difference, metres."""
    eyes: tuple[float, float] = (0.008, 0.020)
    """Distance from the eyes' centres up to which the skin keeps its shapes, and from which on it is treated in full;
    metres. The lids' margins, at 14 to 20 mm, are only in part: they must stay on the eyeballs."""

    def __post_init__(self) -> None:
        for name in ("largest", "spread"):
            if not getattr(self, name) > 0:
                raise AvfaceError(f"{name}={getattr(self, name)} must be above 0")


def bounded_strain(draft: Draft, config: StrainConfig | None = None) -> Draft:
    """The draft with shape components that stretch and press the skin less where they do so more than people differ.

    MakeHuman's changes of nose and mouth add up to upper lips without a length, in which skin is pressed to a tenth:
    no unit can move there without folding it. In each triangle whose strain has too large a standard deviation over
    people, the gradients of all components are scaled down by the same factor, and components are integrated from the
    gradients again (least squares, linear in the components). Component 0, the size, stays, and so do the mean head,
    the ears and the back of the head.
    """
    config = config or StrainConfig()
    template, count = draft.template, len(draft.template)
    triangles = both_ways(draft.quads[np.isin(draft.parts, ("skin", "mouth_cavity"))])
    gradient, axes, area = _gradients(template, triangles)
    from_eyes = np.linalg.norm(template[:, None] - draft.eye_centres[0], axis=2).min(1)
    held = (from_eyes < config.eyes[0]) | draft.regions["ears"] | (template[:, 2] < 0)
    treated = np.where(held, 0.0, smoothstep(*config.eyes, from_eyes))[triangles].min(1)
    strain = _strain(gradient, axes, draft.shape[1:])
    less = treated * (1 - np.minimum(1, config.largest / np.maximum(strain, 1e-9)))

    free = np.setdiff1d(triangles, np.flatnonzero(held))
    mass = np.bincount(triangles.ravel(), np.repeat(area / 3, 3), count)
    own = gradient[:, free]
    system = own.T @ sp.diags(np.repeat(area, 2)) @ own + sp.diags(mass[free] / config.spread**2)
    taken = own.T @ sp.diags(np.repeat(area * less, 2)) @ gradient
    components = np.moveaxis(draft.shape[1:], 0, 1).reshape(count, -1)
    change = splu(system.tocsc()).solve(taken @ components).reshape(len(free), -1, 3)
    shape = draft.shape.copy()
    shape[1:, free] -= np.moveaxis(change, 1, 0)
    return replace(draft, shape=shape)


def _gradients(vertices: F64, triangles: Int) -> tuple[sp.csr_matrix, F64, F64]:
    """Matrix (2 F, V) to the derivatives of values at vertices along two axes in the plane of each triangle (F, 3), the
    axes (F, 2, 3) and the triangles' areas (F,)."""
    corners = vertices[triangles]
    first, second = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    normal = np.cross(first, second)
    double = np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-12)
    normal = normal / double
    along = first / np.maximum(np.linalg.norm(first, axis=1, keepdims=True), 1e-9)
    axes = np.stack([along, np.cross(normal, along)], 1)
    opposite = np.roll(corners, -2, 1) - np.roll(corners, -1, 1)
    hats = np.cross(normal[:, None], opposite) / double[:, None]
    values = np.einsum("fkc,fjc->fjk", hats, axes)
    rows = np.broadcast_to(np.arange(2 * len(triangles)).reshape(-1, 2, 1), values.shape)
    columns = np.broadcast_to(triangles[:, None], values.shape)
    matrix = sp.csr_matrix(
        (values.ravel(), (rows.ravel(), columns.ravel())), shape=(2 * len(triangles), len(vertices))
    )
    return matrix, axes, double[:, 0] / 2


def _strain(gradient: sp.csr_matrix, axes: F64, components: F64) -> F64:
    """(F,) standard deviation over people of the strain of triangles, in the direction in which it is largest."""
    turn = np.pi * np.arange(DIRECTIONS) / DIRECTIONS
    directions = np.stack([np.cos(turn), np.sin(turn)], 1)
    variance = np.zeros((len(axes), DIRECTIONS))
    for offsets in components:
        moved = (gradient @ offsets).reshape(-1, 2, 3)
        inside = np.einsum("fic,fjc->fij", moved, axes)
        variance += np.einsum("di,fij,dj->fd", directions, inside, directions) ** 2
    result: F64 = np.sqrt(variance.max(1))
    return result
