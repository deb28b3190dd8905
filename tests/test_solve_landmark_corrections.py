"""Landmark corrections in the fit of the shape."""

from dataclasses import replace

import numpy as np
import pytest
from solve_clips import QUICK, SIZE, truth

from avface.head import load_head
from avface.solve import LandmarkCorrections, Solver, SolverConfig

NOSE = 4


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def clip(head):
    return truth(head, 8, turn=0.2)


@pytest.fixture(scope="module")
def solver(head):
    return Solver(head, SIZE, QUICK, focal_length=900.0)


def nose_corrections(clip, offset, weights=1.0):
    """Corrections of all frames that move the tip of the nose by `offset` (2,) pixels."""
    offsets = np.zeros_like(clip.landmarks)
    offsets[:, NOSE] = offset
    return LandmarkCorrections(np.arange(8), offsets, np.full(clip.landmarks.shape[:2], weights))


def neutral(solver, clip, corrections):
    return solver.observe_neutral(clip.observations(corrections=corrections)).displacement


def test_a_correction_moves_the_observed_landmark_in_millimetres(solver, clip):
    before = neutral(solver, clip, None)
    moved = neutral(solver, clip, nose_corrections(clip, (0.0, 9.0))) - before
    # 9 pixels down at 900 pixels' focal length and about 0.45 m
    assert -5.0 < moved[NOSE, 1] < -4.0 and abs(moved[NOSE, 0]) < 1.0
    others = np.arange(478) != NOSE
    np.testing.assert_allclose(moved[others], 0, atol=1e-9)


def test_corrections_of_weight_0_have_no_effect(solver, clip):
    before = neutral(solver, clip, None)
    np.testing.assert_array_equal(
        neutral(solver, clip, nose_corrections(clip, (0.0, 9.0), weights=0.0)), before
    )
    nothing = LandmarkCorrections(np.zeros(0, int), np.zeros((0, 478, 2)), np.zeros((0, 478)))
    np.testing.assert_array_equal(neutral(solver, clip, nothing), before)


def test_corrections_of_occluded_frames_are_left_out(head, clip):
    solver = Solver(head, SIZE, replace(QUICK, key_frames=4), focal_length=900.0)
    corrections = nose_corrections(clip, (0.0, 9.0))
    corrections.offsets[:4] = 300  # wrong, in frames of which half the face is occluded
    visibility = np.ones(clip.landmarks.shape[:2])
    visibility[:4, :240] = 0
    seen = solver.observe_neutral(
        clip.observations(corrections=corrections, visibility=visibility)
    ).displacement
    rows = nose_corrections(clip, (0.0, 9.0)).among(np.arange(4, 8))
    few = solver.observe_neutral(clip.observations(corrections=rows, visibility=visibility)).displacement
    np.testing.assert_allclose(seen, few, atol=1e-9)


def test_corrections_are_averaged_by_their_weights(solver, clip):
    half = nose_corrections(clip, (0.0, 9.0))
    half.offsets[::2] = 0
    weights = half.weights.copy()
    weights[::2] = 0
    alone = neutral(solver, clip, replace(half, weights=weights))
    both = neutral(solver, clip, nose_corrections(clip, (0.0, 9.0)))
    np.testing.assert_allclose(alone[NOSE], both[NOSE], atol=0.4)


def test_corrections_change_the_fitted_shape(head, clip):
    config = SolverConfig(key_frames=8)
    wider = clip.landmarks * 0
    wider[..., 0] = 0.05 * (clip.landmarks[..., 0] - clip.landmarks[..., 0].mean(1, keepdims=True))
    weights = np.ones(clip.landmarks.shape[:2])
    widths = []
    for offsets in (-wider, wider):
        corrections = LandmarkCorrections(np.arange(8), offsets, weights)
        fit = Solver(head, SIZE, config, focal_length=900.0).fit(clip.observations(corrections=corrections))
        moved = np.tensordot(fit.shape, head.shape_basis.double().numpy(), 1)[head.regions["face"]]
        rest = head.template.double().numpy()[head.regions["face"]]
        widths.append(np.ptp((rest + moved)[:, 0]) / np.ptp((rest + moved)[:, 1]))
    assert widths[1] > 1.02 * widths[0]
