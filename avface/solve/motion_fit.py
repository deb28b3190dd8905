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

from avface.arrays import Int
from avface.solve.config import SolverConfig
from avface.solve.fit_data import FitData, FrameData
from avface.solve.frame_costs import FrameCosts
from avface.solve.landmark_model import Parameters, initial_parameters
from avface.solve.linear.bounded import bounded_newton_step
from avface.solve.linear.chain_matrix import ChainMatrix, MotionNormal
from avface.solve.motion import REFERENCE_STEP, MotionPrior, MotionWeights
from avface.solve.shape_fit import SharedUnknowns
from avface.threads import one_thread

_MOST_WORKERS = 8
"""Most threads that solve windows; each takes the memory of its windows."""


@dataclass(frozen=True)
class _Windows:
    """`size` = (B, N) windows and frames of each: their data, the motion prior's weights, and landmarks (B N, L, 2) for
    the initial pose with their visibility (B N, L), those of the nearest frame that determines the pose. `complete`:
    whether every frame does."""

    data: FrameData
    weights: MotionWeights
    initial_landmarks: Tensor
    initial_visibility: Tensor
    complete: bool
    size: tuple[int, int]


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
                loaded = self._load_windows(data, rows, shared)  # files are read by this thread alone
                if len(pending) == workers:
                    store(pending[0][0], pending.popleft()[1].result())
                pending.append((first, pool.submit(self._fit_windows, loaded, shared)))
            while pending:
                store(pending[0][0], pending.popleft()[1].result())
        return result

    def _load_windows(self, data: FitData, rows: Int, shared: SharedUnknowns) -> _Windows:
        """Data and priors of windows (B, N) of frame numbers."""
        model, pose_frames, numbers = self._model, data.pose_frames, rows.ravel()
        frames = data.frames(numbers)
        after = np.searchsorted(pose_frames, numbers)
        nearest, before = (pose_frames[np.clip(after - back, 0, len(pose_frames) - 1)] for back in (0, 1))
        nearest = np.where(abs(before - numbers) < abs(nearest - numbers), before, nearest)
        missing = np.flatnonzero(nearest != numbers)
        landmarks, visibility = frames.landmarks, frames.visibility
        if len(missing):
            landmarks, visibility = landmarks.clone(), visibility.clone()
            landmarks[missing] = data.landmarks(nearest[missing])
            visibility[missing] = data.visibility(nearest[missing])
        times = np.asarray(data.observations.times, np.float64)[rows]
        step = np.gradient(times, axis=1) if times.shape[1] > 1 else np.full(times.shape, REFERENCE_STEP)
        samples = (model.tensor(step).flatten() / self._config.clip_prior_seconds).clamp(0, 1)
        # The occlusion is squared: a half visible unit is determined well enough by its landmarks.
        prior = frames.prior.product(shared.clip_prior, samples[:, None] * frames.occlusion**2)
        segments = np.asarray(data.observations.segments)[rows]
        return _Windows(
            replace(frames, prior=prior),
            self._prior.weights(model.tensor(times), torch.as_tensor(segments, device=self._device)),
            landmarks,
            visibility,
            not len(missing),
            (len(rows), rows.shape[1]),
        )

    def _fit_windows(self, windows: _Windows, shared: SharedUnknowns) -> Parameters:
        """Solve windows (B, N); parameters come back shaped (B, N, ...)."""
        config, model, costs = self._config, self._model, self._costs
        batch, size = windows.size
        data, weights = windows.data, windows.weights
        parameters = initial_parameters(
            model, windows.initial_landmarks, windows.initial_visibility, shared.shape, shared.log_focal
        )
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
