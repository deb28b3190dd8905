"""The faces in the pictures of the open head, as meshes.

python docs/head_faces.py OUT.npz [HEAD]

writes them for docs/render_head.py, which Blender's Python runs. HEAD is a name or a file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field

import numpy as np
import torch

from avface.head import load_head
from avface.head.appearance import PART_COLOURS, SKIN, vertex_colours
from avface.head.model import HeadModel


@dataclass(frozen=True)
class Face:
    """A tile of a sheet: weights of units, without Left and Right for both sides; the seed of a random person, None for
    the mean face; the yaw in radians from which it is seen; what of it is shown, of `VIEWS`."""

    weights: dict[str, float] = field(default_factory=dict)
    person: int | None = None
    yaw: float = 0.0
    view: str = "face"


VIEWS = {"head": (-0.018, 0.145), "face": (-0.033, 0.1), "eyes": (-0.003, 0.062)}
"""Height of the picture's middle and half its height, in metres, in the plane of the foremost point."""
DISTANCE = 0.9
"""Metres from the camera to that plane."""

UNITS = (
    "jawOpen",
    "mouthSmile",
    "mouthFrown",
    "mouthPucker",
    "mouthFunnel",
    "mouthPress",
    "mouthUpperUp",
    "mouthLowerDown",
    "cheekPuff",
    "browInnerUp",
    "browDown",
    "noseSneer",
)
SHEETS = {
    "head_units": [Face(view="head"), Face(yaw=0.7, view="head"), *(Face({unit: 1.0}) for unit in UNITS)],
    "head_faces": [
        Face({"mouthSmile": 0.9, "jawOpen": 0.45, "cheekSquint": 0.8, "eyeSquint": 0.4}),
        Face({"mouthSmile": 0.8, "mouthUpperUp": 0.6, "mouthLowerDown": 0.7}),
        Face({"mouthPucker": 0.8, "jawOpen": 0.3}),
        Face({"mouthPress": 0.6, "mouthRollUpper": 0.5, "mouthRollLower": 0.6}),
        Face({"noseSneer": 1.0, "mouthUpperUp": 0.7, "browDown": 0.8}),
        Face({"browInnerUp": 1.0, "browOuterUp": 0.9, "eyeWide": 0.8, "jawOpen": 0.6}),
        *(Face({"eyeBlink": weight}, view="eyes") for weight in (0.0, 0.5, 1.0)),
        *(Face(person=seed, yaw=0.35, view="head") for seed in (1, 2, 3)),
    ],
}
"""By name of the picture. head_units: the neutral face twice, then twelve units at 1, in two rows of seven; head_faces:
laugh, grin with shut teeth, pucker, lips shut as in m, disgust, surprise; blink at 0, 0.5 and 1, three people."""
COLUMNS = {"head_units": 7, "head_faces": 6}


def face_vertices(head: HeadModel, face: Face) -> np.ndarray:
    """Vertices (V, 3) in metres, turned by the face's yaw about the axis of the neck."""
    expression = torch.zeros(1, head.num_expression)
    for number, name in enumerate(head.expression_names):
        both = name.removesuffix("Left").removesuffix("Right")
        expression[0, number] = face.weights.get(name, face.weights.get(both, 0.0))
    shape = torch.zeros(1, head.num_shape)
    if face.person is not None:
        shape = torch.as_tensor(
            np.random.default_rng(face.person).standard_normal((1, head.num_shape))
        ).float()
    with torch.inference_mode():
        points = head(shape, expression, torch.zeros(1, head.num_joints, 3))[0].double().numpy()
    cos, sin = np.cos(face.yaw), np.sin(face.yaw)
    return points @ np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]]).T


def face_colours(head: HeadModel) -> np.ndarray:
    """Colours (F, 3, 3), sRGB 0 to 1, of the corners of the faces, with sharp edges between parts."""
    colours = vertex_colours(head)[head.faces.numpy()].astype(np.float64)
    for number, name in enumerate(head.part_names):
        if name not in ("skin", "mouth_cavity"):
            colours[head.face_parts == number] = PART_COLOURS.get(
                name, PART_COLOURS.get(name.split("_")[-1], SKIN)
            )
    return colours


def main(out: str, name: str = "open") -> None:
    """Write the meshes of all sheets."""
    head = load_head(name)
    faces = [face for sheet in SHEETS.values() for face in sheet]
    np.savez_compressed(
        out,
        vertices=np.stack([face_vertices(head, face) for face in faces]).astype(np.float32),
        views=np.array([VIEWS[face.view] for face in faces]),
        sheets=np.array([f"{name}:{len(sheet)}:{COLUMNS[name]}" for name, sheet in SHEETS.items()]),
        faces=head.faces.numpy(),
        parts=np.array(head.part_names)[head.face_parts],
        colours=face_colours(head).astype(np.float32),
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
