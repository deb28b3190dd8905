"""The expression of an occluded mouth is adapted to the frames of the clip that show it."""

import numpy as np
import pytest

from avface.head import load_head
from avface.head.schemes import LIPS
from avface.networks.coarse.inference import ClipPrediction
from avface.networks.fusion.clip_adaptation import adapt_to_clip, lip_visibility, occluded_visibility
from avface.tracking import FaceTrack, Segment

NAMES = load_head().expression_names
JAW, BROW = NAMES.index("jawOpen"), NAMES.index("browInnerUp")
MOTION = load_head().embedding("mediapipe478").on(load_head().expression_basis.numpy())
FRAMES = 200
OCCLUDED = slice(120, 160)
TIMES = np.arange(FRAMES) / 25


def prediction(expression, opening=None, closure=None):
    return ClipPrediction(
        expression=expression.astype(np.float32),
        expression_sigma=np.full((FRAMES, len(NAMES)), 0.2, np.float32),
        rotation=np.tile(np.eye(3, dtype=np.float32), (FRAMES, 1, 1)),
        rotation_sigma=np.full(FRAMES, 0.1, np.float32),
        shape=np.zeros(3, np.float32),
        shape_sigma=np.ones(3, np.float32),
        window=16,
        source="test",
        audio_opening=np.zeros(FRAMES, np.float32) if opening is None else opening.astype(np.float32),
        audio_closure=np.zeros(FRAMES, np.float32) if closure is None else closure.astype(np.float32),
        landmark_sigma=np.ones((FRAMES, 6), np.float32),
    )


