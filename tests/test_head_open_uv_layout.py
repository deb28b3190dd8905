"""How the open head's islands of texture coordinates are cut and packed."""

import numpy as np
import pytest

from avface.head.open.uv_layout import _boxes, _magnify, _unfolded, _wide_eyed


def areas(uv, quads):
    corners = uv[quads]
    first, second = corners[:, 2] - corners[:, 0], corners[:, 3] - corners[:, 1]
    return (first[:, 0] * second[:, 1] - first[:, 1] * second[:, 0]) / 2


def test_an_island_that_folds_back_is_cut_at_the_fold_and_turned():
    uv = np.array([[0, 0], [1, 0], [0.3, 0], [0, 1], [1, 1], [0.3, 1.0]])
    quads = np.array([[0, 1, 4, 3], [1, 2, 5, 4]])
    points, cut, island = _unfolded(uv, quads)

    assert island[0] != island[1] and not set(cut[0]) & set(cut[1])
    np.testing.assert_allclose(areas(points, cut), [1, 0.7])


def test_islands_without_folds_stay_whole():
    uv = np.array([[0, 0], [1, 0], [2, 0], [0, 1], [1, 1], [2, 1.0]])
    quads = np.array([[0, 1, 4, 3], [1, 2, 5, 4]])
    points, cut, island = _unfolded(uv, quads)

    assert island[0] == island[1]
    np.testing.assert_array_equal(points[cut], uv[quads])


@pytest.mark.parametrize("seed", range(5))
def test_boxes_keep_their_proportions_and_do_not_overlap(seed):
    sizes = np.random.default_rng(seed).uniform(0.2, 1, 1 + 4 * seed)
    boxes = _boxes(sizes)
    sides = np.array([side for _, side in boxes])

    np.testing.assert_allclose(sides / sizes, sides[0] / sizes[0])
    assert (sides**2).sum() > 0.45
    for k, (low, side) in enumerate(boxes):
        assert (low >= 0).all() and (low + side <= 1 + 1e-6).all()
        for other, length in boxes[:k]:
            assert (low + side <= other + 1e-6).any() or (other + length <= low + 1e-6).any()


def test_magnification_is_a_monotone_map_of_the_unit_interval():
    values = np.linspace(0, 1, 101)
    mapped = _magnify(values, 0.4)

    assert mapped[0] == 0 and mapped[-1] == 1
    step = np.diff(mapped)
    assert step.min() > 0 and 2 < step[40] / step[-1] < 2.4


def test_the_iris_gets_more_of_the_eyeball():
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    ring = np.stack([np.cos(turn), np.sin(turn)], 1)
    centre = np.array([0.3, -0.2])
    spread = _wide_eyed(centre + np.concatenate([0.16 * ring, ring, [[0.0, 0.0]]]), centre)
    radius = np.linalg.norm(spread, axis=1)

    np.testing.assert_allclose(radius[:12], 0.4 * radius[12])
    assert radius[-1] == 0
