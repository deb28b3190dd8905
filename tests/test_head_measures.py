import numpy as np
import pytest

from avface.head.measures import box_size, mouth_opening

CORNERS = np.array([[10.0, 20.0], [110.0, 20.0], [10.0, 420.0], [110.0, 420.0]])  # 100 by 400: size 200


def faces(frames=5, marks=478):
    points = np.random.default_rng(1).uniform([10, 20], [110, 420], (frames, marks, 2))
    points[:, :4] = CORNERS
    return points


def test_the_size_of_a_face_is_the_root_of_its_boxs_area():
    np.testing.assert_allclose(box_size(faces()), 200)


@pytest.mark.parametrize("points", [np.zeros((2, 2)), np.zeros((3, 5, 3)), np.ones((2, 5, 2))])
def test_points_without_a_box_are_refused(points):
    with pytest.raises(ValueError, match=r"must be|no area"):
        box_size(points)


@pytest.mark.parametrize(("marks", "upper", "lower"), [(478, 13, 14), (68, 62, 66)])
def test_the_mouth_opens_by_the_gap_between_the_inner_lips(marks, upper, lower):
    points = np.zeros((3, marks, 2))
    points[:, lower] = points[:, upper] + [[0, 0], [3, 4], [0, 20]]
    np.testing.assert_allclose(mouth_opening(points, np.array([100, 100, 200])), [0, 0.05, 0.1])


def test_a_mouth_needs_a_known_scheme():
    with pytest.raises(ValueError, match="478"):
        mouth_opening(np.zeros((3, 5, 2)), np.ones(3))


def test_the_size_of_the_picture_does_not_open_a_mouth():
    small = faces(2).astype(np.float32)
    small[1] = np.nan
    large = 3 * small

    opening = mouth_opening(small, box_size(small))

    np.testing.assert_allclose(mouth_opening(large, box_size(large)), opening, rtol=1e-5)
    assert opening[0] > 0 and np.isnan(opening[1])
