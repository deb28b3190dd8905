"""The nominal frame rate of frame times."""

import numpy as np
import pytest

from avface.frame_times import nominal_frame_rate


@pytest.mark.parametrize("rate", [10, 24, 25, 29.97, 30, 59.94, 60, 240])
def test_a_constant_rate_is_found_also_from_rounded_times(rate):
    times = 3 + np.arange(240) / rate

    assert nominal_frame_rate(times) == pytest.approx(rate, rel=1e-9)
    assert nominal_frame_rate(np.round(times, 3)) == pytest.approx(rate, rel=2e-3)


def test_a_pause_does_not_count():
    """The mean over the clip would be 2.9 and 23.5 frames a second."""
    times = np.arange(60) / 25

    assert nominal_frame_rate(times + 18 * (np.arange(60) >= 30)) == pytest.approx(25, rel=1e-9)
    assert nominal_frame_rate(np.delete(times, [7, 8, 30, 44])) == pytest.approx(25, rel=1e-9)


def test_of_two_rates_the_more_frequent_one_counts():
    fast, slow = np.arange(101) / 30, np.arange(51) / 24

    assert nominal_frame_rate(np.concatenate([fast, fast[-1] + slow[1:]])) == pytest.approx(30, rel=1e-6)
    assert nominal_frame_rate(np.concatenate([slow, slow[-1] + fast[1:21]])) == pytest.approx(24, rel=1e-6)


def test_jitter_averages_out():
    times = np.arange(600) / 60 + np.random.default_rng(0).normal(0, 0.001, 600)

    assert nominal_frame_rate(times) == pytest.approx(60, rel=0.01)


@pytest.mark.parametrize("times", [[], [0.5], [0.5, 0.5]])
def test_without_an_interval_there_is_no_rate(times):
    assert nominal_frame_rate(np.array(times, float)) == 0
