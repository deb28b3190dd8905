"""The fit's first problem: shape and focal length, from key frames.

One block a frame plus one shared block, solved by the Schur complement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from avface.arrays import Int
from avface.head.schemes import LIPS_INNER_LOWER, LIPS_INNER_UPPER
from avface.solve.config import SolverConfig
from avface.solve.fit_data import FitData, SeenFrames
from avface.solve.frame_costs import FrameCosts
from avface.solve.landmark_model import Parameters, initial_parameters
from avface.solve.linear.arrow_matrix import ArrowMatrix
from avface.solve.linear.bounded import bounded_newton_step
from avface.solve.observations import LandmarkCorrections
from avface.solve.prediction import FramePrior, Prediction
from avface.solve.shape_prior import NeutralObservation, identity_model

SETTLED = 8.0
"""Precision of shape weights that were read: landmarks may still move them by a third of a standard deviation or so."""
UNEXPLAINED = 0.1
"""Precision then of the tracker's bias: more than the measured errors is left unexplained."""
PARTED = 4e-3
"""Metres by which it may part a point of the inner lips from the one below."""
LEAST_SHARES = 0.1
"""Frames' worth in which a landmark must be seen, else it counts as being where the model has it."""
ENOUGH = 6
"""Clear frames that must have been looked at, else others count, too."""
READING_TOLERANCE = 1e-2
"""Share of its cost by which a step must lower the problem whose solution is only read: twice as exact is no better."""


@dataclass(frozen=True)
class SharedUnknowns:
    """What a clip's frames share: shape (S + K,), the logarithm of the focal length (), and which expressions are usual
    in the clip, as the prior of one hidden frame."""

    shape: Tensor
    log_focal: Tensor
    usual: FramePrior


