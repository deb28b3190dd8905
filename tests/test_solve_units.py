"""Expression weights read off the picture, beside landmarks."""

from dataclasses import replace

import numpy as np
import pytest
from solve_clips import QUICK, SIZE, head_without_tracker_errors, truth

from avface.solve import Prediction, Solver

FRAMES = 10


@pytest.fixture(scope="module")
def head():
    return head_without_tracker_errors()


@pytest.fixture(scope="module")
def clip(head):
    return truth(head, FRAMES, expression={"jawOpen": np.full(FRAMES, 0.2)})


def fit(head, clip, weights=None, sigma=0.05, visibility=None):
    """Expression (T, E) by name of a fit in which weights of some units are read with a standard deviation."""
    units = None
    if weights is not None:
        read = np.zeros((FRAMES, head.num_expression))
        spread = np.full(read.shape, np.inf)
        for name, value in weights.items():
            column = head.expression_names.index(name)
            read[:, column], spread[:, column] = value, sigma
        units = Prediction(read, spread)
    observations = replace(clip.observations(), units=units, visibility=visibility)
    found = Solver(head, SIZE, QUICK).fit(observations).expression
    return dict(zip(head.expression_names, found.T, strict=True))


def test_what_landmarks_do_not_show_is_taken_from_the_picture(head, clip):
    assert fit(head, clip)["tongueOut"].max() < 0.05, "it moves no landmark"
    assert fit(head, clip, {"tongueOut": 0.7})["tongueOut"].min() > 0.5


def test_the_less_certain_the_less_it_counts(head, clip):
    curves = [
        fit(head, clip, {"browInnerUp": 0.6}, sigma)["browInnerUp"].mean() for sigma in (0.01, 0.05, 5.0)
    ]
    assert curves[0] > curves[1] > curves[2]
    assert curves[2] < 0.1, "the landmarks show brows at rest"


def test_units_of_what_is_occluded_are_not_read(head, clip):
    seen = np.ones((FRAMES, 478))
    mouth = (
        np.linalg.norm(
            head.embedding("mediapipe478").on(head.expression_basis.numpy())[
                head.expression_names.index("mouthPucker")
            ],
            axis=-1,
        )
        > 1e-4
    )
    seen[:, mouth] = 0
    weights = {"mouthPucker": 0.8}
    hidden, shown = (fit(head, clip, weights, 0.02, each)["mouthPucker"].mean() for each in (seen, None))
    assert shown > 0.3 and hidden < 0.1


@pytest.mark.parametrize(
    ("weights", "sigma", "message"),
    [
        (np.zeros((3, 52)), np.ones((3, 52)), "expected"),
        (np.full((FRAMES, 52), np.nan), np.ones((FRAMES, 52)), "finite"),
        (np.zeros((FRAMES, 52)), np.zeros((FRAMES, 52)), "above 0"),
    ],
)
def test_units_that_cannot_be_are_refused(head, clip, weights, sigma, message):
    observations = replace(clip.observations(), units=Prediction(weights, sigma))
    with pytest.raises(ValueError, match=message):
        Solver(head, SIZE, QUICK).fit(observations)
