"""The maximum a posteriori fit of a head to a clip's landmarks.

Two exact Gauss-Newton (Levenberg-Marquardt) problems, each with its structure exploited: shape and focal length from
key frames (`shape_fit`), then the motion of all frames with these known (`motion_fit`).

Weights of expression units stay inside their limits ([0, 1] for the open head's), and shape weights within theirs:
every step minimises the quadratic model within the bounds (see `bounded`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from avface.arrays import Floats
from avface.head.model import HeadModel
from avface.solve.config import SolverConfig
from avface.solve.fit_data import FitData
from avface.solve.frame_costs import FrameCosts
from avface.solve.jointed_landmarks import landmark_model
from avface.solve.motion_fit import MotionFit
from avface.solve.observations import Observations
from avface.solve.prediction import Prediction, no_prediction
from avface.solve.shape_fit import ShapeFit
from avface.solve.shape_prior import NeutralObservation, tracker_errors
from avface.threads import refuse_after_fork


@dataclass(frozen=True)
class Fit:
    """The solution. shape (S,), focal_length in pixels, rotation (T, 3, 3), translation (T, 3) metres,
    expression (T, E), gaze (T, G, 2) radians, landmark_bias (L, 3) metres in the head's axes: the tracker's bias on
    this person against its mean places of the landmarks."""

    shape: Floats
    focal_length: float
    rotation: Floats
    translation: Floats
    expression: Floats
    gaze: Floats
    landmark_bias: Floats


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
        width, height = image_size
        centre = (width - 1) / 2, (height - 1) / 2
        errors = tracker_errors(head) if self.config.tracker_error_prior else None
        self.model = landmark_model(head, centre, device, errors)
        costs = FrameCosts(self.model, self.config)
        self._shape = ShapeFit(costs, self.config, image_size, focal_length)
        self._motion = MotionFit(costs, self.config, torch.device(device))

    def fit(
        self,
        observations: Observations,
        on_frames: Callable[[int], None] = lambda frames: None,
        prediction: Prediction | None = None,
    ) -> Fit:
        """Fit shape, focal length and motion.

        on_frames is called with the number of frames solved since the last call. prediction: priors of the unknowns,
        from networks for example. Memory is fixed: it depends on the window, not on the number of frames.

        Raises:
            ValueError: if no frame has landmarks, or a prediction is of another clip or head.
            AvfaceError: in a process that was forked from one that had used avface.
        """
        refuse_after_fork()
        data = self._fit_data(observations, prediction)
        shared = self._shape.fit(data)
        motion = self._motion.fit(data, shared, on_frames)
        own = self.model.head.num_shape
        return Fit(
            shape=shared.shape[:own].cpu().numpy(),
            landmark_bias=torch.tensordot(shared.shape[own:], self.model.shape_basis[own:], 1).cpu().numpy(),
            focal_length=float(torch.exp(shared.log_focal)),
            rotation=motion.rotation.cpu().numpy(),
            translation=motion.translation.cpu().numpy(),
            expression=motion.expression.cpu().numpy(),
            gaze=motion.gaze.cpu().numpy(),
        )

    def observe_neutral(self, observations: Observations) -> NeutralObservation:
        """The observed landmarks of the person's neutral face: key frames with pose and expression taken out.

        Raises:
            ValueError: if no frame has landmarks.
        """
        return self._shape.observe_neutral(self._fit_data(observations, None))

    def _fit_data(self, observations: Observations, prediction: Prediction | None) -> FitData:
        nothing = no_prediction(len(observations.times), self.model.num_units)
        return FitData(observations, prediction or nothing, self.model, self.config)
