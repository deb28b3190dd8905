"""Rotations agree with scipy at every angle, near 0 and pi too, and their gradients with finite differences."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from avface.geometry.rotations import (
    euler_to_rotmat,
    facing_rotvec,
    nearest_rotation,
    rotmat_to_rotvec,
    rotmat_to_unitquat,
    rotvec_to_rotmat,
)

ANGLES = [0.0, 1e-12, 1e-6, 0.99e-4, 1.01e-4, 0.3, 1.5, 3.0, np.pi - 1e-4, np.pi - 1e-7, np.pi, 3.5, 6.2]


def turns(angle, count=200):
    rng = np.random.default_rng(3)
    axes = rng.normal(size=(count, 3))
    axes[:3] = np.eye(3)
    return axes / np.linalg.norm(axes, axis=1, keepdims=True) * angle


@pytest.mark.parametrize("angle", ANGLES)
def test_matrices_are_those_of_scipy(angle):
    vectors = turns(angle)
    np.testing.assert_allclose(
        rotvec_to_rotmat(torch.as_tensor(vectors)).numpy(),
        Rotation.from_rotvec(vectors).as_matrix(),
        atol=1e-12,
    )


@pytest.mark.parametrize("angle", ANGLES)
def test_a_matrix_goes_to_its_vector_and_quaternion_and_back(angle):
    matrices = Rotation.from_rotvec(turns(angle)).as_matrix()

    vectors = rotmat_to_rotvec(torch.as_tensor(matrices)).numpy()
    quaternions = rotmat_to_unitquat(torch.as_tensor(matrices)).numpy()

    np.testing.assert_allclose(Rotation.from_rotvec(vectors).as_matrix(), matrices, atol=1e-12)
    np.testing.assert_allclose(Rotation.from_quat(quaternions).as_matrix(), matrices, atol=1e-12)
    assert (np.linalg.norm(vectors, axis=1) <= np.pi + 1e-9).all()
    assert (quaternions[:, 3] >= 0).all()


def test_single_precision_loses_no_more_than_its_rounding():
    for angle in ANGLES:
        vectors = torch.as_tensor(turns(angle), dtype=torch.float32)
        matrices = rotvec_to_rotmat(vectors)
        torch.testing.assert_close(matrices, rotvec_to_rotmat(vectors.double()).float(), rtol=0, atol=1e-6)
        torch.testing.assert_close(rotvec_to_rotmat(rotmat_to_rotvec(matrices)), matrices, rtol=0, atol=2e-6)


@pytest.mark.parametrize("angle", [0.0, 1e-6, 0.5, 2.5, 3.0])
def test_gradients(angle):
    vectors = torch.as_tensor(turns(angle, 5)).requires_grad_()
    assert torch.autograd.gradcheck(rotvec_to_rotmat, vectors)
    assert torch.autograd.gradcheck(lambda v: rotmat_to_rotvec(rotvec_to_rotmat(v)), vectors)


def test_euler_angles_turn_about_the_moving_axes_in_their_order():
    angles = np.random.default_rng(0).uniform(-3, 3, (50, 3))
    for convention in ("YXZ", "ZYX", "XYX"):
        expected = Rotation.from_euler(convention, angles).as_matrix()
        np.testing.assert_allclose(euler_to_rotmat(convention, torch.as_tensor(angles)), expected, atol=1e-12)


def test_the_nearest_rotation_is_the_one_scipy_finds_and_never_a_mirror():
    rng = np.random.default_rng(1)
    matrices = Rotation.random(30, random_state=2).as_matrix() + rng.normal(0, 0.6, (30, 3, 3))
    found = nearest_rotation(torch.as_tensor(matrices)).numpy()
    np.testing.assert_allclose(np.linalg.det(found), 1)
    assert (np.linalg.det(matrices) < 0).any(), "mirrors must be among them"
    for matrix, rotation in zip(matrices, found, strict=True):
        expected, _ = Rotation.align_vectors(matrix.T, np.eye(3))  # rows onto rows: matrix @ e_k
        np.testing.assert_allclose(rotation, expected.as_matrix(), atol=1e-6)


# Rotation without jumps


def nod(frames=60):
    """A face that looks into the camera, nodding through the half turn: unbroken axis-angle, and matrices."""
    pitch = 0.4 * np.sin(np.linspace(0, 4 * np.pi, frames))
    vectors = np.stack([np.pi + pitch, 0.1 * np.cos(pitch), 0 * pitch], 1)
    return vectors, torch.as_tensor(Rotation.from_rotvec(vectors).as_matrix())


def test_a_nodding_head_has_a_continuous_rotation_vector():
    _, matrices = nod()
    assert np.abs(np.diff(rotmat_to_rotvec(matrices), axis=0)).max() > 5, "the shortest axis-angle jumps"
    assert np.abs(np.diff(facing_rotvec(matrices), axis=0)).max() < 0.2


def test_the_continuous_rotation_names_the_same_rotations():
    vectors, matrices = nod()
    rng = np.random.default_rng(0)
    anywhere = torch.as_tensor(Rotation.from_rotvec(rng.normal(0, 1, (50, 3))).as_matrix())

    for rotations in (matrices, anywhere):
        torch.testing.assert_close(rotvec_to_rotmat(facing_rotvec(rotations)), rotations, rtol=0, atol=1e-9)
    np.testing.assert_allclose(facing_rotvec(matrices), vectors, atol=1e-5)
