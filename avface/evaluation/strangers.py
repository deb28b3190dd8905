"""Scans of people whose faces the head model can't make (`avface.synthetic.strangers`), for the shape protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from avface.evaluation.scan_to_mesh import NOW_LANDMARKS
from avface.head import HeadModel
from avface.synthetic.strangers import StrangersConfig, film, stranger_head, stranger_scene

__all__ = [
    "Scan",
    "StrangersConfig",
    "film",
    "scan",
    "seven_landmarks",
    "skin_triangles",
    "stranger_head",
    "stranger_scene",
]

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

_SCAN = 0x5CA


@dataclass(frozen=True, eq=False)
class Scan:
    """A scanned face at rest: points (N, 3) spread evenly over the skin, without the mesh they were taken from, and the
    seven landmarks (7, 3) of `NOW_LANDMARKS`. Metres in the head's frame."""

    points: FloatArray
    landmarks: FloatArray


def scan(head: HeadModel, points: int = 20_000, seed: int = 0) -> Scan:
    """Scan a head's template: points drawn evenly over the area of the skin's front half."""
    rng = np.random.default_rng([seed, _SCAN])
    vertices, triangles = head.template.double().numpy(), skin_triangles(head)
    triangles = triangles[vertices[triangles][..., 2].mean(1) > np.median(vertices[:, 2])]
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(triangles), points, p=area / area.sum())
    u, v = rng.uniform(size=(2, points, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return Scan(a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen], seven_landmarks(head, vertices))


def skin_triangles(head: HeadModel) -> IntArray:
    """Triangles (F, 3) of the skin: no eyeballs, teeth, tongue."""
    return np.asarray(head.faces.numpy()[head.face_parts == head.part_names.index("skin")], np.int64)


def seven_landmarks(head: HeadModel, vertices: npt.NDArray[np.floating]) -> FloatArray:
    """The points (7, 3) of `NOW_LANDMARKS` on a mesh (V, 3) of the head's topology."""
    return np.asarray(head.embedding("ibug68").on(vertices)[NOW_LANDMARKS])
