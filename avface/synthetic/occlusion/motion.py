"""Motion of an occluder during its event: a ramp in, a bounded random walk, a ramp out.

Source: AVFace (CVPR 2023), sec. 3.4. The paper leaves the motion of hands open; here it is an Ornstein-Uhlenbeck
process, smoothed over a few frames.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter1d

from avface.arrays import F64
from avface.synthetic.occlusion.face_pose import FacePoses
from avface.synthetic.occlusion.occluders.occluder import Occluder
from avface.synthetic.occlusion.plan import OcclusionConfig, OcclusionEvent
from avface.synthetic.performance.random_curves import minimum_jerk

_FACE_HALF_SIZE = np.array([0.07, 0.08])
"""Half the width and height of the average face's box in metres."""
_RAMP_SPEED = 0.1
"""Maximum speed of the ramps in metres a frame at 25 frames a second, unless the event is too short for it."""
_WORN_SHARE = 0.12
"""Size of the random motion of worn kinds, as a share of that of the others."""


def random_walk(
    rng: np.random.Generator, frames: int, step: float, dimensions: int, frame_rate: float = 25.0
) -> F64:
    """A smooth walk (frames, dimensions) about 0: Ornstein-Uhlenbeck, averaged over a fifth of a second.

    Before that its steps at 25 frames a second are N(0, step). Its time constant is about a second.
    """
    ratio = 25.0 / frame_rate
    noise = rng.normal(0, step * np.sqrt(ratio), (frames + 1, dimensions))
    decay = 0.96**ratio
    walk = np.empty_like(noise)
    walk[0] = noise[0]
    for t in range(1, len(noise)):
        walk[t] = decay * walk[t - 1] + noise[t]
    return np.asarray(gaussian_filter1d(walk, 2.5 / ratio, axis=0, mode="nearest")[:frames])


@dataclass(frozen=True, eq=False)
class OccluderMotion:
    """Motion of one occluder over the T frames of its event.

    Shapes: rotations (T, 3) axis-angle in radians, flexions (T, 5) of the fingers in radians, shifts (T, 3) in metres.
    """

    event: OcclusionEvent
    occluder: Occluder
    rotations: F64
    flexions: F64
    shifts: F64
    half_extent: F64
    """(2,) metres: half the size of the box that it stays within between the ramps."""
    ramp_distance: float
    """Metres from its place to outside the picture."""
    ramp_frames: int
    """Length of each ramp."""

    @classmethod
    def sample(
        cls,
        rng: np.random.Generator,
        config: OcclusionConfig,
        event: OcclusionEvent,
        occluder: Occluder,
        poses: FacePoses,
        size: tuple[int, int],
    ) -> OccluderMotion:
        """Random motion in front of a face with given poses, in frames of size (width, height)."""
        count = event.stop - event.start
        amount = _WORN_SHARE if occluder.worn else 1.0
        rate = config.frame_rate
        face = 2 * float(_FACE_HALF_SIZE.mean())
        rotations = random_walk(rng, count, amount * np.deg2rad(config.rotation_step), 3, rate)
        flexions = 0.5 * random_walk(rng, count, np.deg2rad(config.rotation_step), 5, rate)
        shifts = random_walk(rng, count, amount * config.translation_step * face, 3, rate) * [1, 1, 0.3]
        speed = rng.uniform(0, config.drift) * face * amount * 25 / rate
        angle = rng.uniform(0, 2 * np.pi)
        shifts[:, :2] += np.outer(np.arange(count) - count / 2, [np.cos(angle), np.sin(angle)]) * speed
        limit = rng.uniform(0.012, 0.03) if occluder.over_mouth else 0.06
        entry = occluder.entry_direction[:2] * [1, -1]
        distance = max(size) / poses.scale[event.start]
        for k in (0, 1):
            if abs(entry[k]) > 1e-3:
                border = size[k] if entry[k] > 0 else 0
                along = abs((border - poses.centre[event.start, k]) / entry[k])
                distance = min(distance, along / poses.scale[event.start])
        distance = float(np.clip(distance, 0.1, 0.6)) + 0.2 * min(occluder.size, 2.0)
        # a minimum-jerk trajectory peaks at 1.875 times its mean speed
        needed = 1.875 * distance / _RAMP_SPEED * rate / 25
        return cls(
            event,
            occluder,
            rotations,
            flexions,
            limit * np.tanh(shifts / limit),
            config.reach * _FACE_HALF_SIZE,
            distance,
            int(np.clip(np.ceil(needed), 4, max(4, count // 3))) if event.ramp is None else event.ramp,
        )

    def at(self, index: int, head_rotation: F64) -> tuple[F64, F64, F64]:
        """Rotation (3,) as axis-angle, shift (3,) and flexions (5,) in frame `index`; head_rotation (3, 3)."""
        step = index - self.event.start
        shift = self.shifts[step].copy()
        if not self.occluder.worn:
            place = head_rotation @ self.occluder.target + shift
            shift[:2] += np.clip(place[:2], -self.half_extent, self.half_extent) - place[:2]
        away = 0.0
        if self.event.enters:
            away += 1 - float(minimum_jerk(np.array((step + 1) / self.ramp_frames)))
        if self.event.leaves:
            remaining = self.event.stop - index
            away += 1 - float(minimum_jerk(np.array(remaining / self.ramp_frames)))
        shift = shift + min(away, 1.0) * self.ramp_distance * self.occluder.entry_direction
        return self.rotations[step], shift, self.flexions[step]
