"""What other programs show of an exported scene, compared with the capture."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from programs import blender
from scipy.spatial import cKDTree

from avface.capture import Capture

TO_SCENE = np.diag([1.0, -1.0, -1.0])
"""Axes of `Capture.vertices` to those of scene files."""

Array = npt.NDArray[np.floating]


@dataclass(frozen=True)
class Played:
    """What a program shows of a file: (T, V, 3) metres in the axes of scene files, (T, V, 2) pixels of its camera."""

    vertices: Array
    pixels: Array
    keys: Array
    """Times of the keys, in frames of the program's scene; empty where it doesn't say."""
    facts: dict[str, Any]


def in_blender(path: Path, size: tuple[int, int], fps: int, base: float = 1.0) -> Played:
    """Import a file in Blender, with the scene at `fps` / `base` frames a second, and evaluate every whole frame."""
    out = path.with_suffix(".played.npz")
    script = Path(__file__).with_name("blender_scene.py")
    command = [blender(), script, path, out, fps, repr(base), *size]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and out.is_file(), done.stdout[-2000:] + done.stderr[-2000:]
    with np.load(out) as file:
        x, y, z = np.moveaxis(file["vertices"].astype(float), -1, 0)
        world = np.stack([x, y, z, np.ones_like(x)], -1)
        clip = np.einsum("tij,tvj->tvi", file["projections"], world)
        keys, facts = file["keys"], json.loads(str(file["facts"]))
    return Played(np.stack([x, z, -y], -1), pixels(clip, size), keys, facts)  # Blender's z is up


def pixels(clip: Array, size: tuple[int, int]) -> Array:
    """Pixels (..., 2) of points (..., 4) in clip space, (0, 0) the centre of the top-left pixel."""
    x, y = clip[..., 0] / clip[..., 3], clip[..., 1] / clip[..., 3]
    return np.stack([(x + 1) / 2 * size[0] - 0.5, (1 - y) / 2 * size[1] - 0.5], -1)


def errors(capture: Capture, played: Played) -> tuple[float, float]:
    """The largest errors of what a program shows at the frames of a capture: of vertices in mm, landmarks in pixels.

    A program's vertices are numbered otherwise, and split along seams: each of the capture's is paired with the one
    that follows the same path.
    """
    truth = capture.vertices().astype(float) @ TO_SCENE
    assert len(played.vertices) == len(truth), f"{len(played.vertices)} frames, not {len(truth)}"
    some = np.linspace(0, len(truth) - 1, 4).astype(int)
    paths, others = (np.concatenate(list(v[some]), 1) for v in (truth, played.vertices))
    _, partner = cKDTree(others).query(paths)
    millimetres = 1000 * float(np.linalg.norm(played.vertices[:, partner] - truth, axis=2).max())
    # Points of the surface in the picture: perspective weighs a triangle's corners by their depths.
    embedding = capture.head_model.embedding("mediapipe478")
    corners = embedding.triangles
    weights = embedding.barycentric * -truth[:, corners, 2]
    weights /= weights.sum(-1, keepdims=True)
    shown = (weights[..., None] * played.pixels[:, partner][:, corners]).sum(2)
    return millimetres, float(np.linalg.norm(shown - capture.landmarks(), axis=2).max())
