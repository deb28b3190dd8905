"""Evidence of the picture for the lips: their closure, and the gain of the lip offsets predicted from sound."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avface.arrays import F32, F64
from avface.geometry.camera import Camera, transform
from avface.geometry.interpolation import smoothstep
from avface.geometry.rotations import rotvec_to_rotmat
from avface.head.schemes import LIPS, LIPS_INNER_LOWER, LIPS_INNER_UPPER
from avface.tracking.face_track import StoredArray

CLOSED_GAP = (0.0007, 0.0018)
"""Metres between the tracked lips up to which they count as closed, and from which on as open."""
CLOSED_GAP_AUDIO = (0.001, 0.0025)
"""The same where sound predicts a closure at about that time: it may lie between two frames."""
VISIBILITY_RANGE = (0.4, 0.8)
"""Visibility of the lips from which on the picture has weight against the sound, and from which on full weight."""
CORRELATION_TIME = 0.12
"""Seconds over which errors of the tracker are correlated; frames within count as one."""
CORRELATED_COORDINATES = 14
"""Number of lip landmark coordinates with correlated errors that count as one."""
GAIN_SIGMA = 0.5
"""Prior standard deviation of the gain over people; its prior mean is 1."""

_MIDDLE = slice(2, 7)  # of the inner lips' landmarks; towards the corners lips are always closed


@dataclass(frozen=True, eq=False)
class LipObservation:
    """The lips of T frames in the picture."""

    landmarks: F32 | StoredArray
    """(T, 478, 2) tracked, pixels; nan where no face was found."""
    visibility: F32
    """(T,) of the lips, from 0 to 1."""
    rotation: F32
    """(T, 3) axis-angle, head to camera, as fitted."""
    translation: F32
    """(T, 3) metres."""
    camera: Camera

    def tracked(self, rows: slice) -> Tensor:
        """Landmarks (B, 478, 2) of some frames."""
        return torch.from_numpy(np.asarray(self.landmarks[rows], np.float32))

    def picture_weight(self, rows: slice) -> Tensor:
        """Weight (B,) of the picture against the sound, from 0 to 1."""
        found = self.tracked(rows)[:, LIPS].isfinite().all(2).all(1)
        return smoothstep(*VISIBILITY_RANGE, torch.from_numpy(self.visibility[rows])) * found

    def to_camera(self, rows: slice, points: Tensor) -> Tensor:
        """Points (B, L, 3) of the head of some frames, in camera axes."""
        rotation, translation = (torch.from_numpy(part[rows]) for part in (self.rotation, self.translation))
        return transform(points, rotvec_to_rotmat(rotation), translation)

    def closure(self, rows: slice, outline: Tensor, audio_closure: Tensor) -> Tensor:
        """Closure (B,) of the lips in the picture, from 0 to 1, by the widest gap of the middle of the mouth.

        outline (B, L, 3): the lips on the head, for their depth; audio_closure (B,): the closure that sound predicts at
        about that time.
        """
        tracked, depth = self.tracked(rows), self.to_camera(rows, outline)[..., 2].mean(1)
        between = tracked[:, LIPS_INNER_UPPER[_MIDDLE]] - tracked[:, LIPS_INNER_LOWER[_MIDDLE]]
        gap = torch.linalg.vector_norm(between, dim=-1).amax(1) * depth / self.camera.focal_length
        with_audio, without = 1 - smoothstep(*CLOSED_GAP_AUDIO, gap), 1 - smoothstep(*CLOSED_GAP, gap)
        return (audio_closure * with_audio + (1 - audio_closure) * without).nan_to_num(0)


class LipGain:
    """Maximum a posteriori gain, within [0, 1], of the offsets predicted from sound for one person.

    It is fitted to the displacement of the tracked lips from those of the head without offsets, with a normal prior of
    mean 1 and standard deviation `GAIN_SIGMA`. Both are centred over the clip, because tracker and head define the
    outline of the lips differently.
    """

    def __init__(self, basis: Tensor, outline: Tensor) -> None:
        """basis (K, N, 3) metres: components of the predicted offsets; outline (40, N) maps the N vertices to the
        landmarks `LIPS`."""
        self._outline = outline
        self._components = torch.einsum("ln,knc->klc", outline, basis)
        self._count = 0.0
        self._sums = torch.zeros(5, len(LIPS), 2, dtype=torch.float64)

    def add(self, observation: LipObservation, rows: slice, lips: Tensor, weights: Tensor) -> None:
        """Accumulate some frames: lips (B, N, 3) on the head without offsets, weights (B, K) of the components."""
        frame_weight = (observation.picture_weight(rows) * weights.any(1)).double()
        without = self._outline @ lips
        before, after = (
            observation.to_camera(rows, points)
            for points in (without, without + torch.einsum("tk,klc->tlc", weights, self._components))
        )
        metres_per_pixel = before[..., 2:] / observation.camera.focal_length
        projected = observation.camera.project(before)
        tracked = ((observation.tracked(rows)[:, LIPS] - projected) * metres_per_pixel).double().nan_to_num(0)
        predicted = ((observation.camera.project(after) - projected) * metres_per_pixel).double()
        self._count += float(frame_weight.sum())
        moments = [tracked, predicted, tracked * tracked, tracked * predicted, predicted * predicted]
        self._sums += torch.einsum("t,qtlc->qlc", frame_weight, torch.stack(moments))

    def gain(self, times: F64) -> float:
        """The gain; 1 without evidence. times (T,) of all frames, seconds."""
        if self._count == 0:
            return 1.0
        tracked, predicted, tracked_2, tracked_predicted, predicted_2 = self._sums / self._count
        variance = float((tracked_2 - tracked * tracked).mean())
        if variance <= 0:
            return 1.0
        step = float(np.median(np.diff(times))) if len(times) > 1 else CORRELATION_TIME
        independent = self._count * min(1.0, step / CORRELATION_TIME) / CORRELATED_COORDINATES
        precision = independent / variance
        covariance = precision * float((tracked_predicted - tracked * predicted).sum())
        predicted_variance = precision * float((predicted_2 - predicted * predicted).sum())
        prior = 1 / GAIN_SIGMA**2
        return min(max((covariance + prior) / (predicted_variance + prior), 0.0), 1.0)
