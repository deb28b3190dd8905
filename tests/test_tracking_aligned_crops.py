import numpy as np
import pytest

from avface.tracking.aligned_crops import (
    FACE_SIZE,
    SIDE,
    aligned_crop,
    crop_matrix,
    evenly_spread,
    next_crop,
    to_crop,
)

RNG = np.random.default_rng(0)
FACE_POINTS = np.concatenate([RNG.uniform(-60, 60, (478, 2)), RNG.normal(size=(478, 1))], 1)
FACE_POINTS[[33, 133, 263, 362, 10, 152], :2] = [
    [-40, -20],
    [-15, -20],
    [40, -20],
    [15, -20],
    [0, -60],
    [0, 60],
]


def turned(points, angle, scale=1.0, shift=(300, 200)):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points[:, :2] @ turn.T + shift


@pytest.mark.parametrize("angle", [-2.0, -0.4, 0.0, 0.7])
def test_a_crop_is_level_centred_and_of_one_size_for_any_rotation_and_scale(angle):
    level, lying = turned(FACE_POINTS, 0), turned(FACE_POINTS, angle, 3.0)
    expected = to_crop(crop_matrix(level), level)
    np.testing.assert_allclose(to_crop(crop_matrix(lying), lying), expected, atol=1e-3)
    low, high = expected[:468].min(0), expected[:468].max(0)
    assert np.sqrt((high - low).prod()) == pytest.approx(FACE_SIZE, rel=1e-4)
    np.testing.assert_allclose((low + high) / 2, (SIDE - 1) / 2, atol=1e-3)
    assert expected[10, 1] < expected[152, 1] and expected[33, 0] < expected[263, 0]


@pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
def test_image_and_landmarks_are_transformed_alike(scale):
    points = turned(FACE_POINTS, 0.3, scale, (400, 350))
    image = np.zeros((700, 800, 3), np.uint8)
    x, y = np.meshgrid(np.arange(800), np.arange(700))
    place = points[200]
    image[(x - place[0]) ** 2 + (y - place[1]) ** 2 < (6 * scale) ** 2] = 255
    matrix = crop_matrix(points)
    crop = aligned_crop(image, matrix).astype(float)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    centre = np.array([(columns * crop).sum(), (rows * crop).sum()]) / crop.sum()
    np.testing.assert_allclose(centre, to_crop(matrix, points)[200], atol=0.3 * max(1, 1 / scale))


def test_faces_beyond_the_image_and_without_extent_have_a_crop_of_its_border():
    image = np.full((60, 80, 3), 90, np.uint8)
    image[20:40, 20:60] = 200
    for points in (turned(FACE_POINTS, 0, 2.0, (500, -300)), np.zeros((478, 2))):
        crop = aligned_crop(image, crop_matrix(points))
        assert crop.shape == (SIDE, SIDE) and crop.dtype == np.uint8
        assert (crop == 90).all(), "the border is replicated"


def test_a_long_clip_has_some_dozens_of_crops_spread_over_it():
    kept = [0]
    while kept[-1] < 100_000:
        kept.append(next_crop(kept[-1]))
    assert kept[:5] == [0, 1, 2, 3, 4] and len(kept) < 100
    chosen = np.array(kept)[evenly_spread(np.array(kept))]
    assert 8 <= len(chosen) <= 16 and chosen[0] == 0 and chosen[-1] == kept[-1]
    np.testing.assert_array_equal(evenly_spread(np.arange(5)), np.arange(5))
