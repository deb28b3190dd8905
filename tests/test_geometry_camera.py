import math

import pytest
import roma
import torch

from avface.geometry.camera import Camera, transform


def test_a_point_to_the_right_below_and_twice_as_far_lands_where_it_was_computed_by_hand():
    camera = Camera(500.0, (319.5, 239.5), 640, 480)
    points = torch.tensor([[0.0, 0.0, 1.0], [0.1, 0.2, 1.0], [0.1, 0.2, 2.0], [-0.3, 0.0, 0.5]])

    pixels = camera.project(points)

    expected = [[319.5, 239.5], [369.5, 339.5], [344.5, 289.5], [19.5, 239.5]]
    torch.testing.assert_close(pixels, torch.tensor(expected))


def test_the_middle_of_a_centred_picture_lies_between_the_middles_of_its_corner_pixels():
    camera = Camera.centred(100, 4, 3)

    assert camera.principal_point == (1.5, 1.0)
    assert (camera.width, camera.height, camera.focal_length) == (4, 3, 100.0)


def test_the_edge_of_the_picture_is_half_a_pixel_beyond_its_first_pixel():
    camera = Camera.centred(50, 100, 100)  # sees 90 degrees: x = z is the right edge

    x, y = camera.project(torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64))

    assert float(x) == pytest.approx(99.5)
    assert float(y) == pytest.approx(-0.5)


def test_a_face_that_looks_into_the_camera_has_its_left_on_the_right_and_its_top_above():
    camera = Camera.centred(600, 640, 480)
    rotation = roma.rotvec_to_rotmat(torch.tensor([math.pi, 0.0, 0.0]))
    head = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.1]])

    in_camera = transform(head, rotation, torch.tensor([0.0, 0.0, 0.6]))
    origin, left, top, nose = camera.project(in_camera)

    torch.testing.assert_close(in_camera[3], torch.tensor([0.0, 0.0, 0.5]), atol=1e-6, rtol=0)
    torch.testing.assert_close(left - origin, torch.tensor([100.0, 0.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(top - origin, torch.tensor([0.0, -100.0]), atol=1e-3, rtol=0)
    torch.testing.assert_close(nose, origin, atol=1e-3, rtol=0)


def test_transform_rotates_before_it_translates_for_each_of_a_batch():
    quarter = roma.rotvec_to_rotmat(torch.tensor([[0.0, 0.0, math.pi / 2], [0.0, 0.0, 0.0]]))
    moved = transform(
        torch.tensor([[1.0, 0.0, 0.0]]), quarter, torch.tensor([[0.0, 0.0, 5.0], [1.0, 2.0, 3.0]])
    )

    torch.testing.assert_close(moved, torch.tensor([[[0.0, 1.0, 5.0]], [[2.0, 2.0, 3.0]]]), atol=1e-6, rtol=0)


def test_the_gradient_of_the_projection_is_the_numerical_one():
    camera = Camera(500.0, (319.5, 239.5), 640, 480)
    points = torch.tensor([[0.1, -0.2, 0.7], [-0.3, 0.1, 1.1]], dtype=torch.float64, requires_grad=True)

    assert torch.autograd.gradcheck(camera.project, points)


@pytest.mark.parametrize(
    ("focal_length", "width", "height", "message"),
    [
        (0.0, 4, 3, "focal_length=0.0 must be above 0 pixels"),
        (float("nan"), 4, 3, "focal_length=nan must be above 0 pixels"),
        (100.0, 0, 3, "width=0 must be 1 pixel or more"),
        (100.0, 4, -1, "height=-1 must be 1 pixel or more"),
    ],
)
def test_cameras_that_cannot_project_are_refused(focal_length, width, height, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Camera.centred(focal_length, width, height)
