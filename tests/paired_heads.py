"""Heads with correctives of pairs of units and with quads, for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from captures import moving_capture

from avface.capture import Capture
from avface.geometry.mesh import triangulate
from avface.head import load_head
from avface.head.asset import save_head_asset
from avface.head.model import HeadModel

PAIRS = (("eyeBlinkLeft", "eyeBlinkLeft"), ("mouthSmileLeft", "jawOpen"), ("eyeBlinkRight", "eyeSquintRight"))
PAIR_NAMES = ("eyeBlinkLeft_inbetween", "mouthSmileLeft_jawOpen", "eyeBlinkRight_eyeSquintRight")


def changed(head: HeadModel, **changes: Any) -> HeadModel:
    """The head with other arguments of `HeadModel`."""
    arrays = ("template", "shape_basis", "expression_basis", "joint_regressor", "skin_weights", "faces")
    others = (
        "expression_names joint_names joint_parents uv uv_faces part_names face_parts regions embeddings gaze_range "
        "size_component unit_range joint_units joints_follow_expression contour pairs quads"
    )
    arrays += ("corrective_basis", "pair_basis", "person_terms", "person_weights", "person_basis")
    own = {name: getattr(head, name).numpy() for name in arrays}
    own |= {name: getattr(head, name) for name in others.split()}
    return HeadModel("changed", **{**own, **changes})


def plain_head() -> HeadModel:
    """The open head without correctives, terms of the person and quads."""
    head = load_head()
    none = np.zeros((0, head.num_vertices, 3))
    return changed(
        head,
        pairs=(),
        pair_basis=none,
        person_terms=np.zeros(0, np.int64),
        person_weights=np.zeros((0, head.num_shape)),
        person_basis=none,
        quads=np.zeros((0, 4), np.int64),
    )


def paired(head: HeadModel, size: float = 0.001, seed: int = 0) -> HeadModel:
    """The head with correctives of `PAIRS` that move the lips and the lids by about `size` metres, and terms of the
    person that move the lids with a blink, its in-between and the jaw."""
    rng = np.random.default_rng(seed)
    moved = head.regions["eyelids"] | head.regions["lips"]
    offsets = rng.normal(0, size, (len(PAIRS), head.num_vertices, 3)) * moved[:, None]
    numbers = tuple(tuple(head.expression_names.index(name) for name in pair) for pair in PAIRS)
    terms = np.array([numbers[0][0], head.num_expression, numbers[1][1]])
    people = rng.normal(0, size / 2, (len(terms), head.num_vertices, 3)) * head.regions["eyelids"][:, None]
    return changed(
        head,
        pairs=numbers,
        pair_basis=offsets,
        person_terms=terms,
        person_weights=rng.normal(0, 0.3, (len(terms), head.num_shape)),
        person_basis=people,
    )


def quad_head(name: str = "quads") -> HeadModel:
    """A small tube of quads and two triangles with UVs, three units, correctives and terms of the person, and a
    neck."""
    rng = np.random.default_rng(3)
    rows, columns = 4, 6
    turn = np.arange(columns) * 2 * np.pi / columns
    v, u = np.meshgrid(np.linspace(-0.1, 0.1, rows), turn, indexing="ij")
    points = np.stack([0.1 * np.sin(u), v, 0.1 * np.cos(u)], -1).reshape(-1, 3)
    points += rng.normal(0, 0.002, points.shape)
    corner = np.arange(rows * columns).reshape(rows, columns)
    right = np.roll(corner, -1, 1)
    quads = np.stack([corner[:-1], right[:-1], right[1:], corner[1:]], -1).reshape(-1, 4)
    a, b, c, d = quads[4]
    quads = np.concatenate([quads[:4], [[a, b, c, c], [a, c, d, d]], quads[5:]])
    uv = np.concatenate([np.stack([u / 7, v + 0.5], -1).reshape(-1, 2), np.full((rows, 2), 0.95)])
    uv_quads = quads.copy()
    uv_quads[[3, 8]] += 1  # a seam: the same vertices at other places
    faces = triangulate(quads)
    count = len(points)
    parts = np.where(points[faces].mean(1)[:, 1] > 0, 1, 0)
    parts[9] = parts[8]  # the two triangles of a quad are of one part
    whole = np.flatnonzero(quads[:, 2] != quads[:, 3])
    first = np.cumsum(1 + (quads[:, 2] != quads[:, 3])) - 1 - (quads[:, 2] != quads[:, 3])
    parts[first[whole] + 1] = parts[first[whole]]
    return HeadModel(
        name,
        template=points,
        shape_basis=rng.normal(0, 0.003, (3, count, 3)),
        expression_basis=rng.normal(0, 0.004, (3, count, 3)),
        expression_names=("jawOpen", "eyeBlinkLeft", "eyeBlinkRight"),
        joint_names=("neck",),
        joint_parents=(-1,),
        joint_regressor=np.full((1, count), 1 / count),
        skin_weights=rng.dirichlet(np.ones(2), count),
        faces=faces,
        uv=uv,
        uv_faces=triangulate(uv_quads),
        part_names=("skin", "tongue"),
        face_parts=parts,
        regions={"face": np.ones(count, bool)},
        embeddings={},
        gaze_range=np.zeros(4),
        pairs=((1, 1), (0, 2)),
        pair_basis=rng.normal(0, 0.003, (2, count, 3)),
        person_terms=np.array([1, 3, 1, 4]),
        person_weights=rng.normal(0, 0.5, (4, 3)),
        person_basis=rng.normal(0, 0.002, (4, count, 3)),
        quads=quads,
    )


def quad_capture(folder: Path, frames: int = 5) -> Capture:
    """A moving capture of `quad_head`."""
    head = quad_head()
    path = folder / "quads.npz"
    save_head_asset(head, path)
    return _capture_of(head, path, frames)


def paired_capture(folder: Path, frames: int = 6) -> Capture:
    """A moving capture of the open head with made-up correctives."""
    head = paired(load_head())
    path = folder / "paired.npz"
    save_head_asset(head, path)
    capture = moving_capture(frames)
    expression = np.random.default_rng(5).uniform(0, 1, capture.expression.shape).astype(np.float32)
    return replace(capture, head=str(path), head_digest="", expression=expression)


def _capture_of(head: HeadModel, path: Path, frames: int) -> Capture:
    rng = np.random.default_rng(8)
    return Capture(
        head=str(path),
        shape=rng.normal(0, 1, head.num_shape).astype(np.float32),
        expression=rng.uniform(0, 1, (frames, head.num_expression)).astype(np.float32),
        expression_names=head.expression_names,
        rotation=rng.normal(0, 0.5, (frames, 3)).astype(np.float32),
        translation=rng.normal((0, 0, 1), 0.05, (frames, 3)).astype(np.float32),
        joints=rng.normal(0, 0.3, (frames, head.num_joints, 3)).astype(np.float32),
        joint_names=head.joint_names,
        focal_length=500.0,
        principal_point=(159.5, 119.5),
        image_size=(320, 240),
        times=np.arange(frames) / 25,
        confidence=np.ones(frames, np.float32),
    )
