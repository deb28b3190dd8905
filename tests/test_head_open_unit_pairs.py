import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.head.open.pairs import (
    ACROSS,
    LOWER_LIP,
    SATURATING,
    SINGLE,
    TOUCHING,
    ContactConfig,
    saturation,
)


def _together(first, second):
    return first + second + saturation(first, second)


def test_pulls_the_same_way_add_up_as_the_root_of_their_squares():
    first, second = np.array([[0.003, 0, 0]]), np.array([[0.004, 0, 0]])

    np.testing.assert_allclose(_together(first, second), [[0.005, 0, 0]])
    np.testing.assert_array_equal(saturation(first, 0 * second), 0)


def test_pulls_across_or_against_each_other_are_left_as_they_are():
    first = np.array([[0.003, 0, 0], [0.003, 0, 0], [0, 0, 0]])
    second = np.array([[0, 0.004, 0], [-0.004, 0.001, 0], [0, 0, 0]])

    np.testing.assert_allclose(saturation(first, second), 0, atol=1e-12)


def test_together_two_units_move_no_less_than_either_and_no_more_than_their_sum():
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 500, 3))
    size = np.linalg.norm(_together(first, second), axis=1)

    total = np.linalg.norm(first + second, axis=1)
    same_way = (first * second).sum(1) > 0
    larger = np.maximum(np.linalg.norm(first, axis=1), np.linalg.norm(second, axis=1))
    assert (size <= total + 1e-12).all()
    assert (size >= np.where(same_way, larger, 0) - 1e-12).all()


def test_no_pair_is_listed_twice():
    pairs = [frozenset((f"{a}{side}", f"{b}{side}")) for a, b in SATURATING for side in ("Left", "Right")]
    pairs += [frozenset((f"{unit}Left", f"{unit}Right")) for unit in ACROSS]
    pairs += [frozenset(pair) for pair in SINGLE]
    pairs += [frozenset(("jawOpen", unit)) for unit in (*LOWER_LIP, "mouthRollUpper")]
    assert len(set(pairs)) == len(pairs)
    touching = [pair for group in TOUCHING for pair in group]
    assert len(set(touching)) == len(touching)
    # with the names in another order a pair would be a second corrective of the same weight
    assert not {pair[::-1] for pair in touching} & set(SINGLE)


@pytest.mark.parametrize(
    "values", [{"touch": 0.0}, {"rounds": 0}, {"directions": 0}, {"people": -1}, {"seed": -1}]
)
def test_impossible_contacts_are_refused(values):
    with pytest.raises(AvfaceError, match=next(iter(values))):
        ContactConfig(**values)
