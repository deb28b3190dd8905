"""The fit's second problem: the motion of all frames, with shape and focal length known.

Blocks on the diagonal, coupled to the next and the next but one by a smoothness prior, solved by block-banded Cholesky
in windows that overlap, several windows side by side.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from avface.arrays import F64, Int, Ints
from avface.geometry.rotations import rotmat_to_rotvec, rotvec_to_rotmat
from avface.solve.config import SolverConfig
from avface.solve.fit_data import FitData, FrameData
from avface.solve.frame_costs import FrameCosts
from avface.solve.gap_motion import gap_drifts
from avface.solve.landmark_model import LandmarkModel, Parameters, initial_parameters
from avface.solve.linear.bounded import bounded_newton_step
from avface.solve.linear.chain_matrix import ChainMatrix, MotionNormal
from avface.solve.motion import REFERENCE_STEP, MotionPrior, MotionWeights
from avface.solve.shape_fit import SharedUnknowns
from avface.threads import one_thread

_MOST_WORKERS = 8
"""Most threads that solve windows; each takes the memory of its windows."""


@dataclass(frozen=True)
class _Windows:
    """`size` = (B, N) windows and frames of each: their data, the motion prior's weights, and landmarks (B N + M, L, 2)
    for the initial pose with their visibility (B N + M, L). Frames that don't determine their pose, M of all, start
    between two that do: `missing` (M,) are their places, the landmarks there those of the last one that does, the
    landmarks at the end those of the next one, and `shares` (M,) how far they are from the one to the other."""

    data: FrameData
    weights: MotionWeights
    initial_landmarks: Tensor
    initial_visibility: Tensor
    missing: Tensor
    shares: Tensor
    size: tuple[int, int]

    @property
    def complete(self) -> bool:
        """Whether every frame determines its pose."""
        return not len(self.missing)

    def initial(self, model: LandmarkModel, shared: SharedUnknowns) -> Parameters:
        """Neutral faces in their initial poses; missing poses are interpolated.

        A pose that starts off the line between its neighbours would stay there: to the heavy-tailed motion prior two
        jumps and no motion between them are outliers.
        """
        found = initial_parameters(
            model, self.initial_landmarks, self.initial_visibility, shared.shape, shared.log_focal
        )
        count = len(self.initial_landmarks) - len(self.missing)
        result = found.select(slice(0, count))
        if self.complete:
            return result
        after, missing, shares = found.select(slice(count, None)), self.missing, self.shares[:, None]
        before = result.rotation[missing]
        turn = shares * rotmat_to_rotvec(after.rotation @ before.mT)
        rotation, translation = result.rotation.clone(), result.translation.clone()
        rotation[missing] = rotvec_to_rotmat(turn) @ before
        translation[missing] = torch.lerp(result.translation[missing], after.translation, shares)
        return replace(result, rotation=rotation, translation=translation)


class MotionFit:
    """Estimates pose, expression and gaze of every frame."""

    def __init__(self, costs: FrameCosts, config: SolverConfig, device: torch.device) -> None:
        self._costs, self._config, self._model, self._device = costs, config, costs.model, device
        self._prior = MotionPrior(self._model.head, self._model.num_local, config.motion, device)

    def fit(self, data: FitData, shared: SharedUnknowns, on_frames: Callable[[int], None]) -> Parameters:
        """The frames' parameters; `on_frames` is called with the number of frames solved since the last call.

        Memory is fixed: it depends on the window, not on the number of frames.
        """
        config, model = self._config, self._model
        frames = len(data.observations.times)
        starts, size = _place_windows(frames, config.window, config.overlap)
        result = Parameters(
            torch.empty(frames, 3, 3, dtype=torch.float64),
            torch.empty(frames, 3, dtype=torch.float64),
            torch.empty(frames, model.num_units, dtype=torch.float64),
            torch.empty(frames, len(model.eye_joints), 2, dtype=torch.float64),
            shared.shape,
            shared.log_focal,
            model.limits,
        )
        drifts = gap_drifts(data)
        edges = [0, *((a + b + size) // 2 for a, b in pairwise(starts)), frames]

        def store(first: int, solution: Parameters) -> None:
            for window in range(len(solution.translation)):
                begin, end = edges[first + window : first + window + 2]
                inside = slice(begin - starts[first + window], end - starts[first + window])
                result.rotation[begin:end] = solution.rotation[window, inside].cpu()
                result.translation[begin:end] = solution.translation[window, inside].cpu()
                result.expression[begin:end] = solution.expression[window, inside].cpu()
                result.gaze[begin:end] = solution.gaze[window, inside].cpu()
                on_frames(end - begin)

        # two threads have work from two windows on
        together = min(config.windows_at_once, -(-len(starts) // 2))
        workers = min(torch.get_num_threads(), _MOST_WORKERS) if self._device.type == "cpu" else 1
        pending: deque[tuple[int, Future[Parameters]]] = deque()
        # workers live on for the whole fit, so that a block that ends in another thread must not reach them
        with (
            one_thread(),
            ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool,
        ):
            for first in range(0, len(starts), together):
                rows = np.array(starts[first : first + together])[:, None] + np.arange(size)
                loaded = self._load_windows(data, rows, drifts, shared)  # files are read by this thread alone
                if len(pending) == workers:
                    store(pending[0][0], pending.popleft()[1].result())
                pending.append((first, pool.submit(self._fit_windows, loaded, shared)))
            while pending:
                store(pending[0][0], pending.popleft()[1].result())
        return result

    def _load_windows(self, data: FitData, rows: Int, drifts: F64, shared: SharedUnknowns) -> _Windows:
        """Data and priors of windows (B, N) of frame numbers; drifts (T - 1,) of `gap_drifts`."""
        model, pose_frames, numbers = self._model, data.pose_frames, rows.ravel()
        frames = data.frames(numbers)
        times = np.asarray(data.observations.times, np.float64)
        segments = np.asarray(data.observations.segments)
        missing = np.flatnonzero(~np.isin(numbers, pose_frames))
        landmarks, visibility = frames.landmarks, frames.visibility
        shares = np.zeros(len(missing))
        if len(missing):
            before, after, shares = _pose_neighbours(numbers[missing], pose_frames, times, segments)
            landmarks, visibility = landmarks.clone(), visibility.clone()
            landmarks[missing], visibility[missing] = data.landmarks(before), data.visibility(before)
            landmarks = torch.cat([landmarks, data.landmarks(after)])
            visibility = torch.cat([visibility, data.visibility(after)])
        times, segments = times[rows], segments[rows]
        step = np.gradient(times, axis=1) if times.shape[1] > 1 else np.full(times.shape, REFERENCE_STEP)
        samples = (model.tensor(step).flatten() / self._config.clip_prior_seconds).clamp(0, 1)
        # The occlusion is squared: a half visible unit is determined well enough by its landmarks.
        prior = frames.prior.product(shared.clip_prior, samples[:, None] * frames.occlusion**2)
        return _Windows(
            replace(frames, prior=prior),
            self._prior.weights(
                model.tensor(times),
                torch.as_tensor(segments, device=self._device),
                model.tensor(drifts[rows[:, :-1]]),
            ),
            landmarks,
            visibility,
            torch.as_tensor(missing, device=self._device),
            model.tensor(shares),
            (len(rows), rows.shape[1]),
        )

    def _fit_windows(self, windows: _Windows, shared: SharedUnknowns) -> Parameters:
        """Solve windows (B, N); parameters come back shaped (B, N, ...)."""
        config, model, costs = self._config, self._model, self._costs
        batch, size = windows.size
        data, weights = windows.data, windows.weights
        parameters = windows.initial(model, shared)
        anchor = parameters.translation
        # Weak: it matters only in gaps longer than the window, which nothing else determines.
        anchor_precision = anchor.new_full((batch * size, 6), 1e-3)

        def total(p: Parameters) -> tuple[Tensor, Tensor]:
            frame = costs.cost(p, data)
            frame = frame + 0.5 * (anchor_precision[:, 3:] * (p.translation - anchor) ** 2).sum(-1)
            return frame.view(batch, size).sum(1), self._motion(p, weights, batch).cost

        cost = sum(total(parameters))
        damping = anchor.new_full((batch,), 1e-3)
        active = torch.ones(batch, dtype=torch.bool, device=self._device)
        side = torch.zeros(batch * size, model.num_local, dtype=torch.int8, device=self._device)
        for _ in range(config.iterations):
            hessian, gradient = self._equations_in_chunks(parameters, data)
            motion = self._motion(parameters, weights, batch)
            gradient[:, 3:6] += anchor_precision[:, 3:] * (parameters.translation - anchor)
            hessian.diagonal(dim1=1, dim2=2)[:, :6] += anchor_precision
            gradient = gradient + motion.gradient.flatten(0, 1)
            # A gap is coupled to its ends alone, which is too ill-conditioned for single precision.
            chain = ChainMatrix(hessian if windows.complete else hessian.double(), motion, batch, damping)
            low, high = model.bounds(parameters)
            step, side = bounded_newton_step(chain.solve, chain.multiply, gradient, low, high, side)
            candidate = parameters.retract(step)
            new_cost = sum(total(candidate))
            lowered = cost - new_cost
            better = active & (lowered >= 0)
            parameters = candidate.where(better.repeat_interleave(size), parameters)
            cost = torch.where(better, new_cost, cost)
            damping = torch.where(better, (damping / 10).clamp_min(1e-7), damping * 10)
            active &= ~(better & (lowered < config.tolerance * cost)) & (damping < 1e4)
            if not active.any():
                break
        return parameters.in_windows(batch)

    def _motion(self, parameters: Parameters, weights: MotionWeights, batch: int) -> MotionNormal:
        return self._prior.normal_equations(parameters.in_windows(batch), weights)

    def _equations_in_chunks(
        self, parameters: Parameters, data: FrameData, chunk: int = 64
    ) -> tuple[Tensor, Tensor]:
        """Frame equations of many frames in chunks: the Jacobian is much larger than the result."""
        parts = [
            self._costs.equations(parameters.select(rows), data.select(rows))
            for rows in (slice(i, i + chunk) for i in range(0, len(data), chunk))
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


def _pose_neighbours(numbers: Int, pose_frames: Int, times: F64, segments: Ints) -> tuple[Int, Int, F64]:
    """The last frame before each of some frames (M,) that determines its pose, the next one after it, and how far in
    time it is from the one to the other, (M,) in [0, 1].

    Of two in different shots both are the one in the frame's own shot; if neither is, both are the nearer one.
    """
    place = np.searchsorted(pose_frames, numbers)
    before, after = (pose_frames[np.clip(place - back, 0, len(pose_frames) - 1)] for back in (1, 0))
    own_before, own_after = segments[before] == segments[numbers], segments[after] == segments[numbers]
    nearer_before = np.abs(numbers - before) < np.abs(after - numbers)
    alone_before = (own_before & ~own_after) | ((own_before == own_after) & ~own_before & nearer_before)
    alone_after = (own_after & ~own_before) | ((own_before == own_after) & ~own_before & ~nearer_before)
    before, after = np.where(alone_after, after, before), np.where(alone_before, before, after)
    span = times[after] - times[before]
    share = np.where(span > 0, (times[numbers] - times[before]) / np.where(span > 0, span, 1), 0.0)
    return before, after, share.clip(0, 1)


def _place_windows(frames: int, longest: int, overlap: int) -> tuple[list[int], int]:
    """First frames of windows of one length, at most `longest`, that share at least `overlap` frames; their length.

    An even number of them, if there is more than one, so that two threads finish together.
    """
    if frames <= longest:
        return [0], frames
    count = -(-(frames - overlap) // (longest - overlap))
    count += count % 2
    size = -(-(frames + (count - 1) * overlap) // count)
    return np.linspace(0, frames - size, count).round().astype(int).tolist(), size
