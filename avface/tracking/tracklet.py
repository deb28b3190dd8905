"""One face without a gap: its motion, appearance, and the confidence in its landmarks."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np

from avface.arrays import F32
from avface.tracking.facemesh import Face, Region
from avface.tracking.reidentification import STABLE_LANDMARKS, AppearanceDescriptor, merge, similarity

MAX_GAP_SECONDS = 0.5
"""Longest gap in a tracklet; after it a new one begins."""
DESCRIPTOR_MEMORY = 60
"""Largest weight of a tracklet's descriptor in updates, in frames, so that it adapts to slow changes."""
OUTLIER_SIMILARITY = 0.03
"""Similarity to its tracklet's descriptor below which a face is an outlier: it does not update the descriptor, and at a
cut it is another person's."""
_JUMP_ABOVE_RECENT = 4.0
"""Least multiple of the recent jumps that a jump has."""


@dataclass
class Tracklet:
    """One face without a gap of more than `MAX_GAP_SECONDS`, and what is known of it so far."""

    number: int
    """In the order of the first sightings, from 0."""
    segment: int
    """Number of its shot."""
    start: int
    """Frame of the first sighting."""
    face: Face
    """The last sighting."""
    first_centre: tuple[float, float]
    """Centre of the face in the first sighting, in pixels."""
    first_size: float
    """Size of the face there, in pixels."""
    descriptor: AppearanceDescriptor
    region: Region | None = None
    """Its region in the next frame; None while lost."""
    before: Face | None = None
    """The sighting one frame before the last, if there was one."""
    end: int = -1
    """Frame of the last sighting."""
    last_time: float = 0.0
    """Its time in seconds."""
    velocity: F32 = field(default_factory=lambda: np.zeros(2, np.float32))
    """Mean motion (2,) of the centre in pixels a frame, the last ones most."""
    recent_jump: float = 0.01
    """Exponential moving average of `jump`."""
    frames: int = 0
    """Number of sightings."""
    next_crop: int = 1
    """Number of sightings at which the next crop is stored."""
    prominence: float = 0.0
    """Sum over the sightings, by which people are ordered; see `_prominence`."""

    def jump(self, face: Face, camera: F32 | None = None) -> float:
        """Mean motion of the stable points since the last sighting, in face sizes.

        camera: (2, 3) motion of the scene in the image meanwhile, which is taken out (`shots.scene_motion`).
        """
        last = self.face.landmarks[STABLE_LANDMARKS]
        if camera is not None:
            last = np.asarray(last[:, :2] @ camera[:, :2].T + camera[:, 2], np.float32)
        return _motion(face.landmarks[STABLE_LANDMARKS, : last.shape[1]] - last) / self.face.size

    def jump_from_course(self, face: Face) -> float:
        """The same from where the stable points would be at the velocity that they had before, if it is known."""
        if self.before is None:
            return math.inf
        now, last, first = (one.landmarks[STABLE_LANDMARKS] for one in (face, self.face, self.before))
        return _motion(now - 2 * last + first) / self.face.size

    def jumps(self, face: Face, least: float, camera: F32 | None = None) -> bool:
        """Whether the face moves by more than `least` of its sizes, and by much more than recently; see `jump`."""
        return self.jump(face, camera) > max(least, _JUMP_ABOVE_RECENT * self.recent_jump)

    def update(self, descriptor: AppearanceDescriptor) -> None:
        """Update the mean descriptor by that of another frame, unless it is an outlier, as of an occluded face."""
        if self.descriptor.count < 5 or similarity(self.descriptor, descriptor) >= OUTLIER_SIMILARITY:
            self.descriptor = merge(self.descriptor, descriptor, DESCRIPTOR_MEMORY)

    def see(self, face: Face, frame: int, time: float, image_size: tuple[int, int]) -> float:
        """Take in the face of a frame (its number, time in seconds); returns the confidence in its landmarks."""
        before = self.face if self.frames and self.end == frame - 1 else None
        confidence = frame_confidence(face, image_size, before, self.before if before else None)
        if before is not None:
            moved = np.subtract(face.centre, before.centre).astype(np.float32)
            self.velocity = np.asarray(0.5 * self.velocity + 0.5 * moved, dtype=np.float32)
            self.recent_jump += 0.1 * (self.jump(face) - self.recent_jump)
        self.before, self.face = before, face
        self.region = face.next_region
        self.end, self.last_time = frame, time
        self.frames += 1
        self.prominence += _prominence(face, image_size)
        return confidence


def frame_confidence(
    face: Face, image_size: tuple[int, int], before: Face | None = None, before_that: Face | None = None
) -> float:
    """Confidence in one frame's landmarks, in (0, 1].

    A product of four factors, each 1 in a good frame:

    * presence: the network's score as a logit, 1 from 0.999 upwards (it was above that in every frame of six clips and
      on partly occluded faces, and 0.64 to 0.99 on faces fully occluded by a flat patch);
    * size: face size over 30 pixels, below which the points' error grows from 0.5 % to 1 % at 15 and 3 % at 7;
    * inside: the share of the 478 points within the image;
    * motion: 1 / (1 + (a / 0.15)^2) for the mean acceleration a of the stable points, in face sizes a frame squared. It
      is below 0.08 for speech and nods even in coarse clips, but not where the face is lost and found elsewhere.

    Partial occlusion does not lower it, since the landmark network does not notice it.
    `before` and `before_that` are the same face one and two frames earlier, where it was seen then.
    """
    presence = min(max(face.presence, 1e-6), 1 - 1e-6)
    value = min(math.log(presence / (1 - presence)) / 6.9, 1.0) * min(face.size / 30, 1.0)
    x0, y0, x1, y1 = face.box
    if min(x0, y0) < -0.5 or x1 > image_size[0] - 0.5 or y1 > image_size[1] - 0.5:
        xy = face.landmarks[:, :2]
        value *= float(((xy > -0.5) & (xy < np.array(image_size, np.float32) - 0.5)).all(axis=1).mean())
    if before is not None and before_that is not None:
        now, last, first = (one.landmarks[STABLE_LANDMARKS] for one in (face, before, before_that))
        value /= 1 + (_motion(now - 2 * last + first) / face.size / 0.15) ** 2
    return min(max(value, 0.01), 1.0)


def _motion(steps: F32) -> float:
    """Mean length of steps (N, 2 or more) in the image."""
    return float(np.sqrt(steps[:, 0] ** 2 + steps[:, 1] ** 2).mean())


def _prominence(face: Face, image_size: tuple[int, int]) -> float:
    """One frame's share in a person's prominence: area in the image, halved in its corners."""
    width, height = image_size
    x, y = face.centre
    off = math.hypot((x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5) / math.hypot(0.5, 0.5)
    return face.size**2 / (width * height) * (1 - 0.5 * min(off, 1.0))