class ShapeFit:
    """Finds shape and focal length."""

    def __init__(
        self, costs: FrameCosts, config: SolverConfig, image_size: tuple[int, int], focal_length: float | None
    ) -> None:
        """For pictures of image_size (width, height) pixels; focal_length in pixels if it is known."""
        self._costs, self._config, self._model = costs, config, costs.model
        self._likely_log_focal = float(np.log(focal_length or config.focal_prior * max(image_size)))
        self._focal_precision = config.focal_sigma**-2 if focal_length is None else 1e12

    def fit(self, evidence: FitData) -> SharedUnknowns:
        """Shape, focal length and usual expressions."""
        mean, precision = self._shape_prior(evidence.prediction)
        config, model = self._config, self._model
        closer = self._corrections(evidence)
        identity = identity_model(model.head, closer is not None) if config.tracker_errs else None
        numbers, stands_for = evidence.observations.key_frames(evidence.clear, config.key_frames)
        keys = evidence.frames(numbers)
        coupling = None
        if identity is None:
            start = self._start(keys)
        else:
            own = slice(0, model.head.num_shape)
            limit = config.shape_limit
            seen, loose = self._read_at_rest(keys, evidence, closer)
            mean[own] = model.tensor(identity.shape(seen).clip(-limit, limit))
            # Size isn't read: it keeps its own.
            read = [n for n in range(own.stop) if n != model.head.size_component]
            precision[read] = SETTLED
            precision[own.stop :] *= UNEXPLAINED
            shape = torch.cat([mean[own], loose.shape[own.stop :]])
            start = (
                self._start(keys, shape, loose.log_focal)
                if closer is not None
                else replace(loose, shape=shape)
            )
            coupling = self._lips_of_bias()
        parameters = self._fit_key_frames(keys, start, mean, precision, config.tolerance, coupling)
        return SharedUnknowns(
            parameters.shape, parameters.log_focal, self._usual(parameters.expression, stands_for)
        )

    def observe_neutral(self, evidence: FitData) -> NeutralObservation:
        """Where the landmarks of the face at rest are seen."""
        numbers, _ = evidence.observations.key_frames(evidence.clear, self._config.key_frames)
        return self._read_at_rest(evidence.frames(numbers), evidence, self._corrections(evidence))[0]

    def _corrections(self, evidence: FitData) -> LandmarkCorrections | None:
        """The closer look at frames, if there was one that shows anything and the head's shape can be read by it."""
        if identity_model(self._model.head, closer=True) is None:
            return None
        return _clear_look(evidence)

    def _read_at_rest(
        self, keys: SeenFrames, evidence: FitData, closer: LandmarkCorrections | None
    ) -> tuple[NeutralObservation, Parameters]:
        """Where the landmarks at rest are seen, and the loose fit that tells them from pose and expression: of the
        frames that were looked at more closely, else of the key frames."""
        frames = keys if closer is None else evidence.frames(closer.frames)
        prior = self._shape_prior(evidence.prediction)
        tolerance = max(self._config.tolerance, READING_TOLERANCE)
        loose = self._fit_key_frames(frames, self._start(frames), *prior, tolerance)
        return self._at_rest(frames, loose, closer), loose

    def _start(
        self, keys: SeenFrames, shape: Tensor | None = None, log_focal: Tensor | None = None
    ) -> Parameters:
        """A head at rest before a camera, the mean one before the likeliest if none are given, where key frames show
        it."""
        if shape is None:
            shape = keys.landmarks.new_zeros(self._model.shape_basis.shape[0])
        if log_focal is None:
            log_focal = keys.landmarks.new_tensor(self._likely_log_focal)
        return initial_parameters(self._model, keys.landmarks, keys.visibility, shape, log_focal)

    def _fit_key_frames(
        self,
        keys: SeenFrames,
        parameters: Parameters,
        shape_mean: Tensor,
        shape_precision: Tensor,
        tolerance: float,
        shape_coupling: Tensor | None = None,
    ) -> Parameters:
        """Shape, focal length and the key frames' poses and expressions, for a prior of the shape weights (S + K,).

        shape_coupling: (S + K, S + K) what is added to the diagonal matrix of their precisions; nothing if None.
        """
        config, model, costs = self._config, self._model, self._costs
        frames = len(keys)
        evidence = min(1.0, config.key_frame_evidence / frames)
        stiffness = torch.diag(shape_precision)
        if shape_coupling is not None:
            stiffness = stiffness + shape_coupling
        likely_focal, focal_precision = self._likely_log_focal, self._focal_precision

        def total(p: Parameters) -> float:
            focal_cost = 0.5 * focal_precision * (p.log_focal - likely_focal) ** 2
            data = costs.cost(p, keys).sum() * evidence
            away = p.shape - shape_mean
            return float(data + 0.5 * away @ stiffness @ away + focal_cost)

        count = frames * model.num_local
        cost, damping = total(parameters), 1e-3
        side = torch.zeros(count + len(shape_mean) + 1, dtype=torch.int8, device=shape_mean.device)
        shared_precision = torch.block_diag(stiffness, shape_mean.new_tensor([[focal_precision]]))
        shared_mean = torch.cat([shape_mean, shape_mean.new_tensor([likely_focal])])
        for _ in range(config.iterations):
            hessian, gradient, shared_gradient = costs.equations_with_shared(parameters, keys)
            at = torch.cat([parameters.shape, parameters.log_focal[None]])
            arrow = ArrowMatrix(
                evidence * hessian.blocks,
                evidence * hessian.coupling,
                evidence * hessian.shared + shared_precision,
            )
            shared_gradient = evidence * shared_gradient + shared_precision @ (at - shared_mean)
            whole = torch.cat([evidence * gradient.flatten(), shared_gradient])
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

    def _at_rest(
        self, keys: SeenFrames, parameters: Parameters, closer: LandmarkCorrections | None
    ) -> NeutralObservation:
        """The landmarks at rest, the model's and what they miss of what was seen, by the closer look at the same frames
        if there was one."""
        model = self._model
        rotation, focal = parameters.rotation, torch.exp(parameters.log_focal)
        depth = (model.points(parameters) @ rotation.mT + parameters.translation[:, None])[..., 2:]
        seen, shares = keys.landmarks, (keys.precision > 0).to(depth)
        if closer is not None:
            seen = seen + model.tensor(closer.offsets)
            shares = shares * model.tensor(closer.weights)
        missed = torch.nan_to_num((seen - model.project(parameters)) * depth / focal)
        missed = missed * (shares * len(shares) / shares.sum(0).clamp_min(LEAST_SHARES))[..., None]
        own = (model.neutral(parameters.shape) - model.mean) @ rotation.mT
        return NeutralObservation.of((own[..., :2] + missed).cpu().numpy(), rotation.cpu().numpy())

    def _lips_of_bias(self) -> Tensor:
        """Precision (S + K, S + K) that keeps the tracker's bias from parting the inner lips: how far they are apart is
        for the expression to say, which moves the surface."""
        own = self._model.head.num_shape
        upper, lower = (
            self._model.shape_basis[own:, torch.as_tensor(lip[1:-1]), 1]
            for lip in (LIPS_INNER_UPPER, LIPS_INNER_LOWER)
        )
        parting = (upper - lower) / PARTED
        return torch.block_diag(parting.new_zeros(own, own), parting @ parting.T)

    def _shape_prior(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Mean and precision (S + K,) of the shape weights: standard normal, or as predicted where that says more."""
        model = self._model
        precision = model.tensor(np.ones(len(model.shape_basis)))
        mean = torch.zeros_like(precision)
        if prediction.shape is not None and prediction.shape_sigma is not None:
            sigma = model.tensor(prediction.shape_sigma)
            own = slice(0, len(sigma))
            mean[own] = torch.where(sigma < 1, model.tensor(prediction.shape), 0.0)
            precision[own] = sigma.clamp_max(1) ** -2
        if model.head.size_component is not None:
            # One camera can't tell size from distance; the little that smaller expressions seem to say is wrong.
            mean[model.head.size_component] = 0
            precision[model.head.size_component] = 1e8
        return mean, precision

    def _usual(self, expression: Tensor, stands_for: Int) -> FramePrior:
        """How likely expressions are in this clip, from key frames (T, E) and how many frames each stands for."""
        share = self._model.tensor(stands_for / stands_for.sum())
        mean = share @ expression
        variance = share @ (expression - mean) ** 2 + (self._config.usual_sigma * self._model.reach) ** 2
        return FramePrior(mean[None], 1 / variance[None])


def _clear_look(evidence: FitData) -> LandmarkCorrections | None:
    """The closer look at clear frames, or at whatever frames if it was at few clear ones; None if nothing was seen."""
    closer = evidence.observations.closer
    if closer is None or not np.any(closer.weights):
        return None
    clear = closer.among(evidence.clear)
    return clear if len(clear.frames) >= min(ENOUGH, len(evidence.clear)) else closer
