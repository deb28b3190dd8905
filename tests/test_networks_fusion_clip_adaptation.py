"""A hidden mouth moves as the same clip shows it where it is seen."""

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
HELD = slice(120, 160)
TIMES = np.arange(FRAMES) / 25


def prediction(expression, opening=None):
    return ClipPrediction(
        expression=expression.astype(np.float32),
        expression_sigma=np.full((FRAMES, len(NAMES)), 0.2, np.float32),
        rotation=np.tile(np.eye(3, dtype=np.float32), (FRAMES, 1, 1)),
        rotation_sigma=np.full(FRAMES, 0.1, np.float32),
        shape=np.zeros(3, np.float32),
        shape_sigma=np.ones(3, np.float32),
        window=16,
        source="nobody",
        heard_opening=np.zeros(FRAMES, np.float32) if opening is None else opening.astype(np.float32),
        landmark_sigma=np.ones((FRAMES, 6), np.float32),
    )


@pytest.fixture
def speech():
    """How far a mouth opens over a clip, as heard: slow enough to survive the smoothing."""
    rng = np.random.default_rng(3)
    return np.interp(np.arange(FRAMES), np.arange(0, FRAMES + 8, 8), rng.uniform(0, 1, FRAMES // 8 + 1))


def spoken(speech):
    """Weights of a speaker whose mouth rests at 0.2 and opens by half of what is heard."""
    weights = np.zeros((FRAMES, len(NAMES)))
    weights[:, JAW] = 0.2 + 0.5 * speech
    return weights


def occluded_lips():
    lips = np.ones(FRAMES, np.float32)
    lips[HELD] = 0.1
    return lips


def test_a_hidden_mouth_opens_as_far_as_it_does_when_it_is_seen(speech):
    truth = spoken(speech)
    said = prediction(np.full((FRAMES, len(NAMES)), 0.1), speech)
    seen = truth.copy()
    seen[HELD] = 0.9  # nobody saw it
    found = adapt_to_clip(said, said, seen, occluded_lips(), TIMES, NAMES, MOTION)
    off = np.abs(found.expression - truth)[HELD, JAW]
    assert off.mean() < 0.25 * np.abs(said.expression - truth)[HELD, JAW].mean()
    assert np.corrcoef(found.expression[HELD, JAW], truth[HELD, JAW])[0, 1] > 0.95


def test_what_the_networks_get_right_when_blindfolded_is_believed():
    rng = np.random.default_rng(1)
    truth = np.zeros((FRAMES, len(NAMES)))
    truth[:, JAW] = rng.uniform(0, 1, FRAMES)
    answers = prediction(0.3 * truth)  # too little, but in time
    found = adapt_to_clip(answers, answers, truth, occluded_lips(), TIMES, NAMES, MOTION)
    assert np.abs(found.expression - truth)[HELD, JAW].mean() < 0.15 < 0.3 < 0.7 * truth[HELD, JAW].mean()


def test_seen_frames_other_units_and_certainties_stay_as_they_are(speech):
    said = prediction(np.full((FRAMES, len(NAMES)), 0.1), speech)
    found = adapt_to_clip(said, said, spoken(speech), occluded_lips(), TIMES, NAMES, MOTION)
    seen = np.ones(FRAMES, bool)
    seen[HELD] = False
    np.testing.assert_array_equal(found.expression[seen], said.expression[seen])
    np.testing.assert_array_equal(found.expression[:, BROW], said.expression[:, BROW])
    np.testing.assert_array_equal(found.expression_sigma, said.expression_sigma)


def test_with_hardly_a_seen_frame_or_units_of_the_whole_face_nothing_changes(speech):
    said = prediction(np.full((FRAMES, len(NAMES)), 0.1), speech)
    lips = np.zeros(FRAMES, np.float32)
    lips[:3] = 1
    assert adapt_to_clip(said, said, spoken(speech), lips, TIMES, NAMES, MOTION) is said
    blends = tuple(f"expression_{n}" for n in range(len(NAMES)))
    assert adapt_to_clip(said, said, spoken(speech), occluded_lips(), TIMES, blends, MOTION) is said


def test_noise_that_agrees_with_nothing_moves_a_mouth_little(speech):
    rng = np.random.default_rng(8)
    said = prediction(0.1 + 0.05 * rng.normal(size=(FRAMES, len(NAMES))), rng.uniform(0, 1, FRAMES))
    found = adapt_to_clip(said, said, spoken(speech), occluded_lips(), TIMES, NAMES, MOTION)
    rest = spoken(speech)[: HELD.start, JAW]
    assert found.expression[HELD, JAW].std() < 0.5 * rest.std()
    assert abs(found.expression[HELD, JAW].mean() - rest.mean()) < rest.std()


def track(visibility=None):
    confidence = np.ones(FRAMES, np.float32)
    confidence[150:155] = 0
    return FaceTrack(
        landmarks=np.zeros((FRAMES, 478, 2), np.float32),
        depth=np.zeros((FRAMES, 478), np.float32),
        confidence=confidence,
        crop=np.zeros((FRAMES, 4), np.float32),
        times=TIMES,
        segments=(Segment(0, FRAMES, True, 1.0),),
        image_size=(64, 64),
        visibility=visibility,
    )


def test_the_blindfold_is_what_hides_the_lips_of_the_clip():
    visibility = np.ones((FRAMES, 478), np.float32)
    visibility[HELD, LIPS] = 0.1
    visibility[HELD, 10] = 0.6
    found = track(visibility)
    lips = lip_visibility(found)
    assert lips[HELD.start] == pytest.approx(0.1) and (lips[150:155] == 0).all() and lips[0] == 1
    held = occluded_visibility(found, lips)
    assert held[LIPS] == pytest.approx(0.1) and held[10] == pytest.approx(0.6) and held[1] == 1


def test_there_is_no_blindfold_for_a_mouth_that_is_always_or_never_seen():
    clear, covered = np.ones((FRAMES, 478), np.float32), np.zeros((FRAMES, 478), np.float32)
    for visibility in (None, clear, covered):
        found = track(visibility)
        assert occluded_visibility(found, lip_visibility(found)) is None
