"""What the picture says about lips that a network hears move: whether they are shut, and how far they do it."""

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

SHUT = (0.0007, 0.0018)
"""Metres between lips in the picture up to which they are shut, and from which on they are open."""
SHUT_HEARD = (0.001, 0.0025)
"""The same where they are heard to shut at about that time: a closure may lie between two frames."""
SHOWN = (0.4, 0.8)
"""Share of the lips in the picture from which on it has a say, and from which on it alone decides."""
FRAMES_ALIKE = 0.12
"""Seconds in which a tracker's errors are alike, so that frames count as one."""
POINTS_ALIKE = 14
"""Coordinates of lip landmarks that err together."""
OBEDIENCE = 0.5
"""Standard deviation from person to person of how far lips do what the network hears, about 1."""

_MIDDLE = slice(2, 7)  # of the inner lips' landmarks; towards the corners lips are always shut


@dataclass(frozen=True, eq=False)
class LipView:
    """The lips of T frames in the picture."""

    landmarks: F32 | StoredArray
    """(T, 478, 2) tracked, pixels; nan where no face was found."""
    shown: F32
    """(T,) 0 to 1: how much of the lips could be seen."""
    rotation: F32
    """(T, 3) axis-angle, head to camera, as it was fitted."""
    translation: F32
    """(T, 3) metres."""
    camera: Camera

    def tracked(self, rows: slice) -> Tensor:
        """Landmarks (B, 478, 2) of some frames."""
        return torch.from_numpy(np.asarray(self.landmarks[rows], np.float32))

    def say(self, rows: slice) -> Tensor:
        """How far the picture decides, (B,) from 0 to 1."""
        found = self.tracked(rows)[:, LIPS].isfinite().all(2).all(1)
        return smoothstep(*SHOWN, torch.from_numpy(self.shown[rows])) * found

    def in_camera(self, rows: slice, points: Tensor) -> Tensor:
        """Points (B, L, 3) of the head of some frames, in the camera."""
        rotation, translation = (torch.from_numpy(part[rows]) for part in (self.rotation, self.translation))
        return transform(points, rotvec_to_rotmat(rotation), translation)

    def shut(self, rows: slice, outline: Tensor, heard: Tensor) -> tuple[Tensor, Tensor]:
        """How far lips are seen shut in some frames, and how far the picture decides, each (B,) from 0 to 1.

        outline (B, L, 3): the lips on the head; heard (B,) how far they are heard to be shut about then. The widest gap
        of the middle of the mouth counts.
        """
        tracked, depth = self.tracked(rows), self.in_camera(rows, outline)[..., 2].mean(1)
        between = tracked[:, LIPS_INNER_UPPER[_MIDDLE]] - tracked[:, LIPS_INNER_LOWER[_MIDDLE]]
        gap = torch.linalg.vector_norm(between, dim=-1).amax(1) * depth / self.camera.focal_length
        shut = heard * (1 - smoothstep(*SHUT_HEARD, gap)) + (1 - heard) * (1 - smoothstep(*SHUT, gap))
        return shut.nan_to_num(0), self.say(rows)


class LipGain:
    """How far a person's lips do what is heard: the factor from 0 to 1 with which offsets explain best where the
    tracked lips are off the head's without offsets. 1 is expected, by `OBEDIENCE`.

    Both are taken about their means over the clip: that tracker and head differ in what they call lips says nothing.
    """

    def __init__(self, basis: Tensor, outline: Tensor) -> None:
        """basis (K, N, 3) metres: the ways in which the lips' N vertices are heard to move; outline (40, N) takes them
        to the landmarks `LIPS`."""
        self._outline = outline
        self._ways = torch.einsum("ln,knc->klc", outline, basis)
        self._count = 0.0
        self._sums = torch.zeros(5, len(LIPS), 2, dtype=torch.float64)

    def add(self, view: LipView, rows: slice, lips: Tensor, weights: Tensor) -> None:
        """Look at some frames: lips (B, N, 3) on the head without offsets, weights (B, K) of the offsets."""
        share = (view.say(rows) * weights.any(1)).double()
        still = self._outline @ lips
        before, after = (
            view.in_camera(rows, points)
            for points in (still, still + torch.einsum("tk,klc->tlc", weights, self._ways))
        )
        size = before[..., 2:] / view.camera.focal_length  # metres a pixel
        seen = view.camera.project(before)
        off = ((view.tracked(rows)[:, LIPS] - seen) * size).double().nan_to_num(0)
        said = ((view.camera.project(after) - seen) * size).double()
        self._count += float(share.sum())
        self._sums += torch.einsum(
            "t,qtlc->qlc", share, torch.stack([off, said, off * off, off * said, said * said])
        )

    def factor(self, times: F64) -> float:
        """The factor; times (T,) of all frames, seconds."""
        if self._count == 0:
            return 1.0
        off, said, off_off, off_said, said_said = self._sums / self._count
        noise = float((off_off - off * off).mean())
        if noise <= 0:
            return 1.0
        step = float(np.median(np.diff(times))) if len(times) > 1 else FRAMES_ALIKE
        evidence = self._count * min(1.0, step / FRAMES_ALIKE) / POINTS_ALIKE / noise
        both = evidence * float((off_said - off * said).sum())
        alone = evidence * float((said_said - said * said).sum())
        expected = 1 / OBEDIENCE**2
        return min(max((both + expected) / (alone + expected), 0.0), 1.0)
