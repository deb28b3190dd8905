"""Settings of the solver that cannot work are refused by name and value."""

import re

import numpy as np
import pytest
from solve_clips import SIZE, truth

from avface.errors import AvfaceError
from avface.head import load_head
from avface.solve import ExpressionPriorConfig, MotionPriorConfig, Solver, SolverConfig


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"landmark_noise": 0.0}, "landmark_noise=0.0 must be above 0"),
        ({"jitter_factor": -1.0}, "jitter_factor=-1.0 must be 0 or more"),
        ({"independence": 0.0}, "independence=0.0 must be above 0, at most 1"),
        ({"independence": 1.1}, "independence=1.1 must be above 0, at most 1"),
        ({"tail": 0.0}, "tail=0.0 must be above 0"),
        ({"key_frames": 0}, "key_frames=0 must be 1 or more"),
        ({"effective_key_frames": 0.0}, "effective_key_frames=0.0 must be above 0"),
        ({"shape_limit": -0.1}, "shape_limit=-0.1 must be 0 or more"),
        ({"focal_prior": 0.0}, "focal_prior=0.0 must be above 0"),
        ({"focal_sigma": float("nan")}, "focal_sigma=nan must be above 0"),
        ({"prediction_sigma": -0.1}, "prediction_sigma=-0.1 must be 0 or more"),
        ({"clip_prior_seconds": 0.0}, "clip_prior_seconds=0.0 must be above 0"),
        ({"clip_prior_sigma": 0.0}, "clip_prior_sigma=0.0 must be above 0"),
        ({"window": 0, "overlap": 0}, "window=0 must be 1 or more"),
        ({"window": 16}, "overlap=32 must be 0 or more, below window=16"),
        ({"window": 32, "overlap": 32}, "overlap=32 must be 0 or more, below window=32"),
        ({"overlap": -1}, "overlap=-1 must be 0 or more, below window=128"),
        ({"windows_at_once": 0}, "windows_at_once=0 must be 1 or more"),
        ({"iterations": 0}, "iterations=0 must be 1 or more"),
        ({"tolerance": -1e-3}, "tolerance=-0.001 must be 0 or more"),
    ],
)
def test_solver_settings_that_cannot_work_are_refused(settings, message):
    with pytest.raises(AvfaceError, match=f"^{re.escape(message)}$"):
        SolverConfig(**settings)


@pytest.mark.parametrize("name", ["sparsity", "precision", "mirror", "contain"])
def test_negative_costs_of_expressions_are_refused(name):
    with pytest.raises(AvfaceError, match=f"^{name}=-1.0 must be 0 or more$"):
        ExpressionPriorConfig(**{name: -1.0})


@pytest.mark.parametrize("name", ["gaze_sigma", "vergence_sigma", "lid_sigma"])
def test_standard_deviations_of_the_gaze_of_0_are_refused(name):
    with pytest.raises(AvfaceError, match=f"^{name}=0.0 must be above 0$"):
        ExpressionPriorConfig(**{name: 0.0})


@pytest.mark.parametrize("name", ["rotation", "translation", "expression", "lids", "gaze", "drift", "tail"])
def test_standard_deviations_of_the_motion_of_0_are_refused(name):
    with pytest.raises(AvfaceError, match=f"^{name}=0 must be above 0$"):
        MotionPriorConfig(**{name: 0})


@pytest.mark.parametrize(
    "settings",
    [
        {"window": 8, "overlap": 7},
        {"window": 4, "overlap": 0},
        {"jitter_factor": 0.0, "prediction_sigma": 0.0, "tolerance": 0.0, "shape_limit": 0.0},
        {"independence": 1.0, "key_frames": 1, "windows_at_once": 1, "iterations": 1},
    ],
)
def test_extreme_settings_that_are_allowed_work(settings):
    head = load_head()
    clip = truth(head, 12, turn=0.1)
    config = SolverConfig(**{"tracker_error_prior": False, "key_frames": 4, "iterations": 3, **settings})

    fit = Solver(head, SIZE, config).fit(clip.observations())

    assert all(np.isfinite(value).all() for value in vars(fit).values())
