"""Least-squares rigid and similarity alignment of point sets (Procrustes, Umeyama 1991)."""

from __future__ import annotations

import numpy as np

from avface.arrays import F64, Bool, Floats


def rigid_align(source: Floats, target: Floats, mask: Bool | None = None, *, scale: bool = False) -> F64:
    """Rigid alignment of points to others, frame by frame: the least squares R x + t without reflection.

    Shapes: source (..., V, 3), target (..., V, 3), mask (V,) -> the whole source transformed, (..., V, 3). The
            transform is estimated from the points of the mask, all by default; with `scale` it has an isotropic
            scale.
    Source: Umeyama, "Least-squares estimation of transformation parameters between two point patterns" (PAMI
            1991).

    Raises:
        ValueError: if the shapes differ, or fewer than three points are given.
    """
    if source.shape != target.shape or source.ndim < 2 or source.shape[-1] != 3:
        raise ValueError(f"source {source.shape} and target {target.shape} must both be (..., V, 3)")
    source, target = np.asarray(source, np.float64), np.asarray(target, np.float64)
    chosen = slice(None) if mask is None else mask
    fitted, onto = source[..., chosen, :], target[..., chosen, :]
    if fitted.shape[-2] < 3:
        raise ValueError(f"{fitted.shape[-2]} points: at least three are needed to align")
    source_centre, target_centre = fitted.mean(-2, keepdims=True), onto.mean(-2, keepdims=True)
    fitted, onto = fitted - source_centre, onto - target_centre
    u, strengths, vt = np.linalg.svd(np.swapaxes(onto, -1, -2) @ fitted)
    signs = np.ones(strengths.shape)
    signs[..., 2] = np.where(np.linalg.det(u @ vt) < 0, -1.0, 1.0)  # no reflection
    rotation = (u * signs[..., None, :]) @ vt
    size = np.ones(strengths.shape[:-1])
    if scale:
        size = (strengths * signs).sum(-1) / (fitted**2).sum((-1, -2))
    moved = (source - source_centre) @ np.swapaxes(rotation, -1, -2)
    return np.asarray(size[..., None, None] * moved + target_centre)


def similarity_align(source: Floats, target: Floats, mask: Bool | None = None) -> F64:
    """`rigid_align` with an isotropic scale, for methods without absolute size."""
    return rigid_align(source, target, mask, scale=True)
