import numpy as np
import pytest

from avface.evaluation.metrics import (
    auc,
    jitter,
    lag,
    lip_vertex_error,
    nme,
    vertex_error_mm,
)
from avface.head.measures import box_size
from avface.head.schemes import LIPS

CORNERS = np.array([[10.0, 20.0], [110.0, 20.0], [10.0, 420.0], [110.0, 420.0]])  # 100 by 400: size 200


def faces(frames=5, marks=478):
    points = np.random.default_rng(1).uniform([10, 20], [110, 420], (frames, marks, 2))
    points[:, :4] = CORNERS
    return points


def test_a_shift_of_five_pixels_on_a_face_of_two_hundred_is_two_and_a_half_per_cent():
    reference = faces()
    np.testing.assert_allclose(nme(np.add(reference, (3, -4)), reference), 2.5)


def test_the_error_is_normalised_by_the_reference_and_not_by_the_prediction():
    reference = faces()
    wide = reference * (2, 1)
    assert nme(wide, reference)[0] != pytest.approx(nme(reference, wide)[0])


def test_lips_are_measured_in_the_unit_of_the_whole_face():
    reference = faces()
    predicted = reference.copy()
    predicted[:, LIPS] += (6, 8)
    np.testing.assert_allclose(nme(predicted[:, LIPS], reference[:, LIPS], reference), 5.0)
    np.testing.assert_allclose(nme(predicted, reference), 5.0 * len(LIPS) / 478)


def test_a_frame_that_was_not_seen_has_no_error_and_leaves_the_others_alone():
    reference = faces()
    reference[2] = np.nan
    np.testing.assert_allclose(nme(faces() + 1, reference), np.where(np.arange(5) == 2, np.nan, 50**0.5 / 10))


def test_errors_of_different_faces_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        nme(faces(5), faces(4))
    with pytest.raises(ValueError, match="box_of has 4"):
        nme(faces(5), faces(5), faces(4))


def test_the_area_is_that_under_the_curve_of_cumulative_errors():
    errors = np.random.default_rng(0).gamma(2, 2.0, 400)
    x = np.linspace(0, 7, 20_001)
    curve = (errors[:, None] <= x).mean(0)
    assert auc(errors, 7) == pytest.approx(curve.mean(), abs=1e-4)


def test_the_area_is_one_minus_the_mean_error_unless_errors_pass_the_threshold():
    assert auc(np.array([1.0, 2.0, 3.0]), 10) == pytest.approx(0.8)
    beyond = np.array([1.0, 2.0, 30.0])
    assert auc(beyond, 10) == pytest.approx(1 - 13 / 30)
    assert auc(beyond, 10) > 1 - beyond.mean() / 10
    assert auc(np.array([100.0]), 10) == 0 and auc(np.zeros(3), 10) == 1
    assert auc(np.array([1.0, np.nan]), 10) == pytest.approx(0.9)
    assert np.isnan(auc(np.array([np.nan]), 10))
    with pytest.raises(ValueError, match="threshold"):
        auc(beyond, 0)


def test_a_face_that_rests_or_moves_evenly_has_no_jitter():
    still = np.repeat(faces(1), 8, 0)
    assert jitter(still, box_size(still)) == 0
    moving = still + np.arange(8)[:, None, None] * (3.0, -2.0)
    assert jitter(moving, box_size(moving)) == pytest.approx(0, abs=1e-9)


def test_a_face_that_trembles_by_one_pixel_has_a_second_difference_of_four():
    still = np.repeat(faces(1), 8, 0)
    trembling = still + np.where(np.arange(8) % 2, 1.0, -1.0)[:, None, None] * (1, 0)
    assert jitter(trembling, box_size(still)) == pytest.approx(100 * 4 / 200)


