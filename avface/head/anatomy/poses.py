"""Poses in which the anatomy of a head is measured: expression weights by name, and directions of gaze."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from avface.arrays import F64, Floats
from avface.head.model import HeadModel

SIDES = ("Left", "Right")

PAIRED = (
    "eyeBlink",
    "eyeLookDown",
    "eyeLookIn",
    "eyeLookOut",
    "eyeLookUp",
    "eyeSquint",
    "eyeWide",
    "browDown",
    "browOuterUp",
    "cheekSquint",
    "mouthDimple",
    "mouthFrown",
    "mouthLowerDown",
    "mouthPress",
    "mouthSmile",
    "mouthStretch",
    "mouthUpperUp",
    "noseSneer",
)
"""ARKit's units that there are for the left and the right half of the face."""
SINGLE = (
    "browInnerUp",
    "cheekPuff",
    "jawForward",
    "jawLeft",
    "jawRight",
    "jawOpen",
    "mouthClose",
    "mouthFunnel",
    "mouthLeft",
    "mouthRight",
    "mouthPucker",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
)
"""ARKit's units of the whole face; tongueOut, the 52nd, is left out."""
GAZES = {
    "straight on": (0.0, 0.0),
    "up": (-1.0, 0.0),
    "down": (1.0, 0.0),
    "left": (0.0, 1.0),
    "right": (0.0, -1.0),
    "up left": (-0.7, 0.7),
    "down right": (0.7, -0.7),
}
"""Directions of gaze: shares of the largest angle downwards and to the subject's left."""


@dataclass(frozen=True, eq=False)
class Pose:
    """An expression and a gaze.

    label: its name in tables; weights: of units by name, without Left and Right for both sides; gaze: see `GAZES`.
    """

    label: str
    weights: Mapping[str, float] = field(default_factory=dict)
    gaze: tuple[float, float] = (0.0, 0.0)

    def units(self) -> dict[str, float]:
        """Weights by the units' own names, those of the gaze not included."""
        return {
            f"{name}{side}": weight
            for name, weight in self.weights.items()
            for side in (SIDES if name in PAIRED else ("",))
        }


NEUTRAL = Pose("neutral")


def together(*weights: tuple[str, float] | str) -> Pose:
    """The pose of several units at once, each at weight 1 or the one given."""
    pairs = dict((each, 1.0) if isinstance(each, str) else each for each in weights)
    return Pose(
        " + ".join(name if weight == 1 else f"{name} {weight:g}" for name, weight in pairs.items()), pairs
    )


def possible(head: HeadModel, poses: Iterable[Pose]) -> list[Pose]:
    """The poses for which a head has all units."""
    return [pose for pose in poses if pose.units().keys() <= set(head.expression_names)]


def pose_vertices(head: HeadModel, shape: Floats, poses: Sequence[Pose]) -> F64:
    """Vertices (P, V, 3) in metres of one person, shape (S,), in poses.

    The eyes turn by their joints, and the eyeLook units, as far as the head has them, follow.
    """
    names = list(head.expression_names)
    expression = torch.zeros(len(poses), head.num_expression)
    joints = torch.zeros(len(poses), head.num_joints, 3)
    eyes = [k for k, name in enumerate(head.joint_names) if name in ("left_eye", "right_eye")]
    up, down, inward, outward = head.gaze_range
    for row, pose in enumerate(poses):
        for name, weight in pose.units().items():
            expression[row, names.index(name)] = weight
        turn = gaze_turn(head, pose)
        joints[row, eyes] = torch.as_tensor(turn, dtype=torch.float32)
        if not turn.any():
            continue
        for side, to_left in zip(SIDES, (1, -1), strict=True):
            for unit, weight in (
                ("Up", -turn[0] / up),
                ("Down", turn[0] / down),
                ("Out", to_left * turn[1] / outward),
                ("In", -to_left * turn[1] / inward),
            ):
                if weight > 0 and f"eyeLook{unit}{side}" in names:
                    expression[row, names.index(f"eyeLook{unit}{side}")] = weight
    with torch.inference_mode():
        person = torch.as_tensor(np.asarray(shape, np.float32))[None]
        return head(person, expression, joints).double().numpy()


def gaze_turn(head: HeadModel, pose: Pose) -> F64:
    """Rotation (3,) of both eyes in a pose, as axis-angle in radians."""
    up, down, inward, outward = head.gaze_range
    pitch = pose.gaze[0] * (down if pose.gaze[0] > 0 else up)
    yaw = pose.gaze[1] * min(inward, outward)  # one eye turns inwards while the other one turns outwards
    return np.array([pitch, yaw, 0.0])


def joint_centres(head: HeadModel, shape: Floats) -> F64:
    """Centres (J, 3) in metres of the joints of a neutral face, shape (S,)."""
    with torch.inference_mode():
        person = torch.as_tensor(np.asarray(shape, np.float32), device=head.template.device)[None]
        return head.joint_positions(person)[0].double().cpu().numpy()