@pytest.fixture
def speech():
    """Opening of the mouth predicted from sound, slow enough to be kept by the smoothing."""
    rng = np.random.default_rng(3)
    return np.interp(np.arange(FRAMES), np.arange(0, FRAMES + 8, 8), rng.uniform(0, 1, FRAMES // 8 + 1))


def spoken(speech):
    """Weights of a speaker whose mouth is at 0.2 at rest and opens by half of the prediction."""
    weights = np.zeros((FRAMES, len(NAMES)))
    weights[:, JAW] = 0.2 + 0.5 * speech
    return weights


def occluded_lips():
    lips = np.ones(FRAMES, np.float32)
    lips[OCCLUDED] = 0.1
    return lips


def test_an_occluded_mouth_has_the_amplitude_of_the_visible_one(speech):
    truth = spoken(speech)
    predicted = prediction(np.full((FRAMES, len(NAMES)), 0.1), speech)
    seen = truth.copy()
    seen[OCCLUDED] = 0.9  # has no effect
    adapted = adapt_to_clip(predicted, predicted, seen, occluded_lips(), TIMES, NAMES, MOTION)
    off = np.abs(adapted.expression - truth)[OCCLUDED, JAW]
    assert off.mean() < 0.25 * np.abs(predicted.expression - truth)[OCCLUDED, JAW].mean()
    assert np.corrcoef(adapted.expression[OCCLUDED, JAW], truth[OCCLUDED, JAW])[0, 1] > 0.95


def test_heard_closures_close_an_occluded_mouth(speech):
    """Closures that the heard opening doesn't show, as those of a person who closes the lips where others don't."""
    rng = np.random.default_rng(4)
    closure = np.zeros(FRAMES)
    for middle in rng.choice(np.arange(4, FRAMES - 4), 30, replace=False):
        closure[middle - 2 : middle + 3] = 1
    truth = spoken(speech)
    truth[:, JAW] *= 1 - 0.9 * closure
    off = []
    for heard in (None, closure):
        predicted = prediction(np.full((FRAMES, len(NAMES)), 0.1), speech, heard)
        adapted = adapt_to_clip(predicted, predicted, truth, occluded_lips(), TIMES, NAMES, MOTION)
        off.append(np.abs(adapted.expression - truth)[OCCLUDED, JAW].mean())
    assert off[1] < 0.75 * off[0]


def test_a_prediction_with_the_right_timing_gets_the_right_amplitude():
    rng = np.random.default_rng(1)
    truth = np.zeros((FRAMES, len(NAMES)))
    truth[:, JAW] = rng.uniform(0, 1, FRAMES)
    predicted = prediction(0.3 * truth)  # the amplitude is too small, the timing right
    adapted = adapt_to_clip(predicted, predicted, truth, occluded_lips(), TIMES, NAMES, MOTION)
    assert (
        np.abs(adapted.expression - truth)[OCCLUDED, JAW].mean()
        < 0.15
        < 0.3
        < 0.7 * truth[OCCLUDED, JAW].mean()
    )


def test_visible_frames_other_units_and_variances_are_unchanged(speech):
    predicted = prediction(np.full((FRAMES, len(NAMES)), 0.1), speech)
    adapted = adapt_to_clip(predicted, predicted, spoken(speech), occluded_lips(), TIMES, NAMES, MOTION)
    seen = np.ones(FRAMES, bool)
    seen[OCCLUDED] = False
    np.testing.assert_array_equal(adapted.expression[seen], predicted.expression[seen])
    np.testing.assert_array_equal(adapted.expression[:, BROW], predicted.expression[:, BROW])
    np.testing.assert_array_equal(adapted.expression_sigma, predicted.expression_sigma)


def test_too_few_visible_frames_or_units_of_the_whole_face_change_nothing(speech):
    predicted = prediction(np.full((FRAMES, len(NAMES)), 0.1), speech)
    lips = np.zeros(FRAMES, np.float32)
    lips[:3] = 1
    assert adapt_to_clip(predicted, predicted, spoken(speech), lips, TIMES, NAMES, MOTION) is predicted
    blends = tuple(f"expression_{n}" for n in range(len(NAMES)))
    assert (
        adapt_to_clip(predicted, predicted, spoken(speech), occluded_lips(), TIMES, blends, MOTION)
        is predicted
    )


def test_regressors_of_noise_are_shrunk(speech):
    rng = np.random.default_rng(8)
    predicted = prediction(0.1 + 0.05 * rng.normal(size=(FRAMES, len(NAMES))), rng.uniform(0, 1, FRAMES))
    adapted = adapt_to_clip(predicted, predicted, spoken(speech), occluded_lips(), TIMES, NAMES, MOTION)
    rest = spoken(speech)[: OCCLUDED.start, JAW]
    assert adapted.expression[OCCLUDED, JAW].std() < 0.5 * rest.std()
    assert abs(adapted.expression[OCCLUDED, JAW].mean() - rest.mean()) < rest.std()


def track(visibility=None):
    confidence = np.ones(FRAMES, np.float32)
    confidence[150:155] = 0
    return FaceTrack(
        landmarks=np.zeros((FRAMES, 478, 2), np.float32),
        depth=np.zeros((FRAMES, 478), np.float32),
        confidence=confidence,
        box=np.zeros((FRAMES, 4), np.float32),
        times=TIMES,
        segments=(Segment(0, FRAMES, True, 1.0),),
        image_size=(64, 64),
        visibility=visibility,
    )


def test_occluded_visibility_is_the_mean_of_the_frames_with_occluded_lips():
    visibility = np.ones((FRAMES, 478), np.float32)
    visibility[OCCLUDED, LIPS] = 0.1
    visibility[OCCLUDED, 10] = 0.6
    found = track(visibility)
    lips = lip_visibility(found)
    assert lips[OCCLUDED.start] == pytest.approx(0.1) and (lips[150:155] == 0).all() and lips[0] == 1
    held = occluded_visibility(found, lips)
    assert held[LIPS] == pytest.approx(0.1) and held[10] == pytest.approx(0.6) and held[1] == 1


def test_there_is_no_occluded_visibility_for_lips_that_are_always_or_never_visible():
    clear, covered = np.ones((FRAMES, 478), np.float32), np.zeros((FRAMES, 478), np.float32)
    for visibility in (None, clear, covered):
        found = track(visibility)
        assert occluded_visibility(found, lip_visibility(found)) is None
