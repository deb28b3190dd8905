"""Scans of out-of-model heads (`avface.synthetic.out_of_model`), for the shape protocol."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from avface.arrays import F64, Floats, Int
from avface.evaluation.scan_to_mesh import NOW_LANDMARKS
from avface.head import HeadModel
from avface.synthetic.out_of_model import OutOfModelConfig, film, out_of_model_head, out_of_model_scene

__all__ = [
    "OutOfModelConfig",
    "Scan",
    "film",
    "out_of_model_head",
    "out_of_model_scene",
    "scan",
    "seven_landmarks",
    "skin_triangles",
]


_SCAN = 0x5CA


@dataclass(frozen=True, eq=False)
class Scan:
    """A scan of a neutral face: points (N, 3) sampled uniformly on the skin, and landmarks (7, 3), `NOW_LANDMARKS`.
    Metres in the head's frame."""

    points: F64
    landmarks: F64


def scan(head: HeadModel, points: int = 20_000, seed: int = 0) -> Scan:
    """Scan of a head's template: points sampled uniformly by area on the front half of the skin."""
    rng = np.random.default_rng([seed, _SCAN])
    vertices, triangles = head.template.double().numpy(), skin_triangles(head)
    triangles = triangles[vertices[triangles][..., 2].mean(1) > np.median(vertices[:, 2])]
    a, b, c = vertices[triangles].transpose(1, 0, 2)
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    chosen = rng.choice(len(triangles), points, p=area / area.sum())
    u, v = rng.uniform(size=(2, points, 1))
    u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
    return Scan(a[chosen] + u * (b - a)[chosen] + v * (c - a)[chosen], seven_landmarks(head, vertices))


def skin_triangles(head: HeadModel) -> Int:
    """Triangles (F, 3) of the skin, without eyeballs, teeth and tongue."""
    return np.asarray(head.faces.numpy()[head.face_parts == head.part_names.index("skin")], np.int64)


def seven_landmarks(head: HeadModel, vertices: Floats) -> F64:
    """The points (7, 3) of `NOW_LANDMARKS` on a mesh (V, 3) of the head's topology."""
    return np.asarray(head.embedding("ibug68").on(vertices)[NOW_LANDMARKS])
