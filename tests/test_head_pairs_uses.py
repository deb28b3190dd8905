"""Training and lip effects see a head's correctives: their points are those of the head."""

import numpy as np
import pytest
import torch
from paired_heads import paired

from avface.head import load_head
from avface.head.lips import lip_region


@pytest.fixture(scope="module")
def head():
    return paired(load_head())


@pytest.fixture(scope="module")
def people(head):
    """Shapes (2, S) and expressions (2, 3, E) of two clips of three frames."""
    random = torch.Generator().manual_seed(0)
    return torch.randn(2, head.num_shape, generator=random), torch.rand(
        2, 3, head.num_expression, generator=random
    )


def vertices(head, shape, expression):
    """(3, V, 3) of one clip."""
    return head(shape[None], expression)


def test_landmarks_of_many_heads_at_once(head, people):
    from avface.training.coarse.face_points import FacePoints

    points = FacePoints.of(head)(*people)

    for clip in range(2):
        own = vertices(head, people[0][clip], people[1][clip]).numpy()
        np.testing.assert_allclose(points[clip], head.embedding("mediapipe478").on(own), atol=1e-6)


def test_lips_in_training_are_those_of_the_head(head, people):
    from avface.training.lips.train import LipsObjective, LipsRecipe

    base = LipsObjective(LipsRecipe(), head, "cpu").base(*people)

    region = lip_region(head).vertices
    for clip in range(2):
        own = vertices(head, people[0][clip], people[1][clip])[:, region]
        torch.testing.assert_close(base[clip], own, rtol=0, atol=1e-6)


def test_losses_of_units_in_training_are_distances_of_the_heads_vertices(head, people):
    shape, expression = people[0][0], people[1][0]
    terms = head.blend_terms
    change = terms.weights(expression, shape) - terms.weights(expression[:1], shape)

    moved = (change @ head.blend_basis.flatten(1)).unflatten(-1, (-1, 3))

    own = vertices(head, shape, expression)
    torch.testing.assert_close(moved, own - own[:1], rtol=0, atol=1e-6)
