import numpy as np
import pytest

from avface.head import schemes


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("LIPS", 40),
        ("LIPS_OUTER", 20),
        ("LIPS_INNER", 20),
        ("RIGHT_EYE", 16),
        ("LEFT_EYE", 16),
        ("RIGHT_IRIS", 5),
        ("LEFT_IRIS", 5),
        ("FACE_OVAL", 36),
    ],
)
def test_every_point_of_a_region_is_there_once(name, count):
    points = getattr(schemes, name)
    assert len(points) == len(set(points.tolist())) == count
    assert points.min() >= 0 and points.max() < schemes.NUM_MEDIAPIPE


def test_regions_do_not_share_points():
    names = ["LIPS", "RIGHT_EYE", "LEFT_EYE", "RIGHT_IRIS", "LEFT_IRIS", "FACE_OVAL"]
    names += ["RIGHT_BROW_UPPER", "RIGHT_BROW_LOWER", "LEFT_BROW_UPPER", "LEFT_BROW_LOWER"]
    together = np.concatenate([getattr(schemes, name) for name in names])
    assert len(together) == len(set(together.tolist()))


def test_upper_and_lower_rings_pair_up():
    for name in ("LIPS_OUTER", "LIPS_INNER", "RIGHT_EYE", "LEFT_EYE"):
        upper, lower = getattr(schemes, f"{name}_UPPER"), getattr(schemes, f"{name}_LOWER")
        ring = getattr(schemes, name)
        assert len(upper) == len(lower)
        for n, point in enumerate(upper):
            assert ring[1 + n] == point
            assert ring[-1 - n] == lower[n]


def test_ibug_parts_cover_all_68_points_in_order():
    names = [
        "CONTOUR",
        "RIGHT_BROW",
        "LEFT_BROW",
        "NOSE",
        "RIGHT_EYE",
        "LEFT_EYE",
        "LIPS_OUTER",
        "LIPS_INNER",
    ]
    together = np.concatenate([getattr(schemes, f"IBUG_{name}") for name in names])
    np.testing.assert_array_equal(together, np.arange(68))


def test_ibug_lips_and_eyes_come_from_mediapipe_lips_and_eyes():
    first, second = schemes.IBUG68_FROM_MEDIAPIPE.T
    for part, source in [
        (schemes.IBUG_LIPS_OUTER, schemes.LIPS_OUTER),
        (schemes.IBUG_LIPS_INNER, schemes.LIPS_INNER),
        (schemes.IBUG_RIGHT_EYE, schemes.RIGHT_EYE),
        (schemes.IBUG_LEFT_EYE, schemes.LEFT_EYE),
    ]:
        assert set(first[part]) <= set(source.tolist())
        np.testing.assert_array_equal(first[part], second[part])
        # In the same sense around the ring, from the same corner.
        order = [source.tolist().index(point) for point in first[part]]
        assert order == sorted(order) and order[0] == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_conversion_averages_pairs_for_any_batch(dtype):
    points = np.random.default_rng(0).normal(size=(2, 3, 478, 2)).astype(dtype)
    points[1, 0] = np.nan
    converted = schemes.ibug68_from_mediapipe(points)
    assert converted.shape == (2, 3, 68, 2) and converted.dtype == dtype
    np.testing.assert_array_equal(converted[0, 0, 8], points[0, 0, 152])  # chin
    np.testing.assert_allclose(converted[0, 1, 27], (points[0, 1, 168] + points[0, 1, 6]) / 2, rtol=1e-6)
    assert np.isnan(converted[1, 0]).all() and np.isfinite(converted[1, 1]).all()
    np.testing.assert_array_equal(schemes.ibug68_from_mediapipe(points[..., :468, :]), converted)


@pytest.mark.parametrize("shape", [(68, 2), (478,), (478, 3, 2)])
def test_other_schemes_are_refused(shape):
    with pytest.raises(ValueError, match="478"):
        schemes.ibug68_from_mediapipe(np.zeros(shape))
