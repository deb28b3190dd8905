"""An occluder: an object with a place in front of the face, its colours and its drawing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from avface.arrays import F32, F64, Floats
from avface.synthetic.occlusion.occluders.arm import Arm
from avface.synthetic.occlusion.occluders.average_face import average_face
from avface.synthetic.occlusion.occluders.colour_transfer import transfer_colours
from avface.synthetic.occlusion.occluders.drawing import Layer, Light, Surface, View, draw, merged, srgb
from avface.synthetic.rendering.sensor import linear_light

_TRANSFER_SIZE = 80
"""Texels along a side of the hand's texture when its colours are transferred."""


@dataclass(frozen=True, eq=False)
class Occluder:
    """An object that hides part of a face. Its own origin is placed at `target` on the face.

    Axes: x to the viewer's right, y up, z towards the viewer; for worn kinds those of the head. Metres.
    """

    kind: str
    worn: bool
    """Whether it rotates with the head."""
    over_mouth: bool
    """Whether it was placed to hide the mouth."""
    target: F64
    """(3,) on the average face."""
    gap: float
    """Distance in front of the face in metres."""
    entry_direction: F64
    """(3,) unit vector from the target to where it enters from."""
    parts: tuple[Surface, ...]
    arm: Arm | None = None
    fine: bool = False
    """Whether parts are thinner than a pixel, so that it is drawn at twice the resolution."""
    size: float = 1.0
    """Factor of its size in the picture: above 1 for an object close to the lens."""

    @cached_property
    def _merged_surface(self) -> Surface:
        """All surfaces as one; an arm's vertices change from frame to frame."""
        return merged([*self.parts, *(self.arm.surfaces() if self.arm is not None else [])])

    def colour_matched(self, skin: Floats | None, brightness: float, rng: np.random.Generator) -> Occluder:
        """The occluder in the skin colours and brightness of a video; once per event, so that colours stay constant.

        skin: (M, 3) sRGB colours in [0, 1] of the face without shading; None keeps the hand's own.
        brightness: factor of linear light for everything but skin.
        """
        parts = tuple(replace(part, texture=part.texture * np.float32(brightness)) for part in self.parts)
        arm = self.arm
        if arm is not None:
            sleeve = replace(arm.sleeve, texture=arm.sleeve.texture * np.float32(brightness))
            texture = arm.texture if skin is None else _with_skin_colours(arm.texture, skin, rng)
            arm = replace(arm, texture=texture, sleeve=sleeve)
        return replace(self, parts=parts, arm=arm)

    def draw(
        self,
        view: View,
        light: Light,
        size: tuple[int, int],
        *,
        rotation: F64,
        shift: F64,
        head_rotation: F64,
        flexion: F64 | None = None,
        edge: float = 0.8,
        resolution: float = 1.0,
    ) -> Layer | None:
        """The occluder as a layer for frames of size (width, height); None if it is outside the picture.

        rotation (3, 3) about its origin and shift (3,) in metres are its own motion, head_rotation (3, 3) is the
        head's, flexion (5,) the fingers' in radians. edge and resolution as in
        `avface.synthetic.occlusion.occluders.drawing.draw`.
        """
        surface = self._merged_surface
        if self.arm is not None:
            arm = self.arm.vertices(np.zeros(5) if flexion is None else flexion)
            surface = surface.with_vertices(np.concatenate([*(part.vertices for part in self.parts), arm]))
        if self.size != 1:
            surface = surface.with_vertices(self.size * surface.vertices)
            view = replace(view, distance=self.size * view.distance)
        hidden_by = None
        if not self.worn:  # follows the position of the face, but not its rotation
            surface = surface.transformed(rotation, head_rotation @ self.target + shift + [0, 0, self.gap])
        else:
            surface = surface.transformed(rotation, self.target + shift).transformed(head_rotation)
            face = average_face()
            # slightly smaller than the average, so that it doesn't cut into what is worn on a face of another shape
            shrunk = face.vertices * [0.985, 1.0, 1.0] - [0, 0, 0.004]
            hidden_by = (shrunk @ head_rotation.T, face.faces)
        return draw(
            surface,
            view,
            light,
            size,
            hidden_by=hidden_by,
            resolution=max(resolution, 2.0) if self.fine else resolution,
            edge=0.4 if self.fine else edge,
        )


def sample_target(rng: np.random.Generator, over_mouth: bool, spread: float = 0.012) -> F64:
    """A random point (3,) on the face, or on the mouth with a standard deviation of `spread` metres."""
    face = average_face()
    if over_mouth:
        middle = face.mouth + rng.normal(0, [spread, spread, 0])
    else:
        middle = np.array([rng.uniform(-0.055, 0.055), rng.uniform(-0.07, 0.06), 0.0])
    return np.array([middle[0], middle[1], 0.0])


def sample_gap(rng: np.random.Generator) -> float:
    """A random distance in front of the face in metres; the nose takes up 3 cm of it."""
    return float(rng.uniform(0.035, 0.075))


def in_image_plane(direction: F64) -> F64:
    """The unit vector (3,) along a direction's part in the image plane."""
    flat = np.array([direction[0], direction[1], 0.0])
    return np.asarray(flat / max(np.linalg.norm(flat), 1e-6))


def _with_skin_colours(texture: F32, skin: Floats, rng: np.random.Generator) -> F32:
    """The hand's texture, linear, with the colours of skin (M, 3) sRGB by sliced optimal transport.

    The transfer is computed at low resolution and its change enlarged, so that creases stay sharp.
    """
    import cv2

    small = cv2.resize(texture, (_TRANSFER_SIZE, _TRANSFER_SIZE), interpolation=cv2.INTER_AREA)
    before = srgb(small)
    change = transfer_colours(before, skin, rng) - before
    change = cv2.resize(change, texture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    # creases and nails darken dark skin less in absolute terms than light skin
    own = srgb(texture)
    detail = own - cv2.GaussianBlur(own, (0, 0), 4)
    level = float(np.mean(skin)) / float(own.mean())
    return linear_light(np.clip(own - detail + change + detail * min(level, 1.0), 0, 1))
