"""Pictures of faces, warped by their landmarks into a layout."""

import cv2
import numpy as np
import pytest
from networks_frames import mean_points

from avface.tracking.face_picture import PICTURE_SIDE, FaceLayout, face_picture, picture_layout, shown_texels


@pytest.fixture
def image():
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    return cv2.resize(noise, (400, 400), interpolation=cv2.INTER_CUBIC)


def points(turn=0.0, scale=1100.0, at=(200.0, 200.0)):
    """Landmarks (478, 2) of the mean head, turned by an angle in radians in the picture."""
    x, y = mean_points()[:, :2].T * scale
    rotated = np.stack([np.cos(turn) * x + np.sin(turn) * y, np.sin(turn) * x - np.cos(turn) * y], 1)
    return (rotated - rotated.mean(0) + at).astype(np.float32)


def test_the_stored_layout_is_that_of_the_open_head():
    stored, made = picture_layout(), FaceLayout.of(mean_points(), PICTURE_SIDE)
    np.testing.assert_array_equal(stored.inside, made.inside)
    np.testing.assert_array_equal(stored.corners, made.corners)
    np.testing.assert_allclose(stored.weights, made.weights, atol=1e-6)
    assert stored.reach == made.reach


def test_a_picture_is_the_same_wherever_the_face_is_and_however_it_is_turned(image):
    inside = picture_layout().inside
    first = face_picture(image, points())
    turned = cv2.warpAffine(
        image, cv2.getRotationMatrix2D((200, 200), np.degrees(-0.3), 1), (400, 400), flags=cv2.INTER_CUBIC
    )
    again = face_picture(turned, points(0.3))
    differences = np.abs(first.astype(float) - again)[inside]
    assert np.median(differences) < 6 and first[inside].std() > 30
    shifted = face_picture(np.roll(image, (5, 9), (0, 1)), points(at=(209.0, 205.0)))
    assert np.median(np.abs(first.astype(float) - shifted)[inside]) < 2


def test_landmarks_beside_what_they_should_follow_shift_the_picture(image):
    at = points()
    moved = at.copy()
    moved[:, 0] += 6
    first, other = face_picture(image, at).astype(float), face_picture(image, moved).astype(float)
    inside = picture_layout().inside[:, 4:-4]
    errors = [
        np.abs(first[:, 4:-4] - np.roll(other, shift, 1)[:, 4:-4])[inside].mean() for shift in range(-4, 5)
    ]
    assert np.argmin(errors) > 4, "what was at a texel is now to its left"


def test_texels_that_are_turned_away_are_not_shown():
    facing, _, _ = shown_texels(points())
    squeezed = points()
    left = squeezed[:, 0] > 200
    squeezed[left, 0] = 200 + 0.03 * (squeezed[left, 0] - 200)
    turned, at, matrix = shown_texels(squeezed)
    inside = picture_layout().inside
    assert facing[inside].mean() > 0.8
    half = PICTURE_SIDE // 2
    assert turned[:, half + 6 :].sum() < 0.2 * facing[:, half + 6 :].sum()
    np.testing.assert_allclose(at, squeezed @ matrix[:, :2].T + matrix[:, 2], atol=1e-3)
