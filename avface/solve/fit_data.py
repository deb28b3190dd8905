"""Observations and predictions of a clip's frames as the fit uses them: landmarks with weights, and a prior."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avface.arrays import Int
from avface.head.schemes import MIN_VISIBLE_SHARE
from avface.solve.config import SolverConfig
from avface.solve.landmark_model import LandmarkModel
from avface.solve.observations import Observations
from avface.solve.prediction import FramePrior, Prediction

MIN_SHAPE_VISIBILITY = 0.7
"""Least share of visible landmarks of frames from which the shape is estimated."""


@dataclass(frozen=True)
class FrameData:
    """T frames. landmarks (T, L, 2) pixels, their visibility (T, L) in [0, 1], precision (T, L) their inverse variance
    in pixels^-2 (0 in frames without a face), occlusion (T, E) the hidden share of each expression unit's motion, and
    the frames' prior."""

    landmarks: Tensor
    visibility: Tensor
    precision: Tensor
    occlusion: Tensor
    prior: FramePrior

    def __len__(self) -> int:
        return len(self.landmarks)

    def select(self, rows: slice) -> FrameData:
        """Some of the frames."""
        return FrameData(
            self.landmarks[rows],
            self.visibility[rows],
            self.precision[rows],
            self.occlusion[rows],
            self.prior.select(rows),
        )


class FitData:
    """Observations and prediction of a clip, read frame by frame as tensors on a landmark model's device.

    `shape_frames` are the numbers of the frames that show enough of the face to estimate its shape, or of all with
    landmarks if those are too few; `pose_frames` of those that determine the pose, or of all with landmarks.
    """

    def __init__(
        self, observations: Observations, prediction: Prediction, model: LandmarkModel, config: SolverConfig
    ) -> None:
        """Choose frames by their visibility, and measure the clip's tracker jitter.

        Raises:
            ValueError: if no frame has landmarks, or the prediction is of another clip or head.
        """
        prediction.check(len(observations.times), model.num_units, model.head.num_shape)
        if observations.units is not None:
            observations.units.check(len(observations.times), model.num_units, model.head.num_shape)
        self.observations, self.prediction = observations, prediction
        self._model, self._config = model, config
        visible = observations.visible_share()
        with_face = np.flatnonzero(visible > 0)
        if not len(with_face):
            raise ValueError("no frame has landmarks")
        self.shape_frames = np.flatnonzero(visible >= MIN_SHAPE_VISIBILITY)
        if len(self.shape_frames) < min(len(with_face), config.key_frames):
            self.shape_frames = with_face
        pose_frames = np.flatnonzero(visible >= MIN_VISIBLE_SHARE)
        self.pose_frames = pose_frames if len(pose_frames) else with_face
        jitter = config.jitter_factor * observations.jitter(self.shape_frames)
        self._noise = float(np.hypot(config.landmark_noise, jitter))
        energy = model.expression_basis.square().sum(-1)  # (E, L)
        energy[energy.sum(1) == 0] = 1  # the tongue, and other units that move no landmark
        self._energy_share = energy / energy.sum(1, keepdim=True)
        """(E, L) share of each landmark in the motion energy of a unit."""

    def frames(self, numbers: Int) -> FrameData:
        """Frames of these numbers (T,)."""
        landmarks, visibility = self.landmarks(numbers), self.visibility(numbers)
        occlusion = (1 - visibility @ self._energy_share.T).clamp_min(0)
        # A prediction is weighted by the occlusion: networks are trained on landmarks, too, so that beside visible ones
        # it would count the same information twice.
        prior = FramePrior.of(
            self.prediction, numbers, self._config.prediction_sigma * self._model.reach
        ).scaled(occlusion, 1 - visibility.mean(1))
        prior = self._with_units(prior, numbers, 1 - occlusion)
        confidence = self._model.tensor(np.asarray(self.observations.confidence)[numbers])
        precision = self._precision(landmarks, confidence) * visibility
        return FrameData(landmarks, visibility, precision, occlusion, prior)

    def _with_units(self, prior: FramePrior, numbers: Int, visible: Tensor) -> FramePrior:
        """The prior of frames of these numbers (T,) times what is read off the picture of units that are visible by
        (T, E)."""
        units, trust = self.observations.units, self._config.unit_trust
        if units is None:
            return prior
        read = FramePrior.of(units, numbers, self._config.unit_sigma * self._model.reach)
        return prior.product(read, trust * visible)

    def landmarks(self, numbers: Int) -> Tensor:
        """Landmarks (T, L, 2) pixels in frames of these numbers."""
        return self._model.tensor(
            np.concatenate([self.observations.landmarks[run] for run in _runs(numbers)])
        )

    def visibility(self, numbers: Int) -> Tensor:
        """Visibility (T, L) in [0, 1] of the landmarks in frames of these numbers; 0 in frames without a face."""
        if self.observations.visibility is None:
            visibility = np.ones((len(numbers), self._model.num_landmarks))
        else:
            visibility = np.concatenate(
                [np.asarray(self.observations.visibility[run]) for run in _runs(numbers)]
            )
        return self._model.tensor(
            visibility * (np.asarray(self.observations.confidence)[numbers] > 0)[:, None]
        )

    def _precision(self, landmarks: Tensor, confidence: Tensor) -> Tensor:
        """Inverse variance (T, L) of the landmarks in pixels^-2; 0 for frames without a face."""
        size = (landmarks.amax(1) - landmarks.amin(1)).prod(-1).sqrt()
        spread = self._model.spread / self._model.spread.median()
        sigma = self._noise * size[:, None] * spread.clamp(0.5, 2).sqrt()
        return torch.nan_to_num(confidence[:, None] / sigma**2, nan=0.0)


def _runs(numbers: Int) -> list[slice]:
    """Runs of consecutive frames."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return [slice(int(run[0]), int(run[-1]) + 1) for run in runs]
