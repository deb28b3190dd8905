import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from avface.geometry.alignment import rigid_align, similarity_align


def cloud(count=40):
    return np.random.default_rng(5).normal(0, 0.05, (count, 3))


def test_alignment_recovers_a_known_motion_of_every_frame():
    truth = np.stack([cloud(), 1.1 * cloud()])
    turns = Rotation.from_rotvec([[0.3, -2.5, 0.4], [1.0, 0.2, -0.1]]).as_matrix()
    moved = truth @ turns.transpose(0, 2, 1) + [[[0.1, 0.2, 1.5]], [[-0.4, 0, 0.9]]]
    np.testing.assert_allclose(rigid_align(moved, truth), truth, atol=1e-12)
    np.testing.assert_allclose(similarity_align(1.7 * moved, truth), truth, atol=1e-12)


def test_rigid_alignment_does_not_scale():
    assert np.ptp(rigid_align(2 * cloud(), cloud()), 0) == pytest.approx(2 * np.ptp(cloud(), 0))


@pytest.mark.parametrize("align", [rigid_align, similarity_align])
def test_alignment_never_reflects(align):
    aligned = align(cloud() * (-1, 1, 1), cloud())
    assert np.linalg.norm(aligned - cloud(), axis=1).mean() > 0.01
    source = cloud() * (-1, 1, 1)
    handedness = [np.sign(np.linalg.det(points[1:4] - points[0])) for points in (source, aligned)]
    assert handedness[0] == handedness[1]


@pytest.mark.parametrize("mirrored", [1, -1])
def test_the_scale_of_an_alignment_is_optimal(mirrored):
    source = cloud() * (mirrored, 1.3, 0.8)
    aligned = similarity_align(source, cloud())
    centre = aligned.mean(0)
    errors = [((centre + scale * (aligned - centre) - cloud()) ** 2).sum() for scale in (0.98, 1, 1.02)]
    assert errors[1] < min(errors[0], errors[2])


def test_alignment_on_a_part_moves_the_whole():
    truth = cloud()
    part = np.arange(len(truth)) < 20
    moved = truth @ Rotation.from_rotvec([0.2, 0.1, 0.3]).as_matrix().T + 1
    moved[~part] += 0.5  # must not disturb the fit
    aligned = rigid_align(moved, truth, part)
    np.testing.assert_allclose(aligned[part], truth[part], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(aligned[~part] - truth[~part], axis=1), 0.5 * 3**0.5)


def test_two_points_cannot_be_aligned():
    with pytest.raises(ValueError, match="at least three"):
        rigid_align(cloud(), cloud(), np.arange(40) < 2)
    with pytest.raises(ValueError, match="must both"):
        rigid_align(cloud(), cloud(30))
