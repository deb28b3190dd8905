"""What is known of a clip's frames, ready for the fit: landmarks with the weights by which they count, and what was
predicted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avface.arrays import Int
from avface.solve.config import SolverConfig
from avface.solve.landmark_model import LandmarkModel
from avface.solve.observations import Observations
from avface.solve.prediction import FramePrior, Prediction

HARDLY_SHOWN = 0.1
"""Share of a face's landmarks below which a frame says nothing of where the head is."""
CLEAR = 0.7
"""Share of a face's landmarks from which a frame is good for finding the person's shape."""


@dataclass(frozen=True)
class SeenFrames:
    """T frames. landmarks (T, L, 2) pixels, how likely each is to be seen (T, L), precision (T, L) their inverse
    variance in pixels^-2 (0 in frames without a face), unseen (T, E) how much of what each expression unit moves can't
    be seen, and the frames' prior."""

    landmarks: Tensor
    visibility: Tensor
    precision: Tensor
    unseen: Tensor
    prior: FramePrior

    def __len__(self) -> int:
        return len(self.landmarks)

    def select(self, rows: slice) -> SeenFrames:
        """Some of the frames."""
        return SeenFrames(
            self.landmarks[rows],
            self.visibility[rows],
            self.precision[rows],
            self.unseen[rows],
            self.prior.select(rows),
        )


class FitData:
    """Observations and prediction of a clip, read frame by frame as tensors on a landmark model's device.

    `clear` are the numbers of the frames that show the face well, `placed` of those that show where the head is, or of
    all that show something of it if none does.
    """

    def __init__(
        self, observations: Observations, prediction: Prediction, model: LandmarkModel, config: SolverConfig
    ) -> None:
        """See which frames show what, and how coarse the clip's landmarks are.

        Raises:
            ValueError: if no frame has landmarks, or the prediction is of another clip or head.
        """
        prediction.check(len(observations.times), model.num_units, model.head.num_shape)
        self.observations, self.prediction = observations, prediction
        self._model, self._config = model, config
        shown = observations.shown()
        seen = np.flatnonzero(shown > 0)
        if not len(seen):
            raise ValueError("no frame has landmarks")
        self.clear = np.flatnonzero(shown >= CLEAR)
        if len(self.clear) < min(len(seen), config.key_frames):
            self.clear = seen
        placed = np.flatnonzero(shown >= HARDLY_SHOWN)
        self.placed = placed if len(placed) else seen
        jitter = config.jitter_factor * observations.jitter(self.clear)
        self._noise = float(np.hypot(config.landmark_noise, jitter))
        energy = model.expression_basis.square().sum(-1)  # (E, L)
        energy[energy.sum(1) == 0] = 1  # the tongue, and what moves no landmark by itself
        self._shown_by = energy / energy.sum(1, keepdim=True)
        """(E, L) where a unit shows: the share of each landmark in its motion."""

    def frames(self, numbers: Int) -> SeenFrames:
        """Frames of these numbers (T,)."""
        landmarks, visibility = self.landmarks(numbers), self.visibility(numbers)
        unseen = (1 - visibility @ self._shown_by.T).clamp_min(0)
        # A prediction counts as far as landmarks can't be seen: networks learn from landmarks, too. What these show,
        # they say better themselves.
        prior = FramePrior.of(
            self.prediction, numbers, self._config.prediction_sigma * self._model.reach
        ).weakened(unseen, 1 - visibility.mean(1))
        confidence = self._model.tensor(np.asarray(self.observations.confidence)[numbers])
        return SeenFrames(
            landmarks, visibility, self._precision(landmarks, confidence) * visibility, unseen, prior
        )

    def landmarks(self, numbers: Int) -> Tensor:
        """Landmarks (T, L, 2) pixels in frames of these numbers."""
        return self._model.tensor(
            np.concatenate([self.observations.landmarks[run] for run in _runs(numbers)])
        )

    def visibility(self, numbers: Int) -> Tensor:
        """How likely (T, L) each landmark is to be seen in frames of these numbers."""
        if self.observations.visibility is None:
            seen = np.ones((len(numbers), self._model.num_landmarks))
        else:
            seen = np.concatenate([np.asarray(self.observations.visibility[run]) for run in _runs(numbers)])
        return self._model.tensor(seen * (np.asarray(self.observations.confidence)[numbers] > 0)[:, None])

    def _precision(self, landmarks: Tensor, confidence: Tensor) -> Tensor:
        """Inverse variance (T, L) of the landmarks in pixels^-2; 0 for unseen frames."""
        size = (landmarks.amax(1) - landmarks.amin(1)).prod(-1).sqrt()
        spread = self._model.spread / self._model.spread.median()
        sigma = self._noise * size[:, None] * spread.clamp(0.5, 2).sqrt()
        return torch.nan_to_num(confidence[:, None] / sigma**2, nan=0.0)


def _runs(numbers: Int) -> list[slice]:
    """Stretches of frames that follow each other."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) != 1) + 1)
    return [slice(int(run[0]), int(run[-1]) + 1) for run in runs]
