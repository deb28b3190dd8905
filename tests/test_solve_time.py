"""The solver over time: gaps, cuts, windows, uneven frames, and no lag."""

from dataclasses import replace

import numpy as np
import pytest
import roma
import torch
from solve_clips import QUICK, SIZE, head_without_tracker_errors, truth

from avface.solve import Solver
from avface.solve.motion_fit import _pose_neighbours


@pytest.fixture(scope="module")
def head():
    return head_without_tracker_errors()


def turns(rotation):
    """Angles (T - 1,) in radians from frame to frame."""
    rotation = torch.as_tensor(rotation)
    return roma.rotmat_geodesic_distance(rotation[1:], rotation[:-1]).numpy()


def jaw(head, fit):
    return fit.expression[:, head.expression_names.index("jawOpen")]


def noisy(clip, pixels=1.0, seed=0):
    return clip.landmarks + np.random.default_rng(seed).normal(0, pixels, clip.landmarks.shape)


def test_gaps_are_filled_smoothly(head):
    frames, gap = 40, slice(17, 25)
    clip = truth(head, frames, expression={"jawOpen": np.linspace(0.2, 0.6, frames)})
    landmarks = clip.landmarks.copy()
    landmarks[gap] = np.nan

    fit = Solver(head, SIZE, QUICK, focal_length=900.0).fit(clip.observations(landmarks))

    assert all(np.isfinite(value).all() for value in vars(fit).values())
    true = clip.parameters
    usual = turns(true.rotation).max()
    assert turns(fit.rotation).max() < 2 * usual, "no jump into or out of the gap"
    assert (
        np.abs(np.diff(fit.translation, axis=0)).max() < 2 * np.abs(np.diff(true.translation, axis=0)).max()
    )
    angle = roma.rotmat_geodesic_distance(torch.as_tensor(fit.rotation[gap]), true.rotation[gap])
    assert angle.max() < 0.1
    ends = jaw(head, fit)[[gap.start - 1, gap.stop]]
    assert (jaw(head, fit)[gap] > ends.min() - 0.1).all() and (jaw(head, fit)[gap] < ends.max() + 0.1).all()
    assert np.abs(np.diff(jaw(head, fit))).max() < 0.1


@pytest.mark.parametrize("count", [8, 25])
def test_a_gap_across_which_the_face_moves_far_is_crossed_evenly(head, count):
    """Neither held and then left in one jump, which a heavy-tailed motion prior takes for an outlier."""
    clip = truth(head, 24 + count, expression={"jawOpen": np.full(24 + count, 0.3)})
    landmarks, gap = clip.landmarks.copy(), slice(12, 12 + count)
    landmarks[gap.stop :] += [150, 0]
    landmarks[gap] = np.nan

    fit = Solver(head, SIZE, QUICK, focal_length=900.0).fit(clip.observations(landmarks))

    steps = np.diff(fit.translation[gap.start - 1 : gap.stop + 1, 0])
    assert steps.max() < 1.2 * steps.mean()


def test_poses_are_interpolated_between_frames_of_the_same_shot():
    times = np.arange(12) / 10
    segments = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2])
    pose_frames = np.array([0, 4, 8, 9])
    before, after, shares = _pose_neighbours(np.array([1, 5, 6, 7, 11]), pose_frames, times, segments)
    assert before.tolist() == [0, 4, 8, 8, 9] and after.tolist() == [4, 4, 8, 8, 9]
    np.testing.assert_allclose(shares, [0.25, 0, 0, 0, 0])


def test_frames_of_confidence_0_have_no_effect(head):
    clip = truth(head, 12, expression={"jawOpen": np.full(12, 0.4)})
    blank, garbage = clip.landmarks.copy(), clip.landmarks.copy()
    blank[5:8] = np.nan
    garbage[5:8] += 200
    confidence = np.ones(12)
    confidence[5:8] = 0
    solver = Solver(head, SIZE, QUICK, focal_length=900.0)

    expected = solver.fit(clip.observations(blank))
    found = solver.fit(clip.observations(garbage, confidence=confidence))

    np.testing.assert_allclose(found.expression, expected.expression, atol=0.02)
    np.testing.assert_allclose(found.translation, expected.translation, atol=0.002)


