"""Visibility of teeth and tongue in open and closed mouths."""

import numpy as np
import pytest
import torch

from avface.geometry.rasteriser import rasterise
from avface.head import load_head
from avface.head.open.inner_mouth import InnerMouthConfig, place_inner_mouth

PARTS = ("upper_teeth", "lower_teeth", "tongue")


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def rows(head):
    owner = head.vertex_parts()
    return {part: np.flatnonzero(owner == head.part_names.index(part)) for part in PARTS}


def shown(head, **units):
    """Numbers of visible pixels of 0.6 mm of each part of the mouth in front view."""
    expression = torch.zeros(1, head.num_expression)
    for name, weight in units.items():
        expression[0, head.expression_names.index(name)] = weight
    vertices = head(torch.zeros(1, head.num_shape), expression)[0]
    pixels = torch.stack([vertices[:, 0], -vertices[:, 1]], 1) * 1600 + 128
    triangles = rasterise(pixels, 1 - vertices[:, 2], head.faces, 256, 256).triangle.numpy()
    seen = head.face_parts[triangles[triangles >= 0]]
    return {part: int((seen == head.part_names.index(part)).sum()) for part in PARTS}


def test_nothing_is_visible_through_closed_lips(head):
    assert sum(shown(head).values()) <= 3
    assert sum(shown(head, mouthPressLeft=1, mouthPressRight=1).values()) <= 30


def test_opening_lips_show_teeth_before_the_tongue(head):
    smile = shown(head, mouthUpperUpLeft=1, mouthUpperUpRight=1)
    assert smile["upper_teeth"] > 100 > smile["tongue"]
    lowered = shown(head, mouthLowerDownLeft=1, mouthLowerDownRight=1)
    assert lowered["lower_teeth"] > 100 > lowered["tongue"]


def test_a_protruded_tongue_is_visible(head):
    assert shown(head, tongueOut=1)["tongue"] > 300


def test_the_tongue_lies_behind_the_teeth_and_teeth_behind_the_lips(head, rows):
    front = {part: head.template[of, 2].max().item() for part, of in rows.items()}
    embedding = head.embedding("mediapipe478")
    lips = head.template.numpy()[embedding.triangles[[13, 14]]][..., 2].max()
    assert front["tongue"] + 0.004 < front["lower_teeth"] < lips and front["upper_teeth"] < lips


def test_only_teeth_and_tongue_move(head, rows):
    points = head.template.double().numpy()
    moved = place_inner_mouth(points, rows, InnerMouthConfig(forward=0.001))
    others = np.setdiff1d(np.arange(len(points)), np.concatenate(list(rows.values())))
    np.testing.assert_array_equal(moved[others], points[others])
    np.testing.assert_allclose(
        moved[rows["upper_teeth"], 2], points[rows["upper_teeth"], 2] + 0.001, atol=1e-12
    )
