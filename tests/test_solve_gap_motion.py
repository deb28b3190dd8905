"""The motion of an unseen head is that which fills made gaps of the clip's own seen frames best."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avface.solve.gap_motion import DRIFTS, LEAST_MARGIN, USUAL_DRIFT, fill_gap, gap_drifts

POINTS = np.random.default_rng(3).uniform(-60, 60, (48, 2))


def clip(path, gaps=((100, 112),), cuts=()):
    """Fit data of a face of 48 points that moves along a path (T, 2) in pixels; unseen in gaps, cut at frames."""
    frames = len(path)
    landmarks = path[:, None] + POINTS
    seen = np.ones(frames, bool)
    for start, end in gaps:
        seen[start:end] = False
        landmarks[start:end] = np.nan
    observations = SimpleNamespace(
        times=np.arange(frames) / 25,
        segments=np.searchsorted(np.array(cuts), np.arange(frames), side="right"),
    )
    return SimpleNamespace(
        observations=observations,
        pose_frames=np.flatnonzero(seen),
        landmarks=lambda numbers: torch.from_numpy(landmarks[numbers]),
    )


def swaying(frames=200, seconds=2.5):
    turn = 2 * np.pi * np.arange(frames) / 25 / seconds
    return 200 + 40 * np.stack([np.sin(turn), np.cos(turn)], 1)


def wandering(frames=200, seed=0):
    """A path whose steps don't depend on those before."""
    return 200 + np.random.default_rng(seed).normal(0, 3, (frames, 2)).cumsum(0)


def test_a_head_that_sways_goes_on_with_its_velocity_and_one_that_wanders_does_not():
    assert np.nanmax(gap_drifts(clip(swaying()))) == max(DRIFTS)
    assert np.nanmax(gap_drifts(clip(wandering()))) == min(DRIFTS)


def test_only_steps_into_in_and_out_of_a_gap_have_a_drift():
    drifts = gap_drifts(clip(swaying(), gaps=((100, 112), (150, 151), (198, 200))))
    known = np.flatnonzero(np.isfinite(drifts)).tolist()
    assert known == [*range(99, 112), 149, 150, 197, 198]
    assert np.isnan(gap_drifts(clip(swaying(), gaps=()))).all()


def test_too_few_seen_frames_leave_the_usual_drift():
    assert np.nanmax(gap_drifts(clip(swaying(40), gaps=((12, 30),)))) == USUAL_DRIFT


def test_no_trial_crosses_a_cut():
    # between the cuts is room for none
    cuts = tuple(range(20, 200, 20))
    assert np.nanmax(gap_drifts(clip(wandering(), gaps=((101, 113),), cuts=cuts))) == min(DRIFTS)
    cuts = tuple(range(0, 200, 12 + 2 * LEAST_MARGIN - 1))
    assert np.nanmax(gap_drifts(clip(wandering(), gaps=((101, 113),), cuts=cuts))) == USUAL_DRIFT


@pytest.mark.parametrize("at", [4, 10])
def test_uniform_motion_fills_a_gap_exactly_with_little_pull_towards_a_line_or_much(at):
    line = np.arange(30.0)[:, None] * [1.0, -2.0]
    gap = slice(at, at + 12)
    known = line.copy()
    known[gap] = 0  # what is there isn't read
    for filled in fill_gap(known, gap)[-2:]:
        np.testing.assert_allclose(filled, line[gap], atol=0.2)


def test_the_first_drift_makes_lines_and_the_last_goes_on_with_the_velocity():
    path = np.concatenate([np.arange(-15.0, 0.0), np.zeros(12), np.arange(0.0, -15.0, -1.0)])[:, None]
    least, *_, most = fill_gap(path, slice(15, 27))
    assert most.max() > 2 > 1 > least.max()
