"""The maximum a posteriori fit of a head to a clip's landmarks.

Two exact Gauss-Newton (Levenberg-Marquardt) problems, each with its structure exploited:

1. shape and focal length from key frames: one block a frame plus one shared block, solved by the Schur complement;
2. motion of all frames with shape and focal length known: blocks on the diagonal, coupled to the next and the next but
   one by a smoothness prior, solved by block-banded Cholesky in windows that overlap, several windows side by side.

Weights of expression units stay inside their limits ([0, 1] for the open head's), and shape weights within theirs:
every step minimises the quadratic model within the bounds (see `bounded`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avface.head.landmark_schemes import LIPS_INNER_LOWER, LIPS_INNER_UPPER
from avface.head.model import HeadModel
from avface.solve.banded import solve_block_pentadiagonal
from avface.solve.bounded import bounded_newton_step
from avface.solve.identity import SeenAtRest, identity_model
from avface.solve.jointed_landmarks import landmark_model
from avface.solve.landmark_model import Parameters, initial_pose
from avface.solve.motion import (
    REFERENCE_STEP,
    MotionNormal,
    MotionPrior,
    MotionPriorConfig,
    MotionWeights,
)
from avface.solve.prediction import FramePrior, Prediction, no_prediction
from avface.solve.priors import ExpressionPrior, ExpressionPriorConfig

LONGEST_STEP = 0.055
"""Seconds between frames beyond which their differences are motion rather than the tracker's jitter."""

HARDLY_SHOWN = 0.1
"""Share of a face's landmarks below which a frame says nothing of where the head is."""
CLEAR = 0.7
"""Share of a face's landmarks from which a frame is good for finding the person's shape."""

SETTLED = 3.0
"""Precision of shape weights that were read: landmarks may still move them by half a standard deviation or so."""
UNEXPLAINED = 0.1
"""Precision then of the tracker's bias: more than the measured errors is left unexplained."""
PARTED = 4e-3
"""Metres by which it may part a point of the inner lips from the one below."""
READING_TOLERANCE = 1e-2
"""Share of its cost by which a step must lower the problem whose solution is only read: twice as exact is no better."""

_MOST_WORKERS = 8
"""Threads that solve windows, at most; each takes the memory of its windows."""

FloatArray = npt.NDArray[np.floating]


@dataclass(frozen=True)
class SolverConfig:
    """Noise and priors of the fit. Lengths in the picture are shares of the face's size, sqrt(w h) of its box."""

    landmark_noise: float = 0.008
    """Standard deviation of a landmark against the model, as a share of the face's size."""
    jitter_factor: float = 2.0
    """How much the tracker's jitter in the clip adds to it, in quadrature: coarse pictures are trusted less."""
    independence: float = 0.3
    """Share of the landmarks that count as independent: neighbouring ones err together."""
    tail: float = 6.0
    """Degrees of freedom of Student's t: the smaller, the less an outlying point pulls."""
    key_frames: int = 24
    """Frames from which shape and focal length are found."""
    key_frame_evidence: float = 1.0
    """As how many independent frames all key frames together count for the shape: the model's own error repeats."""
    shape_limit: float = 3.0
    """Largest shape weight in standard deviations: the prior is a normal distribution cut off there."""
    tracker_errs: bool = True
    """Whether the shape is read with experience of our tracker's errors, for heads that have it. Without, for landmarks
    from elsewhere, it is the likeliest one if errors of points are independent."""
    focal_prior: float = 1.6
    """Most likely focal length as a multiple of the picture's longer side."""
    focal_sigma: float = 0.2
    """Standard deviation of the logarithm of the focal length."""
    prediction_sigma: float = 0.05
    """What is added to a prediction's standard deviations of the expression units, in quadrature, as a share of the
    largest weight a unit can have: who predicts knows how sure he is on material like that which he learnt from."""
    usual_seconds: float = 0.1
    """Where a unit's landmarks are hidden it is as likely as it is in the rest of the clip, one draw in so many
    seconds: an unseen mouth is neither shut nor held, it goes over to how this person's mouth usually is."""
    usual_sigma: float = 0.05
    """Least standard deviation of a unit over a clip, as a share of the largest weight it can have."""
    window: int = 128
    """Frames solved together."""
    overlap: int = 32
    """Frames that neighbouring windows share; half of them are taken from each."""
    windows_at_once: int = 2
    """Windows that one thread solves side by side; more of them keep a GPU busy and take more memory."""
    iterations: int = 12
    """Most Gauss-Newton steps of either problem."""
    tolerance: float = 1e-3
    """A problem is solved when a step lowers its cost by less than this share."""
    expression: ExpressionPriorConfig = field(default_factory=ExpressionPriorConfig)
    """Which expressions are likely."""
    motion: MotionPriorConfig = field(default_factory=MotionPriorConfig)
    """How faces move."""


class FrameArray(Protocol):
    """Arrays in memory and on disk."""

    def __getitem__(self, key: Any, /) -> Any:
        """A frame's array by its number, or those of a slice of frames."""


@dataclass(frozen=True)
class CloserLook:
    """How far landmarks are off in K frames, as somebody says who looked at the picture.

    landmarks (K, L, 2) as they were tracked and offsets (K, L, 2) to where they should be, pixels; weights (K, L) in
    [0, 1] as far as each counts.
    """

    landmarks: FloatArray
    offsets: FloatArray
    weights: FloatArray


