"""Crops: points and pictures agree, masks, and division into takes."""

from itertools import pairwise

import numpy as np
import pytest

from avface.data.crops import FACE, OCCLUDED, OUTSIDE, CropPath, find_takes


def blob(x, y, width=200, height=150, spread=3.0):
    down, across = np.mgrid[:height, :width]
    value = 255 * np.exp(-((across - x) ** 2 + (down - y) ** 2) / (2 * spread**2))
    return np.round(value)[..., None].astype(np.uint8) * np.ones(3, np.uint8)


def centre_of(image):
    weight = image[..., 0].astype(float)
    down, across = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(across * weight).sum(), (down * weight).sum()]) / weight.sum()


@pytest.mark.parametrize("side", [40.0, 63.7, 64.0, 97.3, 180.0])
@pytest.mark.parametrize("centre", [(100.0, 70.0), (91.35, 78.8)])
def test_points_and_picture_agree(side, centre):
    path = CropPath(np.array([centre]), side, 64)
    point = np.array([[centre[0] + 0.11 * side, centre[1] - 0.17 * side]])

    found = centre_of(path.image(0, blob(*point[0])))

    np.testing.assert_allclose(path.points(point[None])[0, 0], found, atol=0.06)


def test_a_crop_the_size_of_the_picture_is_the_picture():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
    path = CropPath(np.array([[31.5, 31.5]]), 64.0, 64)

    np.testing.assert_array_equal(path.image(0, picture), picture)
    np.testing.assert_allclose(path.points(np.array([[[3.0, 8.0]]])), [[[3, 8]]])


def test_fine_stripes_are_not_aliased():
    stripes = np.zeros((300, 300, 3), np.uint8)
    stripes[:, ::2] = 255
    crop = CropPath(np.array([[150.0, 150.0]]), 283.0, 64).image(0, stripes)

    assert crop.min() > 110 and crop.max() < 145


def test_a_mask_has_hull_occlusion_and_outside():
    path = CropPath(np.array([[19.5, 39.5]]), 64.0, 64)  # reaches 12 pixels beyond the left edge
    corners = np.array([[20, 10], [50, 10], [50, 40], [20, 40], [30, 30]], np.float32)
    hidden = np.zeros((100, 100), np.uint8)
    hidden[:, 30:] = 1  # from column 42 of the crop on
    mask = path.mask(0, corners, (100, 100), hidden)

    down, across = np.mgrid[:64, :64]
    np.testing.assert_array_equal(
        mask & FACE > 0, (across >= 20) & (across <= 50) & (down >= 10) & (down <= 40)
    )
    np.testing.assert_array_equal(mask & OUTSIDE > 0, across < 12)
    np.testing.assert_array_equal(mask & OCCLUDED > 0, across >= 42)
    assert not (path.mask(0, corners, (100, 100), None) & OCCLUDED).any()


def test_a_long_clip_is_divided_into_takes_of_limited_length():
    seen, sizes = np.ones(2250, bool), np.full(2250, 50.0)
    seen[:3] = False

    takes = find_takes([(0, 2250)], seen, sizes, 16, 4, frame_rate=0.6)

    assert takes[0][0] == 3 and takes[-1][1] == 2250
    assert all(end == start for (_, end), (start, _) in pairwise(takes))
    assert all(30 <= end - start <= 36 for start, end in takes)
