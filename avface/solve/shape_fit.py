"""The fit's first problem: shape and focal length, from key frames.

One block a frame plus one shared block, solved by the Schur complement. On heads with a `ShapePrior` the problem is
solved twice: loosely for a `NeutralObservation`, then around the shape that the prior estimates from it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from avface.arrays import Int
from avface.head.schemes import LIPS_INNER_LOWER, LIPS_INNER_UPPER
from avface.solve.config import SolverConfig
from avface.solve.fit_data import FitData, FrameData
from avface.solve.frame_costs import FrameCosts
from avface.solve.landmark_model import Parameters, initial_parameters
from avface.solve.linear.arrow_matrix import ArrowMatrix
from avface.solve.linear.bounded import bounded_newton_step
from avface.solve.observations import LandmarkCorrections
from avface.solve.prediction import FramePrior, Prediction
from avface.solve.shape_prior import NeutralObservation, load_shape_prior

SHAPE_PRECISION = 8.0
"""Precision of shape weights around the estimate of the shape prior: landmarks may still move them by a third of a
standard deviation or so."""
BIAS_PRECISION = 5.0
"""Factor then on the precision of the tracker's bias. Loose, it takes what shape and expression should explain; tight,
it leaves the errors to the shape. With 0.1, 3, 5, 10: landmarks on four real clips are 1.4, 1.20, 1.16, 1.11 % away
from their places on the surface; the shape protocol's ratio is 0.702, 0.726, 0.735, 0.750."""
LIP_BIAS_SIGMA = 4e-3
"""Standard deviation in metres of the bias's difference between a point of the upper inner lip and that below it."""
MIN_LANDMARK_WEIGHT = 0.1
"""Least sum of a landmark's weights over the frames; below it the mean residual shrinks to 0."""
MIN_CORRECTED_FRAMES = 6
"""Least number of corrected frames that show the face well; with fewer, all corrected frames are used."""
OBSERVATION_TOLERANCE = 1e-2
"""Least tolerance of the fit for `NeutralObservation`: twice as exact is no better."""


@dataclass(frozen=True)
class SharedUnknowns:
    """What a clip's frames share: shape (S + K,), the logarithm of the focal length (), and the clip's own distribution
    of expressions as the prior of one fully occluded frame."""

    shape: Tensor
    log_focal: Tensor
    clip_prior: FramePrior


