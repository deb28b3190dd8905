"""Conversion between OpenCV's and glTF's axes against matrices written by hand and scipy's half turn."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from avface.geometry.axes import flip_axes, flip_rotation

KINDS = [
    pytest.param(lambda values: np.array(values, np.float32), id="float32 array"),
    pytest.param(lambda values: np.array(values, np.float64), id="float64 array"),
    pytest.param(lambda values: torch.tensor(values, dtype=torch.float32), id="float32 tensor"),
    pytest.param(lambda values: torch.tensor(values, dtype=torch.float64), id="float64 tensor"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_point_right_below_and_before_the_camera_is_right_down_and_at_negative_z(kind):
    points = kind([[0.1, 0.2, 0.5], [-1.0, -2.0, -3.0]])

    flipped = flip_axes(points)

    assert flipped.dtype == points.dtype and type(flipped) is type(points)
    np.testing.assert_array_equal(flipped, np.array(kind([[0.1, -0.2, -0.5], [-1.0, 2.0, 3.0]])))
    np.testing.assert_array_equal(flip_axes(flipped), np.array(points))


@pytest.mark.parametrize("kind", KINDS)
def test_a_rotation_is_multiplied_by_half_a_turn_about_x_from_the_left(kind):
    half_turn = Rotation.from_euler("x", np.pi).as_matrix()
    turns = Rotation.random(5, random_state=0).as_matrix()

    flipped = flip_rotation(kind(turns))

    assert flipped.dtype == kind(turns).dtype
    np.testing.assert_allclose(flipped, half_turn @ turns, atol=1e-6)


def test_a_rotated_vector_in_flipped_axes_is_the_vector_rotated_by_the_flipped_rotation():
    turn = Rotation.random(random_state=1).as_matrix()
    vectors = np.random.default_rng(2).normal(size=(4, 3))

    np.testing.assert_allclose(vectors @ flip_rotation(turn).T, flip_axes(vectors @ turn.T), atol=1e-12)


def test_leading_dimensions_are_kept_and_gradients_pass():
    points = torch.ones(2, 3, 4, 3, requires_grad=True)

    flip_axes(points).sum().backward()

    np.testing.assert_array_equal(points.grad.numpy(), np.broadcast_to([1.0, -1.0, -1.0], (2, 3, 4, 3)))
    assert flip_rotation(torch.ones(2, 5, 3, 3)).shape == (2, 5, 3, 3)
