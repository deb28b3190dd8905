"""Captures of other heads, with a rotated neck, and of one frame, for tests of exporters."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from captures import moving_capture

from avface.capture import Capture
from avface.head.asset import save_head_asset
from avface.head.model import HeadModel


def turned_neck_capture(frames: int = 5) -> Capture:
    capture = moving_capture(frames)
    joints = capture.joints.copy()
    joints[:, capture.joint_names.index("neck")] = np.random.default_rng(3).normal(0, 0.25, (frames, 3))
    return replace(capture, joints=joints)


def jawed_capture(folder: Path, frames: int = 4) -> Capture:
    """A small random head without eyes and UVs, with more joints than the open head and units of its own."""
    rng = np.random.default_rng(11)
    rows, columns = 9, 12
    v, u = np.meshgrid(
        np.linspace(0.2, np.pi - 0.2, rows), np.arange(columns) * 2 * np.pi / columns, indexing="ij"
    )
    points = np.stack([np.sin(v) * np.cos(u), np.cos(v), np.sin(v) * np.sin(u)], -1).reshape(-1, 3) * 0.1
    corner = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(corner, -1, 1)
    a, b, c, d = corner[:-1], right[:-1], right[1:], corner[1:]
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([a, c, d], -1).reshape(-1, 3)])
    count = len(points)
    weights = rng.dirichlet(np.ones(6), count)  # more influences than fit in one set of four
    weights /= weights.sum(1, keepdims=True)
    head = HeadModel(
        "jawed",
        template=points,
        shape_basis=rng.normal(0, 0.003, (3, count, 3)),
        expression_basis=rng.normal(0, 0.004, (4, count, 3)),
        expression_names=("exp 0", "exp 1", "exp 2", "exp 3"),
        joint_names=("neck", "jaw", "crown", "ear", "chin"),
        joint_parents=(-1, 0, 0, 2, 1),
        joint_regressor=rng.dirichlet(np.ones(count), 5),
        skin_weights=weights,
        faces=faces,
        uv=np.zeros((0, 2)),
        uv_faces=np.zeros((0, 3), int),
        part_names=("skin",),
        face_parts=np.zeros(len(faces), int),
        regions={"face": np.ones(count, bool)},
        embeddings={},
        gaze_range=np.zeros(4),
    )
    path = folder / "jawed.npz"
    save_head_asset(head, path)
    joints = rng.normal(0, 0.3, (frames, 5, 3))
    joints[:, 2] = 0  # a joint at rest between rotating ones
    return Capture(
        head=str(path),
        shape=rng.normal(0, 1, 3).astype(np.float32),
        expression=rng.uniform(0, 1, (frames, 4)).astype(np.float32),
        expression_names=head.expression_names,
        rotation=rng.normal(0, 0.5, (frames, 3)).astype(np.float32),
        translation=rng.normal((0, 0, 1), 0.05, (frames, 3)).astype(np.float32),
        joints=joints.astype(np.float32),
        joint_names=head.joint_names,
        focal_length=500.0,
        principal_point=(159.5, 119.5),
        image_size=(320, 240),
        times=np.array([0.0, 0.03, 0.09, 0.1])[:frames],
        confidence=np.ones(frames, np.float32),
    )


def still_capture() -> Capture:
    """One frame of a head at rest."""
    capture = moving_capture(1)
    return replace(
        capture, expression=np.zeros_like(capture.expression), joints=np.zeros_like(capture.joints)
    )