class ShapeFit:
    """Estimates shape and focal length."""

    def __init__(
        self, costs: FrameCosts, config: SolverConfig, image_size: tuple[int, int], focal_length: float | None
    ) -> None:
        """For pictures of image_size (width, height) pixels; focal_length in pixels if it is known."""
        self._costs, self._config, self._model = costs, config, costs.model
        self._log_focal_mean = float(np.log(focal_length or config.focal_prior * max(image_size)))
        self._focal_precision = config.focal_sigma**-2 if focal_length is None else 1e12
        head = costs.model.head
        self._shape_prior = load_shape_prior(head) if config.tracker_error_prior else None
        self._corrected_prior = load_shape_prior(head, corrected=True)

    def fit(self, data: FitData) -> SharedUnknowns:
        """Shape, focal length and the clip's distribution of expressions."""
        mean, precision = self._weight_prior(data.prediction)
        config, model = self._config, self._model
        corrections = None if self._corrected_prior is None else self._corrections(data)
        shape_prior = self._shape_prior
        if config.tracker_error_prior and corrections is not None:
            shape_prior = self._corrected_prior
        numbers, counts = data.observations.key_frames(data.shape_frames, config.key_frames)
        keys = data.frames(numbers)
        coupling = None
        if shape_prior is None:
            start = self._start(keys)
        else:
            own = slice(0, model.head.num_shape)
            limit = config.shape_limit
            observed, loose = self._observe(keys, data, corrections)
            mean[own] = model.tensor(shape_prior.shape(observed).clip(-limit, limit))
            # The shape prior has no information on size, which keeps its own precision.
            estimated = [n for n in range(own.stop) if n != model.head.size_component]
            precision[estimated] = SHAPE_PRECISION
            precision[own.stop :] *= BIAS_PRECISION
            shape = torch.cat([mean[own], loose.shape[own.stop :]])
            start = (
                self._start(keys, shape, loose.log_focal)
                if corrections is not None
                else replace(loose, shape=shape)
            )
            coupling = self._lip_bias_precision()
        parameters = self._fit_key_frames(keys, start, mean, precision, config.tolerance, coupling)
        return SharedUnknowns(
            parameters.shape, parameters.log_focal, self._clip_prior(parameters.expression, counts)
        )

    def observe_neutral(self, data: FitData) -> NeutralObservation:
        """The observed landmarks of the neutral face."""
        numbers, _ = data.observations.key_frames(data.shape_frames, self._config.key_frames)
        return self._observe(data.frames(numbers), data, self._corrections(data))[0]

    def _corrections(self, data: FitData) -> LandmarkCorrections | None:
        """The landmark corrections to use: those of frames that show the face well, or all if these are too few; None
        if there are none, or all weights are 0."""
        corrections = data.observations.corrections
        if corrections is None or not np.any(corrections.weights):
            return None
        clear = corrections.among(data.shape_frames)
        return (
            clear if len(clear.frames) >= min(MIN_CORRECTED_FRAMES, len(data.shape_frames)) else corrections
        )

    def _observe(
        self, keys: FrameData, data: FitData, corrections: LandmarkCorrections | None
    ) -> tuple[NeutralObservation, Parameters]:
        """The observed landmarks of the neutral face, and the loose fit that separates them from pose and expression:
        on the corrected frames if there are any, else on the key frames."""
        frames = keys if corrections is None else data.frames(corrections.frames)
        prior = self._weight_prior(data.prediction)
        tolerance = max(self._config.tolerance, OBSERVATION_TOLERANCE)
        loose = self._fit_key_frames(frames, self._start(frames), *prior, tolerance)
        return self._neutral(frames, loose, corrections), loose

    def _start(
        self, keys: FrameData, shape: Tensor | None = None, log_focal: Tensor | None = None
    ) -> Parameters:
        """A neutral head in the pose of each key frame; mean shape and prior focal length by default."""
        if shape is None:
            shape = keys.landmarks.new_zeros(self._model.shape_basis.shape[0])
        if log_focal is None:
            log_focal = keys.landmarks.new_tensor(self._log_focal_mean)
        return initial_parameters(self._model, keys.landmarks, keys.visibility, shape, log_focal)

    def _fit_key_frames(
        self,
        keys: FrameData,
        parameters: Parameters,
        shape_mean: Tensor,
        shape_precision: Tensor,
        tolerance: float,
        shape_coupling: Tensor | None = None,
    ) -> Parameters:
        """Shape, focal length and the key frames' poses and expressions, given mean and precision (S + K,) of the shape
        weights' prior.

        shape_coupling: (S + K, S + K) added to the diagonal matrix of the precisions; nothing if None.
        """
        config, model, costs = self._config, self._model, self._costs
        frames = len(keys)
        frame_weight = min(1.0, config.effective_key_frames / frames)
        stiffness = torch.diag(shape_precision)
        if shape_coupling is not None:
            stiffness = stiffness + shape_coupling
        focal_mean, focal_precision = self._log_focal_mean, self._focal_precision

        def total(p: Parameters) -> float:
            focal_cost = 0.5 * focal_precision * (p.log_focal - focal_mean) ** 2
            data = costs.cost(p, keys).sum() * frame_weight
            deviation = p.shape - shape_mean
            return float(data + 0.5 * deviation @ stiffness @ deviation + focal_cost)

        count = frames * model.num_local
        cost, damping = total(parameters), 1e-3
        side = torch.zeros(count + len(shape_mean) + 1, dtype=torch.int8, device=shape_mean.device)
        shared_precision = torch.block_diag(stiffness, shape_mean.new_tensor([[focal_precision]]))
        shared_mean = torch.cat([shape_mean, shape_mean.new_tensor([focal_mean])])
        for _ in range(config.iterations):
            hessian, gradient, shared_gradient = costs.equations_with_shared(parameters, keys)
            at = torch.cat([parameters.shape, parameters.log_focal[None]])
            arrow = ArrowMatrix(
                frame_weight * hessian.blocks,
                frame_weight * hessian.coupling,
                frame_weight * hessian.shared + shared_precision,
            )
            shared_gradient = frame_weight * shared_gradient + shared_precision @ (at - shared_mean)
            whole = torch.cat([frame_weight * gradient.flatten(), shared_gradient])
            low, high = model.bounds(parameters)
            limits = torch.full_like(at, config.shape_limit)
            limits[-1] = torch.inf
            low, high = torch.cat([low.flatten(), -limits - at]), torch.cat([high.flatten(), limits - at])
            while True:
                damped = arrow.damped(damping)
                step, side = bounded_newton_step(damped.solve, damped.multiply, whole, low, high, side)
                candidate = parameters.retract(step[:count].view(frames, -1), step[count:])
                lowered = cost - (new_cost := total(candidate))
                if lowered >= 0 or damping > 1e4:
                    break
                damping *= 10
            if lowered < 0:
                break
            parameters, cost, damping = candidate, new_cost, max(damping / 10, 1e-7)
            if lowered < tolerance * max(cost, 1e-12):
                break
        return parameters

    def _neutral(
        self, keys: FrameData, parameters: Parameters, corrections: LandmarkCorrections | None
    ) -> NeutralObservation:
        """The neutral landmarks: those of the model plus the weighted mean residuals of the frames, corrected if there
        are corrections of the same frames."""
        model = self._model
        rotation, focal = parameters.rotation, torch.exp(parameters.log_focal)
        depth = (model.points(parameters) @ rotation.mT + parameters.translation[:, None])[..., 2:]
        landmarks, weights = keys.landmarks, (keys.precision > 0).to(depth)
        if corrections is not None:
            landmarks = landmarks + model.tensor(corrections.offsets)
            weights = weights * model.tensor(corrections.weights)
        residual = torch.nan_to_num((landmarks - model.project(parameters)) * depth / focal)
        mean_weight = weights * len(weights) / weights.sum(0).clamp_min(MIN_LANDMARK_WEIGHT)
        residual = residual * mean_weight[..., None]
        own = (model.neutral(parameters.shape) - model.mean) @ rotation.mT
        return NeutralObservation.of((own[..., :2] + residual).cpu().numpy(), rotation.cpu().numpy())

    def _lip_bias_precision(self) -> Tensor:
        """Precision (S + K, S + K) that keeps the tracker's bias from opening the inner lips: their gap belongs to the
        expression, which moves the surface."""
        own = self._model.head.num_shape
        upper, lower = (
            self._model.shape_basis[own:, torch.as_tensor(lip[1:-1]), 1]
            for lip in (LIPS_INNER_UPPER, LIPS_INNER_LOWER)
        )
        gap = (upper - lower) / LIP_BIAS_SIGMA
        return torch.block_diag(gap.new_zeros(own, own), gap @ gap.T)

    def _weight_prior(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Mean and precision (S + K,) of the shape weights: standard normal, or as predicted where that is narrower."""
        model = self._model
        precision = model.tensor(np.ones(len(model.shape_basis)))
        mean = torch.zeros_like(precision)
        if prediction.shape is not None and prediction.shape_sigma is not None:
            sigma = model.tensor(prediction.shape_sigma)
            own = slice(0, len(sigma))
            mean[own] = torch.where(sigma < 1, model.tensor(prediction.shape), 0.0)
            precision[own] = sigma.clamp_max(1) ** -2
        if model.head.size_component is not None:
            # One camera can't tell size from distance; the slight evidence from smaller expressions is misleading.
            mean[model.head.size_component] = 0
            precision[model.head.size_component] = 1e8
        return mean, precision

    def _clip_prior(self, expression: Tensor, counts: Int) -> FramePrior:
        """Normal distribution of the clip's expressions, from those of key frames (T, E) weighted by counts (T,)."""
        share = self._model.tensor(counts / counts.sum())
        mean = share @ expression
        variance = share @ (expression - mean) ** 2 + (self._config.clip_prior_sigma * self._model.reach) ** 2
        return FramePrior(mean[None], 1 / variance[None])
