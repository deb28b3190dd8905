"""Pose of the face in each frame, from landmarks, for the placement of occluders."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from avface.arrays import F64, Bool, Floats
from avface.errors import AvfaceError
from avface.head.schemes import FACE_OVAL, LIPS_OUTER
from avface.synthetic.occlusion.occluders.average_face import average_face

JUMP = 0.5
"""A face that moves or grows by this share of its size between two frames starts a new shot."""


@dataclass(frozen=True, eq=False)
class FacePoses:
    """Pose of a face in T frames under weak perspective.

    Shapes: centre (T, 2), scale (T,), turn (T, 3); seen (T,) whether there are landmarks.
    Units:  centre in pixels of the origin of `FaceShape`, scale in pixels per metre, turn as axis-angle in radians
            from facing the camera. Poses of frames without a face are interpolated.
    """

    centre: F64
    scale: F64
    turn: F64
    seen: Bool

    def __len__(self) -> int:
        return len(self.scale)

    def smoothed(self, sigma: float) -> FacePoses:
        """Poses averaged over time with a Gaussian of `sigma` frames, but not across shot changes."""
        from scipy.ndimage import gaussian_filter1d

        values = np.concatenate([self.centre, np.log(self.scale)[:, None], self.turn], 1)
        size = 0.18 * np.minimum(self.scale[1:], self.scale[:-1])
        jumps = np.linalg.norm(np.diff(self.centre, axis=0), axis=1) > JUMP * size
        jumps |= np.abs(np.diff(np.log(self.scale))) > JUMP
        out = np.empty_like(values)
        for rows in np.split(np.arange(len(values)), np.flatnonzero(jumps) + 1):
            out[rows] = gaussian_filter1d(values[rows], sigma, axis=0, mode="nearest")
        return FacePoses(out[:, :2], np.exp(out[:, 2]), out[:, 3:], self.seen)


def face_poses(landmarks: Iterable[Floats]) -> FacePoses:
    """Fit the average face to landmarks (478, 2) in pixels, frame by frame; nan in frames without a face.

    Raises:
        AvfaceError: if there is no face in any frame.
        ValueError: if landmarks don't have that shape.

    Source: scaled orthography by least squares, as in the first step of POSIT (DeMenthon & Davis 1995).
    """
    from scipy.spatial.transform import Rotation

    shape = average_face()
    still = np.setdiff1d(
        np.arange(478), np.concatenate([LIPS_OUTER, FACE_OVAL[8:29]])
    )  # without mouth and jaw
    still = still[(still < 468) & (shape.landmarks[still, 1] > shape.mouth[1] + 0.012)]
    points = np.concatenate([shape.landmarks[still], np.ones((len(still), 1))], 1)
    solve = np.linalg.pinv(points)
    rows: list[F64] = []
    for frame in landmarks:
        pixels = np.asarray(frame, np.float64)
        if pixels.shape != (478, 2):
            raise ValueError(f"landmarks of a frame are {pixels.shape}, but must be (478, 2)")
        if not np.isfinite(pixels[still]).all():
            rows.append(np.full(6, np.nan))
            continue
        fit = (solve @ (pixels[still] * [1, -1])).T  # (2, 4); y axis of the pixels flipped
        u, scales, vt = np.linalg.svd(fit[:, :3], full_matrices=False)
        axes: Any = u @ vt
        turn = Rotation.from_matrix(np.stack([*axes, np.cross(*axes)])).as_rotvec()
        rows.append(np.array([fit[0, 3], -fit[1, 3], max(scales.mean(), 1e-3), *turn]))
    values = np.array(rows).reshape(-1, 6)
    seen = np.isfinite(values[:, 0])
    if not seen.any():
        raise AvfaceError("there is no face in any frame, so nothing can be put before it")
    where = np.flatnonzero(seen)
    every = np.arange(len(values))
    filled = np.stack([np.interp(every, where, values[where, k]) for k in range(6)], 1)
    return FacePoses(filled[:, :2], filled[:, 2], filled[:, 3:], seen)
