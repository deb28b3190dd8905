"""The average face, on which occluders are placed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from avface.arrays import F64, Int
from avface.head import load_head
from avface.head.schemes import LIPS_OUTER


@dataclass(frozen=True, eq=False)
class FaceShape:
    """The average face, the reference of poses and places; its origin is the centroid of the landmarks.

    Shapes: landmarks (478, 3), vertices (V, 3), faces (F, 3) of the skin; mouth, eyes, nose_tip (3,); left_eye,
            right_eye (3,).
    Units:  metres. Axes: those of the head, x to the subject's left, y up, z out of the face.
    """

    landmarks: F64
    vertices: F64
    faces: Int
    mouth: F64
    nose_tip: F64
    left_eye: F64
    right_eye: F64


@lru_cache(maxsize=1)
def average_face() -> FaceShape:
    """The mean shape of the open head."""
    head = load_head()
    template = head.template.double().numpy()
    embedding = head.embedding("mediapipe478")
    points = embedding.on(template)
    middle = points.mean(0)
    faces = head.faces.numpy()[head.face_parts == head.part_names.index("skin")]
    points = points - middle
    return FaceShape(
        points,
        template - middle,
        faces,
        points[LIPS_OUTER].mean(0),
        points[1],
        points[[263, 362]].mean(0),
        points[[33, 133]].mean(0),
    )
