"""Captures at other times: interpolated motion, shots that stay apart, values of the nearest frame."""

from dataclasses import replace

import numpy as np
import pytest
from captures import moving_capture
from lip_captures import lip_capture
from scipy.spatial.transform import Rotation, Slerp

from avface.capture.resampling import at_constant_rate, at_times, constant_rate_times, slerp
from avface.errors import AvfaceError


def test_the_times_of_the_frames_give_the_capture_back():
    capture = lip_capture(8)
    again = at_times(capture, capture.times + 2e-7)
    for name in ("expression", "rotation", "translation", "joints", "confidence"):
        np.testing.assert_array_equal(getattr(again, name), getattr(capture, name))
    np.testing.assert_array_equal(again.lips.weights, capture.lips.weights)


def test_half_way_between_two_frames_everything_is_half_way():
    capture = lip_capture(8)
    again = at_times(capture, (capture.times[1:] + capture.times[:-1]) / 2)
    for one, other in ((again, capture), (again.lips, capture.lips)):
        for name in ("weights",) if one is again.lips else ("expression", "translation"):
            values = getattr(other, name)
            np.testing.assert_allclose(getattr(one, name), (values[1:] + values[:-1]) / 2, atol=1e-6)
    key_times, rotations = capture.times, Rotation.from_rotvec(capture.rotation)
    truth = Slerp(key_times, rotations)(again.times)
    assert (truth.inv() * Rotation.from_rotvec(again.rotation)).magnitude().max() < 1e-5
    assert np.abs(np.diff(again.rotation, axis=0)).max() < 1, "vectors stay continuous at a length of pi"


@pytest.mark.parametrize("seed", range(4))
def test_slerp_agrees_with_scipy_and_keeps_whole_turns(seed):
    rng = np.random.default_rng(seed)
    start = rng.normal(0, 3, (20, 3))
    end = (Rotation.from_rotvec(start) * Rotation.from_rotvec(rng.normal(0, 0.5, (20, 3)))).as_rotvec()
    share = rng.uniform(0, 1, 20)
    found = slerp(start, end, share)
    for row in range(20):
        truth = Slerp([0, 1], Rotation.from_rotvec([start[row], end[row]]))(share[row])
        assert (truth.inv() * Rotation.from_rotvec(found[row])).magnitude() < 1e-9
    # of all vectors of the rotation, whole turns apart, this one is the nearest to the start
    direction = found / np.linalg.norm(found, axis=1, keepdims=True)
    for turn in (-2 * np.pi, 2 * np.pi):
        further = np.linalg.norm(found + turn * direction - start, axis=1)
        assert (np.linalg.norm(found - start, axis=1) <= further + 1e-9).all()


def test_slerp_from_rest_and_at_the_ends_is_exact():
    end = np.array([[0.0, 0.4, 0.0]])
    np.testing.assert_allclose(slerp(np.zeros((1, 3)), end, np.array([0.25])), [[0, 0.1, 0]], atol=1e-12)
    np.testing.assert_array_equal(slerp(np.zeros((1, 3)), end, np.array([0.0])), np.zeros((1, 3)))
    np.testing.assert_array_equal(
        slerp(np.zeros((1, 3)), np.zeros((1, 3)), np.array([0.5])), np.zeros((1, 3))
    )


def test_confidence_is_that_of_the_nearest_frame():
    capture = moving_capture(4)
    confidence = np.array([1, 0, 0.5, 0.25], np.float32)
    again = at_times(replace(capture, confidence=confidence), np.array([0, 0.019, 0.021, 0.05, 0.07, 0.12]))
    np.testing.assert_array_equal(again.confidence, confidence[[0, 0, 1, 1, 2, 3]])


def test_nothing_is_interpolated_across_a_cut():
    capture = replace(
        moving_capture(6), segment_starts=np.array([0, 3]), segment_same_person=np.array([True, False])
    )
    again = at_times(capture, np.array([0.06, 0.09, 0.11, 0.12, 0.13, 0.3]))
    expected = [(capture.expression[1] + capture.expression[2]) / 2, *capture.expression[[2, 2, 3]]]
    np.testing.assert_allclose(again.expression[:4], expected, atol=1e-6)
    np.testing.assert_array_equal(again.expression[5], capture.expression[5])
    assert again.segment_starts.tolist() == [0, 3] and again.segment_same_person.tolist() == [True, False]


def test_a_shot_that_falls_between_two_new_frames_is_left_out():
    capture = replace(
        moving_capture(6),
        segment_starts=np.array([0, 2, 3]),
        segment_same_person=np.array([True, False, True]),
    )
    again = at_times(capture, np.array([0.0, 0.07, 0.13]))
    assert again.segment_starts.tolist() == [0, 2] and again.segment_same_person.all()


@pytest.mark.parametrize(
    ("times", "rate", "expected"),
    [
        (np.arange(5) / 25, 25, np.arange(5) / 25),
        (np.arange(3) / 25, 50, np.arange(5) / 50),
        (np.arange(3) / 25, 60, np.arange(6) / 60),  # 0.08 s lies between rows 4 and 5
        (np.array([0.5, 0.54]), 25, np.array([0.5, 0.54])),
        (np.array([0.0]), 60, np.array([0.0])),
        (np.zeros(0), 60, np.zeros(0)),
    ],
)
def test_a_constant_rate_starts_with_the_first_frame_and_reaches_the_last(times, rate, expected):
    np.testing.assert_allclose(constant_rate_times(times, rate), expected, atol=1e-12)


def test_a_capture_without_frames_stays_so():
    assert len(at_constant_rate(moving_capture(3).select(slice(0, 0)), 60)) == 0


@pytest.mark.parametrize("rate", [0, -1, 1001, float("nan"), float("inf"), True])
def test_a_rate_that_cannot_work_is_refused(rate):
    with pytest.raises(
        AvfaceError, match=rf"frame rate {rate} must be a number of frames per second from 1 to 1000"
    ):
        at_constant_rate(moving_capture(3), rate)