@pytest.mark.parametrize("gap", [slice(0, 6), slice(24, 30)], ids=["first", "last"])
def test_frames_without_a_face_at_either_end_stay_near_the_nearest_pose(head, gap):
    clip = truth(head, 30, turn=0.1, expression={"jawOpen": np.full(30, 0.3)})
    landmarks = clip.landmarks.copy()
    landmarks[gap] = np.nan

    fit = Solver(head, SIZE, QUICK, focal_length=900.0).fit(clip.observations(landmarks))

    angle = roma.rotmat_geodesic_distance(torch.as_tensor(fit.rotation[gap]), clip.parameters.rotation[gap])
    assert angle.max() < 0.25
    assert (
        np.linalg.norm(fit.translation[gap] - clip.parameters.translation[gap].numpy(), axis=1).max() < 0.08
    )
    assert fit.expression.min() >= 0 and fit.expression.max() <= 1
    assert turns(fit.rotation).max() < 0.1


def test_gaps_longer_than_a_window_stay_finite_and_in_place(head):
    clip = truth(head, 60, turn=0.1)
    landmarks = clip.landmarks.copy()
    landmarks[8:52] = np.nan
    config = replace(QUICK, window=12, overlap=4, windows_at_once=3)

    fit = Solver(head, SIZE, config, focal_length=900.0).fit(clip.observations(landmarks))

    assert all(np.isfinite(value).all() for value in vars(fit).values())
    assert (fit.translation[:, 2] > 0.3).all() and (fit.translation[:, 2] < 0.9).all()
    facing = torch.diag(torch.tensor([1.0, -1.0, -1.0], dtype=torch.float64)).expand(60, 3, 3)
    assert roma.rotmat_geodesic_distance(torch.as_tensor(fit.rotation), facing).max() < 0.6
    assert fit.expression.min() >= 0 and fit.expression.max() <= 1


@pytest.mark.parametrize("frequency", [pytest.param(1.0, marks=pytest.mark.slow), 3.0])
def test_the_jaw_neither_lags_nor_loses_its_swing(head, frequency):
    """3 openings a second are quick talking; landmarks jitter by a pixel on a face of some 250."""
    frames, rate = 60, 30.0
    swing = 0.35 + 0.3 * np.sin(2 * np.pi * frequency * np.arange(frames) / rate)
    clip = truth(head, frames, turn=0.15, expression={"jawOpen": swing})

    fit = Solver(head, SIZE, QUICK, focal_length=900.0).fit(clip.observations(noisy(clip)))

    found, true = jaw(head, fit) - jaw(head, fit).mean(), swing - swing.mean()
    inner = slice(8, -8)
    lags = range(-6, 7)
    match = [np.dot(np.roll(found, -lag)[inner], true[inner]) for lag in lags]
    assert lags[int(np.argmax(match))] == 0
    # between the two neighbours of the peak to a fraction of a frame
    before, peak, after = match[5:8]
    assert abs(0.5 * (before - after) / (before - 2 * peak + after)) < 0.1
    gain = np.dot(found[inner], true[inner]) / np.dot(true[inner], true[inner])
    assert 0.8 < gain < 1.15


@pytest.mark.slow
def test_landmark_noise_hardly_moves_the_head(head):
    clip = truth(head, 40, turn=0.1, expression={"jawOpen": np.full(40, 0.3)})
    observations = clip.observations(noisy(clip, pixels=1.5))

    fit = Solver(head, SIZE, QUICK, focal_length=900.0).fit(observations)
    loose = replace(QUICK.motion, rotation=1.0, translation=1.0, expression=10, lids=10, gaze=10)
    shaky = Solver(head, SIZE, replace(QUICK, motion=loose), focal_length=900.0).fit(observations)

    def jitter(values):
        return np.abs(np.diff(values, n=2, axis=0)).mean()

    assert jitter(fit.translation[:, :2]) < 0.7 * jitter(shaky.translation[:, :2])
    assert jitter(jaw(head, fit)) < 0.5 * jitter(jaw(head, shaky))