def test_jitter_leaves_out_unseen_frames_and_steps_over_cuts():
    points = np.repeat(faces(1), 12, 0)
    size = box_size(points)
    points[6:] += 50
    assert jitter(points, size) > 1
    assert jitter(points, size, cuts=[6]) == 0
    points[5] = np.nan
    assert jitter(points, size, cuts=[6]) == 0
    points[9, :, 0] += 1  # second differences of 1, 2 and 1 pixels in 3 of the 3 + 4 triples left
    assert jitter(points, size, cuts=[6]) == pytest.approx(100 * (1 + 2 + 1) / 200 / 7)
    assert np.isnan(jitter(points[:2], size[:2]))
    assert np.isnan(jitter(points[4:7], size[4:7]))


@pytest.mark.parametrize("shift", [0, 3, -4])
def test_a_curve_that_comes_later_lags_by_as_many_frames(shift):
    time = np.arange(60)
    curve = lambda t: np.sin(t / 5.3) + 0.4 * np.sin(t / 1.7)  # noqa: E731
    delay, r = lag(2 * curve(time - shift) + 7, curve(time), max_lag=8)
    assert delay == shift
    assert r == pytest.approx(1)


def test_gaps_do_not_hide_a_lag():
    curve = np.sin(np.arange(60) / 5)
    late = np.roll(curve, 2)
    late[20:30] = np.nan
    curve[40:44] = np.nan
    assert lag(late, curve, 6)[0] == 2


def test_opposite_curves_are_told_by_their_correlation():
    curve = np.sin(np.arange(40) / 9)
    assert lag(-curve, curve, 0) == (0, pytest.approx(-1))


def test_a_mouth_that_never_moves_has_no_lag():
    delay, r = lag(np.ones(30), np.sin(np.arange(30)), 5)
    assert delay == 0 and np.isnan(r)


def test_lags_that_leave_nothing_to_compare_are_refused():
    with pytest.raises(ValueError, match="max_lag"):
        lag(np.zeros(10), np.zeros(10), 8)
    with pytest.raises(ValueError, match="shapes"):
        lag(np.zeros(10), np.zeros(9), 2)


def cloud(count=40):
    return np.random.default_rng(5).normal(0, 0.05, (count, 3))


def test_vertices_off_by_a_millimetre_and_a_half_are_off_by_that_unless_aligned():
    truth = np.stack([cloud()] * 3)
    predicted = np.add(truth, (0.0015, 0, 0))
    np.testing.assert_allclose(vertex_error_mm(predicted, truth, align=None), 1.5)
    np.testing.assert_allclose(vertex_error_mm(predicted, truth), 0, atol=1e-9)
    larger = 1.02 * predicted
    assert vertex_error_mm(larger, truth).mean() > 1
    np.testing.assert_allclose(vertex_error_mm(larger, truth, align="similarity"), 0, atol=1e-9)


def test_only_the_chosen_vertices_are_measured_and_aligned():
    truth = np.stack([cloud()] * 2)
    chosen = np.arange(40) >= 10
    predicted = truth.copy()
    predicted[:, :10] += 1
    errors = vertex_error_mm(predicted, truth, chosen)
    assert errors.shape == (2, 30)
    np.testing.assert_allclose(errors, 0, atol=1e-9)


def test_vertices_that_do_not_match_are_refused():
    truth = np.stack([cloud()] * 2)
    with pytest.raises(ValueError, match="must both"):
        vertex_error_mm(truth[:1], truth)
    with pytest.raises(ValueError, match="align="):
        vertex_error_mm(truth, truth, align="affine")


def test_the_lips_error_is_the_worst_vertex_of_each_frame_in_plain_millimetres():
    truth = np.zeros((2, 10, 3))
    lips = np.arange(10) < 4
    predicted = truth.copy()
    predicted[0, 1] = (0.003, 0, 0.004)
    predicted[0, 2] = (0.001, 0, 0)
    predicted[1, 0] = (0, 0.001, 0)
    predicted[1, 9] = 1  # no lip
    assert lip_vertex_error(predicted, truth, lips) == pytest.approx((5 + 1) / 2)
