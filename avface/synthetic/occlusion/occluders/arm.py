"""A hand with its forearm and sleeve in a random pose: empty, or around an object that it holds."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from avface.arrays import F32, F64
from avface.synthetic.occlusion.occluders.drawing import Surface
from avface.synthetic.occlusion.occluders.hand_model import (
    HAND_POSES,
    HandModel,
    HandPose,
    load_hand,
    perturbed,
)
from avface.synthetic.occlusion.occluders.shapes import cloth, tube
from avface.synthetic.rendering.sensor import linear_light

_SLEEVE_END = 0.65
"""Distance in metres from the wrist to the end of the sleeve, outside the picture."""


@dataclass(frozen=True, eq=False)
class Arm:
    """A posed hand with its sleeve, in the hand's axes until `rotation` and `shift` place it in the occluder's."""

    model: HandModel
    shape: F64
    pose: HandPose
    texture: F32
    sleeve: Surface
    rotation: F64
    shift: F64
    gloss: float

    def surfaces(self) -> list[Surface]:
        """Hand and sleeve, at rest: their vertices are those of `vertices`."""
        hand = Surface.of(
            np.asarray(self.model.template, np.float64),
            np.asarray(self.model.faces, np.int64),
            self.model.uv,
            self.texture,
            uv_faces=np.asarray(self.model.uv_faces, np.int64),
            gloss=self.gloss,
        )
        return [hand, self.sleeve]

    def vertices(self, flexion: F64) -> F64:
        """Vertices of hand and sleeve; flexion (5,) in radians is added to that of the fingers."""
        share = np.array([0.6, 1.0, 0.6])
        pose = replace(self.pose, flexion=self.pose.flexion + flexion[:, None] * share).limited()
        hand = self.model.vertices(self.shape, self.model.rotations(pose))
        return np.concatenate([hand, self.sleeve.vertices]) @ self.rotation.T + self.shift


def sample_arm(
    rng: np.random.Generator, pose: str, *, left_hand: bool, rotation: npt.ArrayLike, anchor: npt.ArrayLike
) -> Arm:
    """A random arm whose hand is rotated by (3, 3) so that its point `anchor`, in a right hand's axes, is the origin.

    pose: name of the pose in `HAND_POSES`, which is perturbed.
    """
    model = load_hand()
    if left_hand:
        model = model.mirrored()
    shape = np.clip(rng.normal(0, 0.8, model.num_shape), -2, 2)
    at = np.asarray(anchor, np.float64) * ([-1, 1, 1] if left_hand else [1, 1, 1])
    turn = np.asarray(rotation, np.float64)
    return Arm(
        model,
        shape,
        perturbed(HAND_POSES[pose], rng),
        linear_light(model.texture / np.float32(255)),
        _sample_sleeve(rng, model, shape),
        turn,
        -turn @ at,
        float(rng.uniform(0.15, 0.4)),
    )


def sample_holding_arm(
    rng: np.random.Generator, pose: str, *, radius: float, below: float, dorsal: bool = True
) -> tuple[Arm, float]:
    """A random arm that holds a rod along the y axis, thumb up, and the side its fingers point to (1: viewer's right).

    radius: of the rod in metres. below: distance of the grip below the origin in metres.
    dorsal: whether the hand is in front of the rod and shows its back, or behind it and shows its palm.
    """
    side = 1.0 if rng.random() < 0.5 else -1.0
    left_hand = (side < 0) == dorsal
    thumb = np.array([0.0, -1.0 if left_hand else 1.0, 0.0])
    fingers = np.array([side, 0.0, 0.0])
    axes = np.stack([thumb, fingers, np.cross(thumb, fingers)], 1)
    swing = rng.uniform(0, 60) if dorsal else rng.normal(0, 8)
    turn = Rotation.from_euler("z", side * rng.uniform(15, 50), degrees=True)  # the forearm points down
    turn = turn * Rotation.from_euler("y", -side * swing, degrees=True)
    arm = sample_arm(
        rng,
        pose,
        left_hand=left_hand,
        rotation=turn.as_matrix() @ axes,
        anchor=(0.005, 0.080, radius + 0.020),
    )
    return replace(arm, shift=arm.shift - np.array([0, below, 0])), side


def upright_rotation(degrees: float, dorsal: bool, yaw: float = 0.0, pitch: float = 0.0) -> F64:
    """Rotation (3, 3) of a hand that shows its back or palm, fingers up, then rolled clockwise by degrees."""
    facing = Rotation.from_euler("y", 180 if dorsal else 0, degrees=True)
    tilt = Rotation.from_euler("xyz", [pitch, yaw, -degrees], degrees=True)
    return np.asarray((tilt * facing).as_matrix())


def _sample_sleeve(rng: np.random.Generator, model: HandModel, shape: F64) -> Surface:
    """A sleeve around the forearm that starts between wrist and elbow and ends outside the picture."""
    vertices = model.template + np.tensordot(shape, model.shape_basis, 1)
    start = rng.uniform(0.02, 0.17) if rng.random() < 0.75 else 0.20
    low = vertices[:, 1].min()
    elbow = vertices[vertices[:, 1] < low + 0.02].mean(0)
    along = elbow / np.linalg.norm(elbow)
    on_axis = vertices @ along
    beside = np.linalg.norm(vertices - on_axis[:, None] * along, axis=1)
    lengths = np.concatenate([[start - 0.001, start], np.linspace(start + 0.004, _SLEEVE_END, 40)])
    slack = rng.uniform(0.003, 0.014)
    reach = np.array([beside[np.abs(on_axis - min(x, 0.19)) < 0.02].max() for x in lengths])
    radii = np.maximum.accumulate(reach) + slack + 0.02 * np.clip((lengths - 0.15) / 0.2, 0, 1)
    radii[0] -= 0.004  # the hem is turned in
    radii += 0.0022 * np.sin(lengths * rng.uniform(60, 160) + rng.uniform(0, 6)) * (lengths > start + 0.01)
    mesh, faces, uv = tube(lengths[:, None] * along, radii, 24)
    folds = np.repeat(np.arange(len(lengths)) > 2, 25) * 0.0015
    angle = np.tile(np.linspace(0, 2 * np.pi, 25), len(lengths))
    axis = np.repeat(lengths, 25)[:, None] * along
    out = (mesh - axis) / np.maximum(np.linalg.norm(mesh - axis, axis=1, keepdims=True), 1e-6)
    ripple = np.sin(3 * angle + 90 * np.repeat(lengths, 25))
    mesh = mesh + out * (folds * ripple)[:, None]
    return Surface.of(mesh, faces, uv, cloth(rng, 128), gloss=0.02)
