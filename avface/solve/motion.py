"""The smoothness prior: first and second differences in time of a talking head's pose and expression."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from avface.errors import AvfaceError
from avface.geometry.rotations import rotmat_to_rotvec
from avface.head.model import HeadModel
from avface.solve.landmark_model import Parameters
from avface.solve.linear.chain_matrix import MotionNormal

REFERENCE_STEP = 1 / 30
"""Seconds between frames for which the standard deviations below are given."""


@dataclass(frozen=True)
class MotionPriorConfig:
    """Standard deviations of the second difference of each unknown over three frames at 30 a second.

    Jitter has large second differences, uniform motion has none. Their distribution is heavy-tailed (Student's t), as
    heads move slowly most of the time and fast at times: fast motion is not smoothed away and doesn't lag.
    """

    rotation: float = 0.0015
    """Radians."""
    translation: float = 0.0002
    """Metres."""
    expression: float = 0.025
    """Weight of a unit, as a share of its largest weight."""
    lids: float = 0.25
    """Weight of the eyeBlink units as a share of their largest: lids close within three frames."""
    gaze: float = 0.06
    """Radians; large because of saccades."""
    drift: float = 30.0
    """Standard deviation of the first difference as a multiple of the second's. That of the pose in gaps, which it
    determines, is measured on the clip (`avface.solve.gap_motion`)."""
    tail: float = 8.0
    """Degrees of freedom of the second differences' Student's t: the smaller, the cheaper fast motion."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if not getattr(self, field.name) > 0:
                raise AvfaceError(f"{field.name}={getattr(self, field.name)} must be above 0")


class MotionPrior:
    """Cost of first and second differences in time, for batches (B, N) of frames."""

    def __init__(
        self,
        head: HeadModel,
        num_local: int,
        config: MotionPriorConfig,
        device: str | torch.device = "cpu",
    ) -> None:
        names = head.expression_names
        lids = ["eyeBlink" in name for name in names]
        sigma = torch.full((num_local,), config.gaze, dtype=torch.float64)
        sigma[:3] = config.rotation
        sigma[3:6] = config.translation
        sigma[6 : 6 + len(names)] = torch.tensor(
            [config.lids if lid else config.expression for lid in lids], dtype=torch.float64
        ) * torch.as_tensor(head.unit_range.reach)
        self.second = (sigma**-2).to(device)
        self.first = ((config.drift * sigma) ** -2).to(device)
        self.drift, self.tail = config.drift, config.tail

    def weights(self, times: Tensor, segments: Tensor, drifts: Tensor | None = None) -> MotionWeights:
        """Coefficients for frame times (B, N) in seconds and segment numbers (B, N); nothing is coupled across cuts.

        drifts (B, N - 1): drift of the pose from each frame to the next, nan for the config's; None for nan everywhere.
        """
        step = (times.diff(dim=1) / REFERENCE_STEP).clamp_min(0.05)
        joined = (segments.diff(dim=1) == 0).to(times)
        early, late = step[:, :-1], step[:, 1:]
        span = (early + late) / 2
        ratio = torch.ones_like(joined)
        if drifts is not None:
            ratio = torch.nan_to_num(drifts / self.drift, nan=1.0)
        # A Wiener process in the velocity: the variance of its second difference grows with the cube of the step.
        return MotionWeights(
            first=joined / step,
            # Both halves of the change: much stronger first differences would draw the ends of a gap together, much
            # weaker second ones would leave it to whatever else pulls.
            pose_first=1 / ratio,
            pose_second=torch.minimum(ratio[:, :-1], ratio[:, 1:]),
            second=joined[:, :-1] * joined[:, 1:] / span,
            before=1 / early,
            after=1 / late,
        )

    def normal_equations(self, parameters: Parameters, weights: MotionWeights) -> MotionNormal:
        """Blocks and gradient of the cost for parameters shaped (B, N, ...).

        The blocks are those of iteratively reweighted least squares: positive semidefinite, and exact at zero motion.
        """
        d1 = _first_differences(parameters)
        a, c = weights.before[..., None], weights.after[..., None]
        b = -(a + c)
        d2 = c * d1[:, 1:] - a * d1[:, :-1]
        k1, k2 = weights.first[..., None] * self.first, weights.second[..., None] * self.second
        k1[..., :6] *= weights.pose_first[..., None]
        k2[..., :6] *= weights.pose_second[..., None]
        cost, freedom = self._robust(k2 * d2**2)
        k2 = k2 * freedom
        shape = (*parameters.translation.shape[:2], len(self.second))
        diagonal, gradient = d1.new_zeros(shape), d1.new_zeros(shape)
        for offset, coefficient in ((0, a), (1, b), (2, c)):
            rows = slice(offset, shape[1] - 2 + offset)
            diagonal[:, rows] += k2 * coefficient**2
            gradient[:, rows] += k2 * coefficient * d2
        diagonal[:, 1:] += k1
        diagonal[:, :-1] += k1
        gradient[:, 1:] += k1 * d1
        gradient[:, :-1] -= k1 * d1
        first = -k1
        first[:, :-1] += k2 * a * b
        first[:, 1:] += k2 * b * c
        cost = cost + 0.5 * (k1 * d1**2).sum((1, 2))
        return MotionNormal(diagonal, first, k2 * a * c, gradient, cost)

    def _robust(self, square: Tensor) -> tuple[Tensor, Tensor]:
        """Cost (B,) and weights (B, N - 2, D) of normalised squares (B, N - 2, D) under Student's t.

        Rotation and translation are 3-vectors with a common weight; each other unknown has its own.
        """
        cost = square.new_zeros(len(square))
        weights = torch.empty_like(square)
        for columns, size in ((slice(0, 3), 3), (slice(3, 6), 3), (slice(6, None), 1)):
            group = square[..., columns].unflatten(-1, (-1, size)).sum(-1)
            cost = cost + 0.5 * (self.tail + size) * torch.log1p(group / self.tail).sum((1, 2))
            weights[..., columns] = ((self.tail + size) / (self.tail + group)).repeat_interleave(size, -1)
        return cost, weights


@dataclass(frozen=True)
class MotionWeights:
    """Weights of the first (B, N - 1) and second (B, N - 2) differences, factors on both for the pose, and the latter's
    coefficients."""

    first: Tensor
    pose_first: Tensor
    pose_second: Tensor
    second: Tensor
    before: Tensor
    after: Tensor


def _first_differences(parameters: Parameters) -> Tensor:
    """First differences (B, N - 1, D) of the local unknowns; of rotations the relative axis-angle vector."""
    rotation = parameters.rotation
    turn = rotmat_to_rotvec(rotation[:, 1:] @ rotation[:, :-1].mT)
    rest = torch.cat([parameters.translation, parameters.expression, parameters.gaze.flatten(2)], -1).diff(
        dim=1
    )
    return torch.cat([turn, rest], -1)