@dataclass(frozen=True)
class Observations:
    """What was seen of one person in T frames.

    landmarks (T, L, 2) pixels, nan in frames without a face (an array, or what gives arrays for a frame and for a slice
    of frames, such as one that lies on disk: only a few windows are asked for at a time), confidence (T,) in [0, 1],
    times (T,) seconds, segments (T,) numbers of the stretches between shot cuts, visibility (T, L) in [0, 1] how likely
    each landmark is to be seen (an array or something like it, as for landmarks; None: all are), by which it counts,
    closer what a closer look at some frames said, by which the shape is read.
    """

    landmarks: FrameArray
    confidence: FloatArray
    times: FloatArray
    segments: npt.NDArray[np.integer]
    visibility: FrameArray | None = None
    closer: CloserLook | None = None


@dataclass(frozen=True)
class Fit:
    """The solution. shape (S,), focal_length in pixels, rotation (T, 3, 3), translation (T, 3) metres,
    expression (T, E), gaze (T, G, 2) radians, landmark_bias (K,) in standard deviations of the embedding's error
    components."""

    shape: FloatArray
    focal_length: float
    rotation: FloatArray
    translation: FloatArray
    expression: FloatArray
    gaze: FloatArray
    landmark_bias: FloatArray


class Solver:
    """Fits one head model to clips of one picture size."""

    def __init__(
        self,
        head: HeadModel,
        image_size: tuple[int, int],
        config: SolverConfig | None = None,
        focal_length: float | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """Prepare for pictures of image_size (width, height) pixels; focal_length in pixels if it is known."""
        self.config = config or SolverConfig()
        self.image_size = image_size
        self.focal_length = focal_length
        self.device = torch.device(device)
        width, height = image_size
        self.model = landmark_model(head, ((width - 1) / 2, (height - 1) / 2), device)
        self.expression_prior = ExpressionPrior(head, self.model.num_local, self.config.expression)
        self._noise = self.config.landmark_noise
        self.motion_prior = MotionPrior(head, self.model.num_local, self.config.motion)
        self.motion_prior.first = self.motion_prior.first.to(device)
        self.motion_prior.second = self.motion_prior.second.to(device)
        energy = self.model.expression_basis.square().sum(-1)  # (E, L)
        energy[energy.sum(1) == 0] = 1  # the tongue, and what moves no landmark by itself
        self._shown_by = energy / energy.sum(1, keepdim=True)
        """(E, L) where a unit shows: the share of each landmark in its motion."""
        self._reach = torch.as_tensor(head.unit_range.reach, device=device)

    def fit(
        self,
        observations: Observations,
        on_frames: Callable[[int], None] = lambda frames: None,
        prediction: Prediction | None = None,
    ) -> Fit:
        """Fit shape, focal length and motion. `on_frames` is told how many more frames are solved.

        prediction: what is expected before looking, from sound for example; as strong as its standard deviations say.
        Memory is fixed: it depends on the window, not on the number of frames.

        Raises:
            ValueError: if no frame has landmarks, or a prediction is of another clip or head.
        """
        frames, units = len(observations.times), self.model.expression_basis.shape[0]
        prediction = prediction or no_prediction(frames, units)
        prediction.check(frames, units, self.model.head.num_shape)
        seen, clear, placed = self._look(observations)
        shape, log_focal, usual = self._fit_shape(observations, clear, prediction)
        motion = self._fit_motion(
            observations, placed if len(placed) else seen, shape, log_focal, usual, prediction, on_frames
        )
        own = self.model.head.num_shape
        return Fit(
            shape=shape[:own].cpu().numpy(),
            landmark_bias=shape[own:].cpu().numpy(),
            focal_length=float(torch.exp(log_focal)),
            rotation=motion.rotation.cpu().numpy(),
            translation=motion.translation.cpu().numpy(),
            expression=motion.expression.cpu().numpy(),
            gaze=motion.gaze.cpu().numpy(),
        )

    def seen_at_rest(self, observations: Observations) -> SeenAtRest:
        """Where the landmarks of the person's face at rest are seen, as far as key frames can tell it from pose and
        expression.

        Raises:
            ValueError: if no frame has landmarks.
        """
        nothing = no_prediction(len(observations.times), self.model.expression_basis.shape[0])
        _, clear, _ = self._look(observations)
        keys = self._key_frames(observations, clear, nothing)
        prior = self._shape_prior(nothing)
        fitted = self._fit_key_frames(keys, self._start(keys), *prior, READING_TOLERANCE)
        return self._at_rest(keys, fitted, observations.closer)

    def _look(self, observations: Observations) -> tuple[npt.NDArray[np.int64], ...]:
        """Frames that show something of the face, those that show it well, and those that show where the head is; and
        see how coarse the clip's landmarks are.

        Raises:
            ValueError: if there are none.
        """
        shown = _shown(observations)
        seen = np.flatnonzero(shown > 0)
        if not len(seen):
            raise ValueError("no frame has landmarks")
        clear = np.flatnonzero(shown >= CLEAR)
        if len(clear) < min(len(seen), self.config.key_frames):
            clear = seen
        self._noise = float(
            np.hypot(self.config.landmark_noise, self.config.jitter_factor * _jitter(observations, clear))
        )
        return seen, clear, np.flatnonzero(shown >= HARDLY_SHOWN)

    # Data term

    def _load(self, landmarks: FloatArray) -> Tensor:
        return torch.as_tensor(np.ascontiguousarray(landmarks, dtype=np.float64), device=self.device)

    def _visibility(self, observations: Observations, rows: Sequence[slice | int]) -> Tensor:
        """How likely (T, L) each landmark is to be seen in some frames, given as stretches or one by one."""
        confidence = np.concatenate([np.atleast_1d(observations.confidence[r]) for r in rows])
        if observations.visibility is None:
            seen = np.ones((len(confidence), self.model.num_landmarks))
        else:
            parts = [np.asarray(observations.visibility[r]) for r in rows]
            seen = np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])
        return self._load(seen * (confidence > 0)[:, None])

    def _precision(self, landmarks: Tensor, confidence: Tensor) -> Tensor:
        """Inverse variance (T, L) of the landmarks in pixels^-2; 0 for unseen frames."""
        size = (landmarks.amax(1) - landmarks.amin(1)).prod(-1).sqrt()
        spread = self.model.spread / self.model.spread.median()
        sigma = self._noise * size[:, None] * spread.clamp(0.5, 2).sqrt()
        return torch.nan_to_num(confidence[:, None] / sigma**2, nan=0.0)

    def _robust(self, residual: Tensor, precision: Tensor) -> tuple[Tensor, Tensor]:
        """Cost (T,) and weights (T, L) of residuals (T, L, 2) under Student's t with two degrees a landmark."""
        square = precision * (residual**2).sum(-1)
        tail, share = self.config.tail, self.config.independence
        cost = share * 0.5 * (tail + 2) * torch.log1p(square / tail).sum(-1)
        return cost, share * (tail + 2) / (tail + square) * precision

    def _local(self, parameters: Parameters) -> Tensor:
        """The local unknowns (..., D) on which the expression prior speaks; pose as zeros."""
        pose = parameters.translation.new_zeros(*parameters.translation.shape[:-1], 6)
        return torch.cat([pose, parameters.expression, parameters.gaze.flatten(-2)], -1)

    def _frame_cost(
        self, parameters: Parameters, landmarks: Tensor, precision: Tensor, prior: FramePrior
    ) -> Tensor:
        """Cost (T,) of the data, the expression prior and the frames' own prior."""
        residual = torch.nan_to_num(self.model.project(parameters) - landmarks)
        cost = self._robust(residual, precision)[0] + prior.cost(parameters)
        return cost + self.expression_prior.cost(self._local(parameters))

    def _frame_equations(
        self, parameters: Parameters, landmarks: Tensor, precision: Tensor, prior: FramePrior
    ) -> tuple[Tensor, Tensor]:
        """Hessian (T, D, D) in single and gradient (T, D) in double precision of the frame costs."""
        residual = torch.nan_to_num(self.model.project(parameters) - landmarks)
        weights = self._robust(residual, precision)[1]
        hessian, gradient = self.model.normal_equations(parameters, weights, residual)
        prior_hessian, prior_gradient = self.expression_prior.normal_equations(self._local(parameters))
        prior.add_equations(parameters, hessian, gradient)
        return hessian.add_(prior_hessian), gradient.add_(prior_gradient)

    def _shape_equations(
        self, parameters: Parameters, landmarks: Tensor, precision: Tensor, prior: FramePrior
    ) -> tuple[Tensor, Tensor]:
        """Hessian (T, K, K) and gradient (T, K) of the frame costs by local and shared unknowns."""
        residual = torch.nan_to_num(self.model.project(parameters) - landmarks)
        root = self._robust(residual, precision)[1].sqrt()[..., None]
        jacobian = (root[..., None] * self.model.jacobian(parameters)).flatten(1, 2)
        gradient = (jacobian.mT @ (root * residual).flatten(1)[..., None])[..., 0]
        jacobian = jacobian.float()
        hessian = (jacobian.mT @ jacobian).double()
        prior_hessian, prior_gradient = self.expression_prior.normal_equations(self._local(parameters))
        local = self.model.num_local
        hessian[:, :local, :local] += prior_hessian
        gradient[:, :local] += prior_gradient
        prior.add_equations(parameters, hessian, gradient)
        return hessian, gradient

    def _bounds(self, parameters: Parameters) -> tuple[Tensor, Tensor]:
        """Least and largest step (T, D) of the local unknowns: expression weights stay inside their limits."""
        weights = parameters.expression
        low = weights.new_full((len(weights), self.model.num_local), -torch.inf)
        high = -low
        units = slice(6, 6 + weights.shape[-1])
        least, most = self.model.limits
        low[:, units], high[:, units] = least - weights, most - weights
        return low, high

    # Shape and focal length

    def _fit_shape(
        self, observations: Observations, clear: npt.NDArray[np.int64], prediction: Prediction
    ) -> tuple[Tensor, Tensor, FramePrior]:
        """Shape, focal length, and which expressions are usual in the clip, as the prior of one hidden frame."""
        keys = self._key_frames(observations, clear, prediction)
        mean, precision = self._shape_prior(prediction)
        closer = observations.closer
        identity = identity_model(self.model.head, closer is not None) if self.config.tracker_errs else None
        tolerance = (
            self.config.tolerance if identity is None else max(self.config.tolerance, READING_TOLERANCE)
        )
        parameters = self._fit_key_frames(keys, self._start(keys), mean, precision, tolerance)
        if identity is not None:
            own = slice(0, self.model.head.num_shape)
            limit = self.config.shape_limit
            seen = self._at_rest(keys, parameters, closer)
            mean[own] = self._load(identity.shape(seen).clip(-limit, limit))
            # Size isn't read: it keeps its own.
            read = [n for n in range(own.stop) if n != self.model.head.size_component]
            precision[read] = SETTLED
            precision[own.stop :] *= UNEXPLAINED
            parameters.shape = torch.cat([mean[own], parameters.shape[own.stop :]])
            shut = self._lips_of_bias()
            parameters = self._fit_key_frames(keys, parameters, mean, precision, self.config.tolerance, shut)
        return parameters.shape, parameters.log_focal, self._usual(parameters.expression, keys.stands_for)

    def _key_frames(
        self, observations: Observations, clear: npt.NDArray[np.int64], prediction: Prediction
    ) -> _KeyFrames:
        frames, stands_for = self._choose_key_frames(observations, clear)
        landmarks = self._load(np.stack([observations.landmarks[f] for f in frames]))
        confidence = torch.as_tensor(observations.confidence[frames], dtype=torch.float64, device=self.device)
        visibility = self._visibility(observations, frames.tolist())
        return _KeyFrames(
            landmarks,
            visibility,
            self._precision(landmarks, confidence) * visibility,
            self._predicted(prediction, frames, visibility),
            stands_for,
        )

    def _start(self, keys: _KeyFrames) -> Parameters:
        """The mean head before the likeliest camera, where key frames show it."""
        model, landmarks = self.model, keys.landmarks
        shape = landmarks.new_zeros(model.shape_basis.shape[0])
        log_focal = landmarks.new_tensor(self._prior_focal)
        rotation, translation = initial_pose(
            model, landmarks, float(torch.exp(log_focal)), shape, keys.visibility
        )
        return Parameters(
            rotation,
            translation,
            landmarks.new_zeros(len(landmarks), model.expression_basis.shape[0]),
            landmarks.new_zeros(len(landmarks), len(model.eye_joints), 2),
            shape,
            log_focal,
            model.limits,
        )

    @property
    def _prior_focal(self) -> float:
        """Logarithm of the likeliest focal length."""
        return float(np.log(self.focal_length or self.config.focal_prior * max(self.image_size)))

    def _fit_key_frames(
        self,
        keys: _KeyFrames,
        parameters: Parameters,
        shape_mean: Tensor,
        shape_precision: Tensor,
        tolerance: float,
        shape_coupling: Tensor | None = None,
    ) -> Parameters:
        """Shape, focal length and the key frames' poses and expressions, for a prior of the shape weights (S + K,).

        shape_coupling: (S + K, S + K) what is added to the diagonal matrix of their precisions; nothing if None.
        """
        config, model = self.config, self.model
        landmarks, precision, prior = keys.landmarks, keys.precision, keys.prior
        frames = len(landmarks)
        evidence = min(1.0, config.key_frame_evidence / frames)
        stiffness = torch.diag(shape_precision)
        if shape_coupling is not None:
            stiffness = stiffness + shape_coupling
        prior_focal = self._prior_focal
        focal_precision = config.focal_sigma**-2 if self.focal_length is None else 1e12

        def total(p: Parameters) -> float:
            focal_cost = 0.5 * focal_precision * (p.log_focal - prior_focal) ** 2
            data = self._frame_cost(p, landmarks, precision, prior).sum() * evidence
            away = p.shape - shape_mean
            return float(data + 0.5 * away @ stiffness @ away + focal_cost)

        count = frames * model.num_local
        cost, damping = total(parameters), 1e-3
        side = torch.zeros(count + len(shape_mean) + 1, dtype=torch.int8, device=self.device)
        shared_precision = torch.block_diag(stiffness, shape_mean.new_tensor([[focal_precision]]))
        shared_mean = torch.cat([shape_mean, shape_mean.new_tensor([prior_focal])])
        for _ in range(config.iterations):
            hessian, gradient = self._shape_equations(parameters, landmarks, precision, prior)
            local, shared = slice(0, model.num_local), slice(model.num_local, None)
            at = torch.cat([parameters.shape, parameters.log_focal[None]])
            arrow = _Arrow(
                evidence * hessian[:, local, local],
                evidence * hessian[:, local, shared],
                evidence * hessian[:, shared, shared].sum(0) + shared_precision,
            )
            whole = torch.cat(
                [
                    evidence * gradient[:, local].flatten(),
                    evidence * gradient[:, shared].sum(0) + shared_precision @ (at - shared_mean),
                ]
            )
            low, high = self._bounds(parameters)
            limits = torch.full_like(at, config.shape_limit)
            limits[-1] = torch.inf
            low, high = torch.cat([low.flatten(), -limits - at]), torch.cat([high.flatten(), limits - at])
            while True:
                damped = arrow.damped(damping)
                step, side = bounded_newton_step(damped.solve, damped.multiply, whole, low, high, side)
                candidate = parameters.moved(step[:count].view(frames, -1), step[count:])
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

    def _at_rest(self, keys: _KeyFrames, parameters: Parameters, closer: CloserLook | None) -> SeenAtRest:
        """The landmarks at rest, the model's and what they miss of what was seen, also by a closer look."""
        rotation, focal = parameters.rotation, torch.exp(parameters.log_focal)
        depth = (self.model.points(parameters) @ rotation.mT + parameters.translation[:, None])[..., 2:]
        missed = torch.nan_to_num((keys.landmarks - self.model.project(parameters)) * depth / focal)
        shares = (keys.precision > 0).to(missed)
        missed = missed * (shares * len(shares) / shares.sum(0).clamp_min(1))[..., None]
        own = (self.model.neutral(parameters.shape) - self.model.mean) @ rotation.mT
        seen = SeenAtRest.of((own[..., :2] + missed).cpu().numpy(), rotation.cpu().numpy())
        if closer is None or not len(closer.landmarks):
            return seen
        landmarks, offsets, weights = map(self._load, (closer.landmarks, closer.offsets, closer.weights))
        turns, places = initial_pose(self.model, landmarks, float(focal), parameters.shape, weights)
        rest = self.model.neutral(parameters.shape)
        # Scaled orthography: the place is that of the face, not of the head's origin behind it.
        depth = ((rest - rest.mean(0)) @ turns.mT + places[:, None])[..., 2:]
        shares = weights * len(weights) / weights.sum(0).clamp_min(1e-3)
        off = SeenAtRest.of((shares[..., None] * offsets * depth / focal).cpu().numpy(), turns.cpu().numpy())
        return SeenAtRest(seen.displacement + off.displacement, seen.view)

    def _lips_of_bias(self) -> Tensor:
        """Precision (S + K, S + K) that keeps the tracker's bias from parting the inner lips: how far they are apart is
        for the expression to say, which moves the surface."""
        own = self.model.head.num_shape
        upper, lower = (
            self.model.shape_basis[own:, torch.as_tensor(lip[1:-1]), 1]
            for lip in (LIPS_INNER_UPPER, LIPS_INNER_LOWER)
        )
        parting = (upper - lower) / PARTED
        return torch.block_diag(parting.new_zeros(own, own), parting @ parting.T)

    def _shape_prior(self, prediction: Prediction) -> tuple[Tensor, Tensor]:
        """Mean and precision (S + K,) of the shape weights: standard normal, or as predicted where that says more."""
        precision = torch.ones(len(self.model.shape_basis), dtype=torch.float64, device=self.device)
        mean = torch.zeros_like(precision)
        if prediction.shape is not None and prediction.shape_sigma is not None:
            sigma = self._load(prediction.shape_sigma)
            own = slice(0, len(sigma))
            mean[own] = torch.where(sigma < 1, self._load(prediction.shape), 0.0)
            precision[own] = sigma.clamp_max(1) ** -2
        if self.model.head.size_component is not None:
            # One camera can't tell size from distance; the little that smaller expressions seem to say is wrong.
            mean[self.model.head.size_component] = 0
            precision[self.model.head.size_component] = 1e8
        return mean, precision

    def _predicted(
        self, prediction: Prediction, rows: npt.NDArray[np.int64], visibility: Tensor
    ) -> FramePrior:
        """What is predicted for frames of which landmarks can be seen by shares (T, L): it counts as far as they can't.

        Networks learn from landmarks, too. What these show, they say better themselves.
        """
        prior = FramePrior.of(prediction, rows, self.config.prediction_sigma * self._reach)
        return prior.weakened(self._unseen(visibility), 1 - visibility.mean(1))

    def _unseen(self, visibility: Tensor) -> Tensor:
        """How much of what each expression unit moves can't be seen, (T, E), for landmarks seen by shares (T, L)."""
        return (1 - visibility @ self._shown_by.T).clamp_min(0)

    def _usual(self, expression: Tensor, stands_for: npt.NDArray[np.int64]) -> FramePrior:
        """How likely expressions are in this clip, from key frames (T, E) and how many frames each stands for."""
        share = torch.as_tensor(stands_for / stands_for.sum(), dtype=torch.float64, device=self.device)
        mean = share @ expression
        variance = share @ (expression - mean) ** 2 + (self.config.usual_sigma * self._reach) ** 2
        return FramePrior(mean[None], 1 / variance[None])

    def _choose_key_frames(
        self, observations: Observations, seen: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Frames that differ most in pose and expression, among at most 512 spread over the clip, and to how many of
        those each is the most similar one."""
        count = self.config.key_frames
        if len(seen) <= count:
            return seen, np.ones(len(seen), np.int64)
        candidates = seen[np.linspace(0, len(seen) - 1, min(len(seen), 512)).round().astype(int)]
        candidates = np.unique(candidates)
        points = np.stack([observations.landmarks[f] for f in candidates]).astype(np.float64)
        points = points - points.mean(1, keepdims=True)
        points = (points / np.linalg.norm(points, axis=(1, 2), keepdims=True)).reshape(len(points), -1)
        weight = np.asarray(observations.confidence)[candidates]
        chosen = [int(np.argmin(np.linalg.norm(points - np.median(points, 0), axis=1)))]
        distance = np.full(len(points), np.inf)
        nearest = np.zeros(len(points), np.int64)
        while True:
            to_last = np.linalg.norm(points - points[chosen[-1]], axis=1)
            nearest[to_last < distance] = chosen[-1]
            distance = np.minimum(distance, to_last)
            if len(chosen) == count:
                break
            chosen.append(int(np.argmax(distance * weight)))
        numbers = np.unique(chosen)
        return candidates[numbers], np.maximum((nearest[:, None] == numbers).sum(0), 1)

    # Motion

    def _fit_motion(
        self,
        observations: Observations,
        placed: npt.NDArray[np.int64],
        shape: Tensor,
        log_focal: Tensor,
        usual: FramePrior,
        prediction: Prediction,
        on_frames: Callable[[int], None],
    ) -> Parameters:
        config, model = self.config, self.model
        frames = len(observations.times)
        starts, size = _place_windows(frames, config.window, config.overlap)
        result = Parameters(
            torch.empty(frames, 3, 3, dtype=torch.float64),
            torch.empty(frames, 3, dtype=torch.float64),
            torch.empty(frames, model.expression_basis.shape[0], dtype=torch.float64),
            torch.empty(frames, len(model.eye_joints), 2, dtype=torch.float64),
            shape,
            log_focal,
            model.limits,
        )
        edges = [0, *((a + b + size) // 2 for a, b in pairwise(starts)), frames]

        def keep(first: int, solution: Parameters) -> None:
            for window in range(len(solution.translation)):
                begin, end = edges[first + window : first + window + 2]
                inside = slice(begin - starts[first + window], end - starts[first + window])
                result.rotation[begin:end] = solution.rotation[window, inside].cpu()
                result.translation[begin:end] = solution.translation[window, inside].cpu()
                result.expression[begin:end] = solution.expression[window, inside].cpu()
                result.gaze[begin:end] = solution.gaze[window, inside].cpu()
                on_frames(end - begin)

        together = min(
            config.windows_at_once, -(-len(starts) // 2)
        )  # two threads have work from two windows on
        workers = min(torch.get_num_threads(), _MOST_WORKERS) if self.device.type == "cpu" else 1
        pending: deque[tuple[int, Future[Parameters]]] = deque()
        with _one_thread_each(), ThreadPoolExecutor(workers) as pool:
            for first in range(0, len(starts), together):
                rows = np.array(starts[first : first + together])[:, None] + np.arange(size)
                loaded = self._load_windows(
                    observations, placed, rows, usual, prediction
                )  # files are read by this thread alone
                if len(pending) == workers:
                    keep(pending[0][0], pending.popleft()[1].result())
                pending.append((first, pool.submit(self._fit_windows, loaded, shape, log_focal)))
            while pending:
                keep(pending[0][0], pending.popleft()[1].result())
        return result

    def _load_windows(
        self,
        observations: Observations,
        placed: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        usual: FramePrior,
        prediction: Prediction,
    ) -> _Windows:
        """What was seen and is expected in windows (B, N) of frame numbers. placed: the frames that show where the head
        is."""
        stretches = [slice(int(r[0]), int(r[-1]) + 1) for r in rows]
        landmarks = self._load(np.concatenate([observations.landmarks[s] for s in stretches]))
        visibility = self._visibility(observations, stretches)
        confidence = torch.as_tensor(
            np.asarray(observations.confidence)[rows.ravel()], dtype=torch.float64, device=self.device
        )
        after = np.searchsorted(placed, rows.ravel())
        nearest, before = (placed[np.clip(after - back, 0, len(placed) - 1)] for back in (0, 1))
        nearest = np.where(abs(before - rows.ravel()) < abs(nearest - rows.ravel()), before, nearest)
        elsewhere = np.flatnonzero(nearest != rows.ravel())
        started, started_visibility = landmarks, visibility
        if len(elsewhere):
            others = nearest[elsewhere].tolist()
            started, started_visibility = landmarks.clone(), visibility.clone()
            started[elsewhere] = self._load(np.stack([observations.landmarks[f] for f in others]))
            started_visibility[elsewhere] = self._visibility(observations, others)
        times = np.asarray(observations.times, np.float64)[rows]
        prior = self._predicted(prediction, rows.ravel(), visibility)
        draws = self._load(
            np.gradient(times, axis=1) if times.shape[1] > 1 else np.full(times.shape, REFERENCE_STEP)
        )
        draws = (draws.flatten() / self.config.usual_seconds).clamp(0, 1)
        # A unit of which half shows is known well enough: its share counts by its square.
        prior = prior.times(usual, draws[:, None] * self._unseen(visibility) ** 2)
        return _Windows(
            landmarks,
            self._precision(landmarks, confidence) * visibility,
            prior,
            self.motion_prior.weights(
                self._load(times),
                torch.as_tensor(np.asarray(observations.segments)[rows], device=self.device),
            ),
            started,
            started_visibility,
            not len(elsewhere),
            (len(rows), rows.shape[1]),
        )

    def _fit_windows(self, windows: _Windows, shape: Tensor, log_focal: Tensor) -> Parameters:
        """Solve windows (B, N); parameters come back shaped (B, N, ...)."""
        config, model = self.config, self.model
        batch, size = windows.size
        landmarks, precision, weights = windows.landmarks, windows.precision, windows.weights
        prior = windows.prior
        rotation, translation = initial_pose(
            model, windows.started, float(torch.exp(log_focal)), shape, windows.started_visibility
        )
        parameters = Parameters(
            rotation,
            translation,
            landmarks.new_zeros(batch * size, model.expression_basis.shape[0]),
            landmarks.new_zeros(batch * size, len(model.eye_joints), 2),
            shape,
            log_focal,
            model.limits,
        )
        anchor = translation
        # So weak that it only decides where nothing else does: in gaps longer than the window.
        anchor_precision = torch.full((batch * size, 6), 1e-3, dtype=torch.float64, device=self.device)

        def total(p: Parameters) -> tuple[Tensor, Tensor]:
            frame = self._frame_cost(p, landmarks, precision, prior)
            frame = frame + 0.5 * (anchor_precision[:, 3:] * (p.translation - anchor) ** 2).sum(-1)
            return frame.view(batch, size).sum(1), self._motion(p, weights, batch).cost

        cost = sum(total(parameters))
        damping = torch.full((batch,), 1e-3, dtype=torch.float64, device=self.device)
        active = torch.ones(batch, dtype=torch.bool, device=self.device)
        side = torch.zeros(batch * size, model.num_local, dtype=torch.int8, device=self.device)
        for _ in range(config.iterations):
            hessian, gradient = self._equations_in_chunks(parameters, landmarks, precision, prior)
            motion = self._motion(parameters, weights, batch)
            gradient[:, 3:6] += anchor_precision[:, 3:] * (parameters.translation - anchor)
            hessian.diagonal(dim1=1, dim2=2)[:, :6] += anchor_precision
            gradient = gradient + motion.gradient.flatten(0, 1)
            # A gap is tied down by its ends alone, too loosely for single precision.
            chain = _Chain(hessian if windows.all_seen else hessian.double(), motion, batch, damping)
            low, high = self._bounds(parameters)
            step, side = bounded_newton_step(chain.solve, chain.multiply, gradient, low, high, side)
            candidate = parameters.moved(step)
            new_cost = sum(total(candidate))
            lowered = cost - new_cost
            better = active & (lowered >= 0)
            chosen = better.repeat_interleave(size)
            parameters = _choose(chosen, candidate, parameters)
            cost = torch.where(better, new_cost, cost)
            damping = torch.where(better, (damping / 10).clamp_min(1e-7), damping * 10)
            active &= ~(better & (lowered < config.tolerance * cost)) & (damping < 1e4)
            if not active.any():
                break
        return parameters.in_windows(batch)

    def _motion(self, parameters: Parameters, weights: MotionWeights, batch: int) -> MotionNormal:
        return self.motion_prior.normal_equations(parameters.in_windows(batch), weights)

    def _equations_in_chunks(
        self,
        parameters: Parameters,
        landmarks: Tensor,
        precision: Tensor,
        prior: FramePrior,
        chunk: int = 64,
    ) -> tuple[Tensor, Tensor]:
        """Frame equations of many frames, a few at a time: the Jacobian is much larger than what is kept of it."""
        parts = [
            self._frame_equations(
                parameters.select(rows), landmarks[rows], precision[rows], prior.select(rows)
            )
            for rows in (slice(i, i + chunk) for i in range(0, len(landmarks), chunk))
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


@dataclass(frozen=True)
class _KeyFrames:
    """Frames from which the shape is found: landmarks (T, L, 2) pixels, their visibility and precision (T, L), the
    frames' prior, and how many frames each stands for (T,)."""

    landmarks: Tensor
    visibility: Tensor
    precision: Tensor
    prior: FramePrior
    stands_for: npt.NDArray[np.int64]


@dataclass(frozen=True)
class _Windows:
    """What was seen in `size` = (B, N) windows and frames: landmarks (B N, L, 2) pixels, their precision (B N, L), the
    frames' prior, the motion prior's weights, and landmarks to start from with their visibility, which are those of the
    nearest frame that shows where the head is."""

    landmarks: Tensor
    precision: Tensor
    prior: FramePrior
    weights: MotionWeights
    started: Tensor
    started_visibility: Tensor
    all_seen: bool
    size: tuple[int, int]


def _place_windows(frames: int, longest: int, overlap: int) -> tuple[list[int], int]:
    """First frames of windows of one length, at most `longest`, that share at least `overlap` frames; their length.

    An even number of them, if one isn't enough, so that two threads end together.
    """
    if frames <= longest:
        return [0], frames
    count = -(-(frames - overlap) // (longest - overlap))
    count += count % 2
    size = -(-(frames + (count - 1) * overlap) // count)
    return np.linspace(0, frames - size, count).round().astype(int).tolist(), size


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """A window's matrices are so small that threads within one operation wait for each other more than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _shown(observations: Observations, block: int = 1024) -> npt.NDArray[np.float64]:
    """Share (T,) of the landmarks that can be seen in each frame."""
    shown = (np.asarray(observations.confidence) > 0).astype(np.float64)
    if observations.visibility is not None:
        for start in range(0, len(shown), block):
            here = slice(start, start + block)
            shown[here] *= np.asarray(observations.visibility[here]).mean(1)
    return shown


def _jitter(observations: Observations, seen: npt.NDArray[np.int64], samples: int = 256) -> float:
    """Standard deviation of the tracker's noise from frame to frame in each coordinate, as a share of the face's size.

    The median second difference over points and up to `samples` places in the clip: motion has little of it.
    """
    joined = (np.diff(seen) == 1) & (np.diff(np.asarray(observations.times)[seen]) < LONGEST_STEP)
    middle = seen[1:-1][joined[1:] & joined[:-1]]
    if not len(middle):
        return 0.0
    chosen = middle[np.linspace(0, len(middle) - 1, min(len(middle), samples)).astype(int)]
    differences = []
    for frame in chosen:
        before, at, after = np.asarray(observations.landmarks[frame - 1 : frame + 2], np.float64)
        size = np.sqrt(np.ptp(at, axis=0).prod())
        differences.append(np.median(np.linalg.norm(after - 2 * at + before, axis=1)) / size)
    # Of a second difference the variance is 6 times that of its terms; 1.1774 is the median of a Rayleigh distribution.
    return float(np.median(differences) / (np.sqrt(6) * 1.1774))


@dataclass(frozen=True)
class _Arrow:
    """The matrix of T blocks (T, D, D) that are coupled only through shared unknowns, (T, D, S) and (S, S)."""

    blocks: Tensor
    coupling: Tensor
    shared: Tensor

    def damped(self, damping: float) -> _Arrow:
        """With every diagonal entry enlarged by a share of itself (Levenberg-Marquardt)."""
        blocks, shared = self.blocks.clone(), self.shared.clone()
        blocks.diagonal(dim1=1, dim2=2).mul_(1 + damping).add_(1e-9)
        shared.diagonal().mul_(1 + damping)
        return _Arrow(blocks, self.coupling, shared)

    def multiply(self, vector: Tensor) -> Tensor:
        """The product with a vector (T D + S,)."""
        local, shared = self._split(vector)
        above = self.blocks @ local + self.coupling @ shared
        below = (self.coupling.mT @ local).sum(0) + self.shared @ shared
        return torch.cat([above.flatten(), below.flatten()])

    def solve(self, right: Tensor, held: Tensor) -> Tensor:
        """Solve for the unknowns (T D + S,) that aren't held, by the Schur complement; the held ones are 0."""
        local, shared = self._split(right)
        free, free_shared = (~part for part in self._split(held))
        free, free_shared = free.to(local), free_shared.to(local)
        blocks = self.blocks * free * free.mT + torch.diag_embed(1 - free[..., 0])
        coupling = self.coupling * free * free_shared.mT
        solved = torch.cholesky_solve(torch.cat([coupling, local], -1), torch.linalg.cholesky(blocks))
        rest = self.shared * free_shared * free_shared.mT + torch.diag(1 - free_shared[:, 0])
        schur = rest - (coupling.mT @ solved[..., :-1]).sum(0)
        reduced = shared - (coupling.mT @ solved[..., -1:]).sum(0)
        y = torch.linalg.solve(schur, reduced)
        return torch.cat([(solved[..., -1:] - solved[..., :-1] @ y).flatten(), y.flatten()])

    def _split(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        frames, size = self.blocks.shape[:2]
        return vector[: frames * size].view(frames, size, 1), vector[frames * size :, None]


class _Chain:
    """The matrix of `batch` windows of frames: blocks (T, D, D) of the frames plus the motion prior's couplings.

    Scaled to a unit diagonal and solved in the precision of the blocks. The gradient it meets is exact, so rounding
    makes the path to the minimum longer at worst, not the minimum another one.
    """

    def __init__(self, blocks: Tensor, motion: MotionNormal, batch: int, damping: Tensor) -> None:
        self.batch = batch
        diagonal = blocks.diagonal(dim1=1, dim2=2) + motion.diagonal.flatten(0, 1).to(blocks)
        diagonal = diagonal * (1 + damping.to(blocks).repeat_interleave(len(blocks) // batch)[:, None]) + 1e-9
        self.scale = diagonal.rsqrt()
        self.blocks = blocks * self.scale[:, :, None] * self.scale[:, None, :]
        self.blocks.diagonal(dim1=1, dim2=2).fill_(1)
        scale = self._windows(self.scale)
        self.first = motion.first.to(blocks) * scale[:, 1:] * scale[:, :-1]
        self.second = motion.second.to(blocks) * scale[:, 2:] * scale[:, :-2]

    def _windows(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (self.batch, -1))

    def multiply(self, vector: Tensor) -> Tensor:
        """The product with a vector (T, D)."""
        x = vector.to(self.blocks) / self.scale
        y = self._windows((self.blocks @ x[..., None])[..., 0])
        x = self._windows(x)
        for step, coupling in ((1, self.first), (2, self.second)):
            if x.shape[1] > step:
                y[:, step:] += coupling * x[:, :-step]
                y[:, :-step] += coupling * x[:, step:]
        return (y.flatten(0, 1) / self.scale).to(vector)

    def solve(self, right: Tensor, held: Tensor) -> Tensor:
        """Solve for the unknowns (T, D) that aren't held; the held ones are 0."""
        free = (~held).to(self.blocks)
        blocks = self.blocks * free[:, :, None] * free[:, None, :]
        blocks.diagonal(dim1=1, dim2=2).fill_(1)
        free = self._windows(free)
        system = (
            self._windows(blocks),
            self.first * free[:, 1:] * free[:, :-1],
            self.second * free[:, 2:] * free[:, :-2],
            self._windows(right.to(blocks) * self.scale),
        )
        try:
            solution = solve_block_pentadiagonal(*system)
        except (
            torch.linalg.LinAlgError
        ):  # too stiff for single precision, as with frames at nearly the same time
            solution = solve_block_pentadiagonal(*(part.double() for part in system)).to(blocks)
        return (solution.flatten(0, 1) * self.scale).to(right)


def _choose(mask: Tensor, first: Parameters, second: Parameters) -> Parameters:
    """Frames (T,) where the mask holds from the first, the others from the second."""

    def mix(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b)

    return Parameters(
        mix(first.rotation, second.rotation),
        mix(first.translation, second.translation),
        mix(first.expression, second.expression),
        mix(first.gaze, second.gaze),
        second.shape,
        second.log_focal,
        second.limits,
    )
