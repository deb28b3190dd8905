"""Sliced optimal transport of colours."""

import numpy as np
import pytest

from avface.synthetic.occlusion.occluders.colour_transfer import (
    TransferConfig,
    sliced_transport,
    transfer_colours,
    without_highlights,
)


def skin(rng, count=3000):
    """Colours along a curved line with some spread, as skin has from shade to light."""
    light = rng.uniform(0, 1, count)
    colours = np.stack([0.35 + 0.5 * light, 0.2 + 0.45 * light**1.2, 0.15 + 0.4 * light**1.4], 1)
    return colours + rng.normal(0, 0.01, colours.shape)


def cloud(rng, count=4000):
    return np.clip(rng.normal([0.75, 0.6, 0.5], [0.05, 0.07, 0.04], (count, 3)), 0, 1)


def test_points_take_on_the_targets_distribution():
    rng = np.random.default_rng(0)
    target = skin(rng)

    moved = sliced_transport(cloud(rng), target, rng)

    np.testing.assert_allclose(moved.mean(0), target.mean(0), atol=1e-3)
    np.testing.assert_allclose(np.cov(moved.T), np.cov(target.T), atol=5e-4)
    ranks = np.linspace(0.01, 0.99, 50)
    for direction in np.random.default_rng(1).normal(size=(8, 3)):
        direction /= np.linalg.norm(direction)
        ours, theirs = np.quantile(moved @ direction, ranks), np.quantile(target @ direction, ranks)
        assert np.abs(ours - theirs).max() < 0.015


def test_equal_distributions_stay_as_they_are():
    rng = np.random.default_rng(0)
    points = cloud(rng)

    moved = sliced_transport(points, rng.permutation(points), rng)

    np.testing.assert_allclose(moved, points, atol=1e-12)


def test_a_shifted_cloud_is_moved_by_the_shift_alone():
    rng = np.random.default_rng(0)
    points = cloud(rng)

    moved = sliced_transport(points, points + np.array([0.05, -0.1, 0.02]), rng)

    np.testing.assert_allclose(moved - points, np.broadcast_to([0.05, -0.1, 0.02], points.shape), atol=2e-4)


def test_the_same_seed_gives_the_same_colours():
    points, target = cloud(np.random.default_rng(0)), skin(np.random.default_rng(1))

    first, again, other = (sliced_transport(points, target, np.random.default_rng(s)) for s in (5, 5, 6))

    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 0


def test_highlights_are_cut_at_one_deviation_over_the_mean():
    colours = np.array([[0.2, 0.2, 0.2]] * 9 + [[1.0, 0.2, 0.2]])

    cut = without_highlights(colours)

    limit = colours[:, 0].mean() + colours[:, 0].std()
    assert cut[-1, 0] == pytest.approx(limit)
    np.testing.assert_array_equal(cut[:-1], colours[:-1])


def test_a_picture_keeps_its_fine_detail():
    rng = np.random.default_rng(0)
    picture = np.full((48, 48, 3), 0.6)
    picture[:, :24] = 0.7
    detail = np.where(np.arange(48) % 2, 0.01, -0.01)[:, None, None]
    target = np.full((500, 3), 0.3) + rng.normal(0, 0.03, (500, 3))

    out = transfer_colours(picture + detail, target, rng)

    assert abs(float(out.mean()) - 0.3) < 0.02
    stripes = (out[1::2] - out[::2]).mean()
    assert 0.01 < stripes < 0.03, "a crease of 0.02 is still a crease"
    assert out.min() >= 0 and out.max() <= 1


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (np.zeros((0, 3)), np.zeros((4, 3))),
        (np.zeros((4, 3)), np.zeros((0, 3))),
        (np.zeros((4, 3)), np.zeros((4, 2))),
        (np.zeros(4), np.zeros((4, 3))),
        (np.full((4, 3), np.nan), np.zeros((4, 3))),
        (np.zeros((4, 3)), np.full((4, 3), np.inf)),
    ],
)
def test_wrong_points_are_refused(source, target):
    with pytest.raises(ValueError, match=r"must be"):
        sliced_transport(source, target, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps=0 must be at least 1"),
        ({"directions": 0}, "directions=0 must be at least 1"),
        ({"smoothing_space": 0}, "smoothing_space=0 must be above 0"),
        ({"smoothing_value": -1}, "smoothing_value=-1 must be above 0"),
        ({"smoothing_value": float("nan")}, "smoothing_value=nan must be above 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        TransferConfig(**settings)
