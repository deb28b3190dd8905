import numpy as np
import pytest

from avface.evaluation.gap_filling import carry, hold, interpolate

FRAMES, POINTS = 10, 40
VALID = np.ones(FRAMES, bool)
VALID[4:7] = False
TIMES = np.arange(FRAMES) / 25


def clip(seed=0):
    return np.random.default_rng(seed).uniform(0, 100, (FRAMES, POINTS, 2))


def moved(points, angle, scale, shift):
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return points @ turn.T + shift


def test_hold_repeats_the_last_valid_frame():
    points = clip()
    filled = hold(points, VALID)
    np.testing.assert_array_equal(filled[VALID], points[VALID])
    np.testing.assert_array_equal(filled[4:7], np.repeat(points[3:4], 3, 0))


def test_before_the_first_valid_frame_that_one_is_held():
    valid = np.arange(FRAMES) >= 3
    np.testing.assert_array_equal(hold(clip(), valid)[:3], np.repeat(clip()[3:4], 3, 0))


def test_interpolation_is_exact_on_even_motion_at_uneven_times():
    times = np.array([0, 1, 2, 3, 3.2, 4, 5.5, 6, 7, 8])
    start, speed = clip()[0], clip(1)[0]
    truth = start + times[:, None, None] * speed
    damaged = np.where(VALID[:, None, None], truth, np.nan)
    np.testing.assert_allclose(interpolate(damaged, VALID, times), truth)


def test_interpolation_stays_outside_of_the_valid_frames():
    valid = (np.arange(FRAMES) >= 2) & (np.arange(FRAMES) < 8)
    filled = interpolate(clip(), valid, TIMES)
    np.testing.assert_allclose(filled[:2], np.repeat(clip()[2:3], 2, 0))
    np.testing.assert_allclose(filled[8:], np.repeat(clip()[7:8], 2, 0))


def test_carrying_is_exact_where_the_face_moves_rigidly():
    rest = clip()[0]
    truth = np.stack([moved(rest, 0.05 * t, 1 + 0.02 * t, (3 * t, -t)) for t in range(FRAMES)])
    visible = np.zeros((FRAMES, POINTS), bool)
    visible[:, :20] = True
    tracked = truth.copy()
    tracked[4:7, 20:] += 50  # nonsense where something hides the face
    np.testing.assert_allclose(carry(tracked, VALID, visible), truth, atol=1e-9)


def test_carrying_keeps_what_is_seen_and_the_last_expression_elsewhere():
    tracked = np.repeat(clip()[:1], FRAMES, 0)
    tracked[5, 0] += (4, 0)  # a brow that is raised in the gap
    tracked[:4, 30] += (0, 7)  # a lip that was lower before it
    visible = np.zeros((FRAMES, POINTS), bool)
    visible[:, :25] = True
    filled = carry(tracked, VALID, visible)
    np.testing.assert_array_equal(filled[5, 0], tracked[5, 0])
    np.testing.assert_allclose(filled[5, 30], tracked[3, 30], atol=1)


def test_where_too_little_is_seen_the_last_motion_goes_on():
    truth = np.stack([moved(clip()[0], 0, 1, (5 * t, 0)) for t in range(FRAMES)])
    visible = np.ones((FRAMES, POINTS), bool)
    visible[5, 3:] = False
    lost = truth.copy()
    lost[6] = np.nan
    filled = carry(lost, VALID, visible)
    np.testing.assert_allclose(filled[5], truth[4], atol=1e-9)
    np.testing.assert_allclose(filled[6], truth[4], atol=1e-9)


def test_a_new_gap_starts_from_its_own_last_valid_frame():
    points = clip()
    valid = np.array([True, False, True, False, True, True, True, True, True, True])
    filled = carry(points, valid, np.zeros((FRAMES, POINTS), bool))
    np.testing.assert_array_equal(filled[[1, 3]], points[[0, 2]])


@pytest.mark.parametrize(
    "fill",
    [hold, lambda p, g: interpolate(p, g, TIMES), lambda p, g: carry(p, g, np.ones((FRAMES, POINTS), bool))],
)
def test_without_a_valid_frame_there_is_nothing_to_fill_with(fill):
    with pytest.raises(ValueError, match="no valid frame"):
        fill(clip(), np.zeros(FRAMES, bool))
