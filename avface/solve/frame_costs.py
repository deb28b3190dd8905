"""Costs of single frames: landmark residuals under Student's t, expression prior, frame prior."""

from __future__ import annotations

import torch
from torch import Tensor

from avface.solve.config import SolverConfig
from avface.solve.fit_data import FrameData
from avface.solve.landmark_model import LandmarkModel, Parameters
from avface.solve.linear.arrow_matrix import ArrowMatrix
from avface.solve.priors import ExpressionPrior


class FrameCosts:
    """Costs (T,) of frames, their gradients and Gauss-Newton Hessians by the D local unknowns of each frame and by the
    shared unknowns."""

    def __init__(self, model: LandmarkModel, config: SolverConfig) -> None:
        self.model = model
        self._prior = ExpressionPrior(model.head, model.num_local, config.expression)
        self._tail, self._independence = config.tail, config.independence

    def cost(self, parameters: Parameters, data: FrameData) -> Tensor:
        """Cost (T,)."""
        residual = torch.nan_to_num(self.model.project(parameters) - data.landmarks)
        cost = self._robust(residual, data.precision)[0] + data.prior.cost(parameters)
        return cost + self._prior.cost(self._local(parameters))

    def equations(self, parameters: Parameters, data: FrameData) -> tuple[Tensor, Tensor]:
        """Hessian (T, D, D) in single and gradient (T, D) in double precision."""
        residual = torch.nan_to_num(self.model.project(parameters) - data.landmarks)
        weights = self._robust(residual, data.precision)[1]
        hessian, gradient = self.model.normal_equations(parameters, weights, residual)
        prior_hessian, prior_gradient = self._prior.normal_equations(self._local(parameters))
        data.prior.add_equations(parameters, hessian, gradient)
        return hessian.add_(prior_hessian), gradient.add_(prior_gradient)

    def equations_with_shared(
        self, parameters: Parameters, data: FrameData
    ) -> tuple[ArrowMatrix, Tensor, Tensor]:
        """Hessian, and gradients (T, D) and (S + 1,), by local and shared unknowns."""
        residual = torch.nan_to_num(self.model.project(parameters) - data.landmarks)
        weights = self._robust(residual, data.precision)[1]
        hessian, gradient, shared = self.model.equations_with_shared(parameters, weights, residual)
        prior_hessian, prior_gradient = self._prior.normal_equations(self._local(parameters))
        data.prior.add_equations(parameters, hessian.blocks, gradient)
        hessian.blocks.add_(prior_hessian)
        return hessian, gradient.add_(prior_gradient), shared

    def _robust(self, residual: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Cost (T,) and weights (T, L) of residuals (T, L, 2) under Student's t with two degrees a landmark."""
        square = precision * (residual**2).sum(-1)
        tail, share = self._tail, self._independence
        cost = share * 0.5 * (tail + 2) * torch.log1p(square / tail).sum(-1)
        return cost, share * (tail + 2) / (tail + square) * precision

    def _local(self, parameters: Parameters) -> Tensor:
        """Local unknowns (..., D) for the expression prior; the pose is set to 0."""
        pose = parameters.translation.new_zeros(*parameters.translation.shape[:-1], 6)
        return torch.cat([pose, parameters.expression, parameters.gaze.flatten(-2)], -1)
