"""Figures of curves against true ones."""

import json

import numpy as np
import pytest

from avface.evaluation.metrics import CurveFigures

NAMES = ("jawOpen", "mouthSmileLeft", "mouthSmileRight", "browInnerUp", "eyeBlinkLeft", "eyeLookUpLeft")


def true_curves(frames=80):
    times = np.linspace(0, 4, frames)
    curves = np.zeros((frames, len(NAMES)))
    curves[:, 0] = 0.4 + 0.3 * np.sin(3 * times)
    curves[:, 1] = curves[:, 2] = 0.5 * (times > 2)
    curves[:, 5] = np.abs(np.sin(times))
    return curves


def figures(found, true=None):
    result = CurveFigures()
    result.add(NAMES, found, true_curves() if true is None else true)
    return result


def test_true_curves_are_perfect():
    result = figures(true_curves())
    assert set(result.units) == {"jawOpen", "mouthSmileLeft", "mouthSmileRight"}, "gaze is left out"
    assert (result.correlation, result.gain) == (pytest.approx(1), pytest.approx(1))
    assert (result.false_activity, result.dominant) == (0, 1)


def test_half_as_lively_curves_have_half_the_gain_and_the_same_correlation():
    result = figures(0.5 * true_curves() + 0.1)
    assert (result.correlation, result.gain) == (pytest.approx(1), pytest.approx(0.5))


def test_still_units_that_move_are_counted():
    found = true_curves()
    found[40, NAMES.index("browInnerUp")] = 0.2
    result = figures(found)
    assert result.false_activity == 0.5, "of brow and blink, the brow"
    found[40, NAMES.index("browInnerUp")] = 0.14
    assert figures(found).false_activity == 0


def test_the_strongest_pair_must_be_among_the_three_strongest():
    names = ("jawOpen", "mouthPucker", "browInnerUp", "cheekPuff", "mouthFunnel")
    true = np.zeros((2, 5))
    true[:, 0] = 0.5
    found = np.tile([0.1, 0.2, 0.3, 0.0, 0.0], (2, 1))
    found[1, 3] = 0.4
    result = CurveFigures()
    result.add(names, found, true)
    assert result.hits == [True, False]


def test_the_halves_of_a_unit_count_as_one_and_weak_frames_not_at_all():
    names = ("mouthSmileLeft", "mouthSmileRight", "jawLeft", "jawRight", "browInnerUp", "mouthPucker")
    true = np.array([[0.6, 0.2, 0, 0, 0, 0], [0.3, 0.3, 0, 0, 0, 0]])
    found = np.array([[0.6, 0.0, 0.5, 0.4, 0.2, 0.1]] * 2)
    result = CurveFigures()
    result.add(names, found, true)
    assert result.hits == [True], (
        "0.3 on the mean of both halves; jawLeft and jawRight are units of their own"
    )


def test_figures_without_clips_are_undefined_and_null_in_json():
    facts = CurveFigures().facts()
    assert facts["median_r"] is None and facts["still_units_active"] is None
    json.dumps(facts, allow_nan=False)


def test_a_constant_curve_has_no_correlation():
    result = figures(np.zeros_like(true_curves()))
    assert (result.correlation, result.gain) == (0, 0)


def test_curves_of_other_shapes_are_refused():
    with pytest.raises(ValueError, match="must agree"):
        figures(true_curves()[:-1])
