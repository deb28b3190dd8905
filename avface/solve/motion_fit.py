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
from avface.solve.fit_data import FitData, SeenFrames
from avface.solve.frame_costs import FrameCosts
from avface.solve.landmark_model import Parameters, initial_parameters
from avface.solve.linear.bounded import bounded_newton_step
from avface.solve.linear.chain_matrix import ChainMatrix, MotionNormal
from avface.solve.motion import REFERENCE_STEP, MotionPrior, MotionWeights
from avface.solve.shape_fit import SharedUnknowns
from avface.threads import one_thread

_MOST_WORKERS = 8
"""Threads that solve windows, at most; each takes the memory of its windows."""


@dataclass(frozen=True)
class _Windows:
    """`size` = (B, N) windows and frames of each: what was seen in them, the motion prior's weights, and landmarks
    (B N, L, 2) to start from with their visibility (B N, L), which are those of the nearest frame that shows where the
    head is. `all_seen` says that every frame does."""

    seen: SeenFrames
    weights: MotionWeights
    started: Tensor
    started_visibility: Tensor
    all_seen: bool
    size: tuple[int, int]


class MotionFit:
    """Finds pose, expression and gaze of every frame."""

    def __init__(self, costs: FrameCosts, config: SolverConfig, device: torch.device) -> None:
        self._costs, self._config, self._model, self._device = costs, config, costs.model, device
        self._prior = MotionPrior(self._model.head, self._model.num_local, config.motion, device)

    def fit(self, evidence: FitData, shared: SharedUnknowns, on_frames: Callable[[int], None]) -> Parameters:
        """The frames' parameters; `on_frames` is told how many more frames are solved.

        Memory is fixed: it depends on the window, not on the number of frames.
        """
        config, model = self._config, self._model
        frames = len(evidence.observations.times)
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
        workers = min(torch.get_num_threads(), _MOST_WORKERS) if self._device.type == "cpu" else 1
        pending: deque[tuple[int, Future[Parameters]]] = deque()
        with one_thread(), ThreadPoolExecutor(workers) as pool:
            for first in range(0, len(starts), together):
                rows = np.array(starts[first : first + together])[:, None] + np.arange(size)
                loaded = self._load_windows(evidence, rows, shared)  # files are read by this thread alone
                if len(pending) == workers:
                    keep(pending[0][0], pending.popleft()[1].result())
                pending.append((first, pool.submit(self._fit_windows, loaded, shared)))
            while pending:
                keep(pending[0][0], pending.popleft()[1].result())
        return result

    def _load_windows(self, evidence: FitData, rows: Int, shared: SharedUnknowns) -> _Windows:
        """What was seen and is expected in windows (B, N) of frame numbers."""
        model, placed, numbers = self._model, evidence.placed, rows.ravel()
        seen = evidence.frames(numbers)
        after = np.searchsorted(placed, numbers)
        nearest, before = (placed[np.clip(after - back, 0, len(placed) - 1)] for back in (0, 1))
        nearest = np.where(abs(before - numbers) < abs(nearest - numbers), before, nearest)
        elsewhere = np.flatnonzero(nearest != numbers)
        started, started_visibility = seen.landmarks, seen.visibility
        if len(elsewhere):
            started, started_visibility = started.clone(), started_visibility.clone()
            started[elsewhere] = evidence.landmarks(nearest[elsewhere])
            started_visibility[elsewhere] = evidence.visibility(nearest[elsewhere])
        times = np.asarray(evidence.observations.times, np.float64)[rows]
        draws = model.tensor(
            np.gradient(times, axis=1) if times.shape[1] > 1 else np.full(times.shape, REFERENCE_STEP)
        )
        draws = (draws.flatten() / self._config.usual_seconds).clamp(0, 1)
        # A unit of which half shows is known well enough: its share counts by its square.
        prior = seen.prior.product(shared.usual, draws[:, None] * seen.unseen**2)
        segments = np.asarray(evidence.observations.segments)[rows]
        return _Windows(
            replace(seen, prior=prior),
            self._prior.weights(model.tensor(times), torch.as_tensor(segments, device=self._device)),
            started,
            started_visibility,
            not len(elsewhere),
            (len(rows), rows.shape[1]),
        )

    def _fit_windows(self, windows: _Windows, shared: SharedUnknowns) -> Parameters:
        """Solve windows (B, N); parameters come back shaped (B, N, ...)."""
        config, model, costs = self._config, self._model, self._costs
        batch, size = windows.size
        seen, weights = windows.seen, windows.weights
        parameters = initial_parameters(
            model, windows.started, windows.started_visibility, shared.shape, shared.log_focal
        )
        anchor = parameters.translation
        # So weak that it only decides where nothing else does: in gaps longer than the window.
        anchor_precision = anchor.new_full((batch * size, 6), 1e-3)

        def total(p: Parameters) -> tuple[Tensor, Tensor]:
            frame = costs.cost(p, seen)
            frame = frame + 0.5 * (anchor_precision[:, 3:] * (p.translation - anchor) ** 2).sum(-1)
            return frame.view(batch, size).sum(1), self._motion(p, weights, batch).cost

        cost = sum(total(parameters))
        damping = anchor.new_full((batch,), 1e-3)
        active = torch.ones(batch, dtype=torch.bool, device=self._device)
        side = torch.zeros(batch * size, model.num_local, dtype=torch.int8, device=self._device)
        for _ in range(config.iterations):
            hessian, gradient = self._equations_in_chunks(parameters, seen)
            motion = self._motion(parameters, weights, batch)
            gradient[:, 3:6] += anchor_precision[:, 3:] * (parameters.translation - anchor)
            hessian.diagonal(dim1=1, dim2=2)[:, :6] += anchor_precision
            gradient = gradient + motion.gradient.flatten(0, 1)
            # A gap is tied down by its ends alone, too loosely for single precision.
            chain = ChainMatrix(hessian if windows.all_seen else hessian.double(), motion, batch, damping)
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
        self, parameters: Parameters, seen: SeenFrames, chunk: int = 64
    ) -> tuple[Tensor, Tensor]:
        """Frame equations of many frames, a few at a time: the Jacobian is much larger than what is kept of it."""
        parts = [
            self._costs.equations(parameters.select(rows), seen.select(rows))
            for rows in (slice(i, i + chunk) for i in range(0, len(seen), chunk))
        ]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])


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
