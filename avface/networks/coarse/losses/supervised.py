"""Losses against the exact ground truth of synthetic clips."""

from __future__ import annotations

import torch
from torch import Tensor

from avface.head.model import HeadModel


def vertex_weights(head: HeadModel, *, lips: float = 5.0, face: float = 1.0, rest: float = 0.1) -> Tensor:
    """Weights (V,) of mean 1 for `vertex_loss`: of lips, of the face around them, of everything else.

    Lips are a twentieth of the vertices, move most and matter most to viewers of speech.

    Raises:
        KeyError: if the head has no regions face and lips.
    """
    weights = torch.full((head.num_vertices,), rest)
    weights[torch.from_numpy(head.regions["face"])] = face
    weights[torch.from_numpy(head.regions["lips"])] = lips
    return weights / weights.mean()


def vertex_loss(predicted: Tensor, true: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean distance in metres: mean of w_v |x'_v - x_v|; vertices (..., V, 3), weights (V,) of mean 1.

    Distances, not their squares, for robustness to outliers.
    """
    return (weights.to(predicted) * torch.linalg.vector_norm(predicted - true, dim=-1)).mean()


def expression_loss(predicted: Tensor, true: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted mean absolute difference of expression units (..., E); weights (E,), 1 where not given."""
    difference = (predicted - true).abs()
    return (difference if weights is None else difference * weights.to(difference)).mean()


def rotation_angle(one: Tensor, other: Tensor) -> Tensor:
    """Angle (...) in radians between rotations (..., 3, 3), from 0 to pi (geodesic distance on SO(3)).

    By the arc tangent of sine and cosine, because the arc cosine of the trace is inaccurate near 0 and has an infinite
    gradient there. Source: Hartley et al., Rotation averaging, 2013.
    """
    between = one.transpose(-1, -2) @ other
    skew = between - between.transpose(-1, -2)
    axis = torch.stack([skew[..., 2, 1], skew[..., 0, 2], skew[..., 1, 0]], -1)
    sine = torch.linalg.vector_norm(axis, dim=-1) / 2
    cosine = (between.diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    return torch.atan2(sine, cosine)


def rotation_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean angle in radians between rotations (..., 3, 3), see `rotation_angle`."""
    return rotation_angle(predicted, true).mean()


def velocity_loss(predicted: Tensor, true: Tensor, frame_rate: float) -> Tensor:
    """Mean absolute difference of velocities, per second: |(x'_t+1 - x'_t) - (x_t+1 - x_t)| * frame_rate.

    predicted and true (B, T, ...) from at least two frames: units, vertices, places. An error that stays the same costs
    nothing here. Source: VOCA (Cudeiro et al. 2019), whose velocity term has squares.
    """
    return (predicted - true).diff(dim=1).abs().mean() * frame_rate


def smoothness_loss(predicted: Tensor, frame_rate: float) -> Tensor:
    """Mean square of accelerations, per second squared: |x_t+1 - 2 x_t + x_t-1|^2 * frame_rate^4, of (B, T, ...).

    0 for steady motion. Where there is truth, `velocity_loss` doesn't flatten what really jumps.
    """
    return predicted.diff(n=2, dim=1).square().mean() * frame_rate**4
