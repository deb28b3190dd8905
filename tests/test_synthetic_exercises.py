"""Exercises: performances that show every expression unit."""

import numpy as np
import pytest

from avface.head import load_head
from avface.head.unit_names import unit_side, unit_stem
from avface.synthetic.performance.exercises import exercise


@pytest.fixture(scope="module")
def head():
    return load_head("open")


@pytest.fixture(scope="module")
def long(head):
    return exercise(np.random.default_rng(3), head, 400.0, 10.0)


def test_every_unit_reaches_a_strong_weight_within_its_limits(head, long):
    weights = long.expression
    assert weights.min() >= 0 and weights.max() <= 1
    reached = dict(zip(head.expression_names, weights.max(0), strict=True))
    assert min(value for name, value in reached.items() if not name.startswith("eyeLook")) > 0.5


def test_movements_are_also_of_one_side_and_of_one_unit_alone(head, long):
    weights = dict(zip(head.expression_names, long.expression.T, strict=True))
    sided = [name for name in weights if unit_side(name) == "Left" and not name.startswith("eye")]
    differences = [np.abs(weights[name] - weights[f"{unit_stem(name)}Right"]).max() for name in sided]
    assert min(differences) > 0.2
    mouth = {name: curve for name, curve in weights.items() if name.startswith(("mouth", "jaw", "cheekP"))}
    stems = {unit_stem(name) for name in mouth}
    active = np.stack(
        [next(mouth[n] for n in mouth if unit_stem(n) == stem) > 0.15 for stem in sorted(stems)]
    )
    assert (active.sum(0) == 1).mean() > 0.2


def test_antagonists_exclude_each_other_and_lips_close_no_further_than_the_jaw_is_open(head, long):
    weights = dict(zip(head.expression_names, long.expression.T, strict=True))
    for side in ("Left", "Right"):
        assert np.minimum(weights[f"mouthSmile{side}"], weights[f"mouthFrown{side}"]).max() < 1e-6
    assert (weights["mouthClose"] <= weights["jawOpen"] + 1e-6).all()


def test_a_state_of_the_generator_gives_one_performance(head):
    one, same, other = (exercise(np.random.default_rng(seed), head, 4.0) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.expression, same.expression)
    assert not np.array_equal(one.expression, other.expression)
    assert len(one) == 100 and one.kind == "silence" and not one.sound.any()


def test_less_than_a_frame_is_refused(head):
    with pytest.raises(ValueError, match="less than one frame"):
        exercise(np.random.default_rng(0), head, 0.01)
