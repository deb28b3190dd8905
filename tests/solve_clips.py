"""Landmarks of heads with known parameters, for tests of the solver against exact truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import roma
import torch

from avface.head import load_head
from avface.head.model import HeadModel
from avface.solve import ExpressionPriorConfig, MotionPriorConfig, Observations, SolverConfig
from avface.solve.landmark_model import LandmarkModel, Parameters

SIZE = (640, 480)
"""Width and height of the picture in pixels."""
SWAY = 3.0
"""Least period in seconds of the head's motion to both sides and back."""

NO_PRIOR = SolverConfig(
    tracker_error_prior=False,
    jitter_factor=0.0,
    landmark_noise=1e-6,
    independence=1.0,
    tail=1e6,
    effective_key_frames=1e6,
    shape_limit=6.0,
    iterations=40,
    tolerance=1e-10,
    expression=ExpressionPriorConfig(
        sparsity=0.0,
        precision=1e-6,
        mirror=0.0,
        contain=0.0,
        gaze_sigma=1e3,
        vergence_sigma=1e3,
        lid_sigma=1e3,
    ),
    motion=MotionPriorConfig(rotation=10, translation=10, expression=100, lids=100, gaze=100, drift=10),
)
"""A solver with negligible landmark noise and priors."""


def head_without_tracker_errors() -> HeadModel:
    """The open head without the tracker's error components, for landmarks projected from itself."""
    head = load_head("open")
    for scheme, embedding in head.embeddings.items():
        head.embeddings[scheme] = replace(embedding, error_basis=embedding.error_basis[:0])
    return head


def head_of_known_size() -> HeadModel:
    """The same with a fixed size, which can't be told from distance in a picture."""
    head = head_without_tracker_errors()
    head.shape_basis[head.size_component] = 0
    return head


QUICK = SolverConfig(key_frames=8, tracker_error_prior=False)
"""The default solver with few key frames and without the shape prior."""


@dataclass(frozen=True)
class Truth:
    """Parameters of a clip and their landmarks (T, L, 2) in pixels."""

    parameters: Parameters
    landmarks: np.ndarray
    times: np.ndarray

    def observations(self, landmarks: np.ndarray | None = None, **changes: np.ndarray) -> Observations:
        """Observations as of the tracker; frames whose landmarks are nan get confidence 0."""
        landmarks = self.landmarks if landmarks is None else landmarks
        seen = np.isfinite(landmarks).all((1, 2)).astype(float)
        whole = Observations(landmarks, seen, self.times, np.zeros(len(landmarks), np.int64))
        return replace(whole, **changes)


def truth(
    head: HeadModel,
    frames: int,
    *,
    shape: np.ndarray | None = None,
    expression: dict[str, np.ndarray] | np.ndarray | None = None,
    gaze: np.ndarray | None = None,
    turn: float = 0.3,
    focal_length: float = 900.0,
    frame_rate: float = 30.0,
    times: np.ndarray | None = None,
) -> Truth:
    """A head that turns and nods slowly by up to `turn` radians once in the clip.

    expression: curves (T,) by name, or (T, E). shape: (S,), or (S + K,) with the tracker's errors.
    """
    times = np.arange(frames) / frame_rate if times is None else times
    phase = torch.as_tensor(2 * np.pi * times / max(times[-1], SWAY))
    yaw, pitch, roll = (
        turn * torch.sin(phase),
        0.7 * turn * torch.cos(phase),
        0.3 * turn * torch.sin(2 * phase),
    )
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64))
    rotation = facing @ roma.euler_to_rotmat("YXZ", [yaw, pitch, roll])
    translation = torch.stack(
        [0.02 * torch.sin(phase), 0.01 * torch.cos(phase), 0.55 + 0.05 * torch.sin(2 * phase)], 1
    )
    weights = np.zeros((frames, head.num_expression))
    if isinstance(expression, dict):
        for name, curve in expression.items():
            weights[:, head.expression_names.index(name)] = curve
    elif expression is not None:
        weights[:] = expression
    directions = np.zeros((frames, 2, 2)) if gaze is None else gaze
    model = LandmarkModel(head, ((SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2))
    weights_of_shape = torch.zeros(len(model.shape_basis), dtype=torch.float64)
    if shape is not None:
        weights_of_shape[: len(shape)] = torch.as_tensor(shape)
    parameters = Parameters(
        rotation,
        translation,
        torch.as_tensor(weights),
        torch.as_tensor(directions, dtype=torch.float64),
        weights_of_shape,
        torch.tensor(np.log(focal_length), dtype=torch.float64),
    )
    return Truth(parameters, model.project(parameters).numpy(), times)


def check_equations_with_shared(model, parameters):
    """The equations of two frames by local and shared unknowns are those of the model's Jacobian."""
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(2, model.num_landmarks, 2, generator=generator, dtype=torch.float64)
    weights = torch.rand(2, model.num_landmarks, generator=generator, dtype=torch.float64)

    arrow, gradient, shared_gradient = model.equations_with_shared(parameters, weights, residual)

    rows, local = model.jacobian(parameters), model.num_local
    size = 2 * local + rows.shape[-1] - local
    dense = torch.zeros(*rows.shape[:3], size, dtype=torch.float64)  # every frame has unknowns of its own
    for frame in range(2):
        dense[frame, ..., frame * local : (frame + 1) * local] = rows[frame, ..., :local]
        dense[frame, ..., 2 * local :] = rows[frame, ..., local:]
    pulled = torch.einsum("tlid,tl,tli->d", dense, weights, residual)
    torch.testing.assert_close(torch.cat([gradient.flatten(), shared_gradient]), pulled, rtol=1e-9, atol=1e-9)
    wanted = torch.einsum("tlid,tl,tlie->de", dense, weights, dense)
    whole = torch.stack([arrow.multiply(unit) for unit in torch.eye(size, dtype=torch.float64)])
    scale = wanted.diagonal().clamp_min(1e-9).rsqrt()
    scaled = scale[:, None] * scale
    torch.testing.assert_close(whole * scaled, wanted * scaled, rtol=0, atol=1e-5)