def test_a_blink_is_not_smoothed(head):
    blink = np.zeros(40)
    blink[18:23] = [0.5, 1, 1, 0.6, 0.2]
    clip = truth(head, 40, turn=0.1, expression={"eyeBlinkLeft": blink, "eyeBlinkRight": blink})

    fit = Solver(head, SIZE, QUICK, focal_length=900.0).fit(clip.observations(noisy(clip, 0.5)))

    for side in ("Left", "Right"):
        found = fit.expression[:, head.expression_names.index(f"eyeBlink{side}")]
        assert found[19:21].min() > 0.7 and found[:16].max() < 0.25 and found[26:].max() < 0.25


def test_across_a_cut_the_head_jumps_at_once(head):
    clip = truth(head, 40, turn=0.1, expression={"jawOpen": np.where(np.arange(40) < 20, 0.1, 0.7)})
    landmarks = clip.landmarks.copy()
    landmarks[20:] += [90, -40]
    segments = np.repeat([0, 1], 20)
    solver = Solver(head, SIZE, QUICK, focal_length=900.0)

    cut = solver.fit(clip.observations(landmarks, segments=segments))
    joined = solver.fit(clip.observations(landmarks))

    step = jaw(head, cut)[20] - jaw(head, cut)[19]
    assert step > 0.5 and np.abs(np.diff(jaw(head, cut)[:20])).max() < 0.1 * step
    assert jaw(head, joined)[20] - jaw(head, joined)[19] < step


def test_several_windows_agree_with_one_window(head):
    frames = 60
    time = np.arange(frames) / 30
    clip = truth(head, frames, expression={"jawOpen": 0.3 + 0.25 * np.sin(9 * time), "browInnerUp": 0.5})
    observations = clip.observations(noisy(clip))
    config = replace(QUICK, tolerance=1e-5, iterations=30)

    whole = Solver(head, SIZE, replace(config, window=60), focal_length=900.0).fit(observations)
    pieces = Solver(
        head, SIZE, replace(config, window=40, overlap=28, windows_at_once=2), focal_length=900.0
    ).fit(observations)

    np.testing.assert_array_equal(pieces.shape, whole.shape)
    assert np.abs(pieces.translation - whole.translation).max() < 2.5e-3, "depth, at half a metre"
    assert roma.rotmat_geodesic_distance(*(torch.as_tensor(f.rotation) for f in (pieces, whole))).max() < 2e-3
    assert np.abs(pieces.expression - whole.expression).max() < 0.02
    assert np.abs(pieces.gaze - whole.gaze).max() < 0.01


@pytest.mark.slow
def test_solving_windows_in_parallel_changes_nothing(head):
    clip = truth(head, 50, expression={"jawOpen": np.linspace(0, 0.8, 50)})
    observations = clip.observations(noisy(clip))
    config = replace(QUICK, window=20, overlap=8)

    one, many = (
        Solver(head, SIZE, replace(config, windows_at_once=n), focal_length=900.0).fit(observations)
        for n in (1, 4)
    )

    np.testing.assert_allclose(many.expression, one.expression, atol=1e-3)
    np.testing.assert_allclose(many.translation, one.translation, atol=1e-5)


@pytest.mark.slow
def test_uneven_frame_times_are_used(head):
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.choice([1 / 60, 1 / 30, 1 / 8], 60, p=[0.45, 0.4, 0.15]))
    times -= times[0]
    swing = 0.35 + 0.3 * np.sin(2 * np.pi * 1.0 * times)
    clip = truth(head, 60, turn=0.2, expression={"jawOpen": swing}, times=times)
    observations = clip.observations(noisy(clip, 2.0))
    solver = Solver(head, SIZE, QUICK, focal_length=900.0)

    found = solver.fit(observations)

    assert np.corrcoef(jaw(head, found), swing)[0, 1] > 0.97
    error = roma.rotmat_geodesic_distance(torch.as_tensor(found.rotation), clip.parameters.rotation)
    assert error.mean() < 0.05


def test_equal_times_are_harmless(head):
    clip = truth(head, 6)
    times = np.array([0, 0.04, 0.04, 0.04, 0.08, 0.12])

    fit = Solver(head, SIZE, QUICK, focal_length=900.0).fit(clip.observations(times=times))

    assert all(np.isfinite(value).all() for value in vars(fit).values())
