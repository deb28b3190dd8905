from dataclasses import replace

import numpy as np
import pytest
from test_networks_fusion_clip_adaptation import FRAMES, prediction

from avface.head import load_head
from avface.networks.fusion.heard_opening import follow_heard_opening

HEAD = load_head("open")
NAMES = HEAD.expression_names
MOTION = HEAD.embedding("mediapipe478").on(HEAD.expression_basis.numpy())
JAW, SMILE, BROWS = (NAMES.index(name) for name in ("jawOpen", "mouthSmileLeft", "browInnerUp"))


def gap(expression):
    """Height of the lip gap (T,) in metres."""
    return expression @ (MOTION[:, 13, 1] - MOTION[:, 14, 1])


@pytest.fixture
def expected():
    """A mouth that opens by itself, with a smile and brows, and another opening that is heard."""
    rng = np.random.default_rng(0)
    knots = rng.uniform(0, 1, (4, FRAMES // 8 + 1))
    jaw, smile, brows, heard = (
        np.interp(np.arange(FRAMES), np.arange(0, FRAMES + 8, 8), one) for one in knots
    )
    expression = np.zeros((FRAMES, len(NAMES)))
    expression[:, JAW], expression[:, SMILE], expression[:, BROWS] = 0.1 + 0.3 * jaw, 0.2 * smile, brows
    made = prediction(expression, heard)
    return replace(made, expression_sigma=np.full(expression.shape, 0.2, np.float32))


def test_the_gap_follows_what_is_heard_with_its_own_mean_and_liveliness(expected):
    changed = follow_heard_opening(expected, NAMES, MOTION)
    before, after = gap(expected.expression), gap(changed.expression)

    assert np.corrcoef(before, expected.audio_opening)[0, 1] < 0.4
    assert np.corrcoef(after, expected.audio_opening)[0, 1] > 0.8
    assert np.corrcoef(after, before)[0, 1] > np.corrcoef(expected.audio_opening, before)[0, 1] + 0.05
    assert after.mean() == pytest.approx(before.mean(), rel=1e-3)
    assert after.std() == pytest.approx(before.std(), rel=1e-3)
    np.testing.assert_array_equal(changed.expression[:, BROWS], expected.expression[:, BROWS])


def test_without_anything_to_hear_nothing_changes(expected):
    for heard in (np.zeros(FRAMES, np.float32), np.full(FRAMES, 0.06, np.float32)):
        silent = replace(expected, audio_opening=heard)
        assert follow_heard_opening(silent, NAMES, MOTION) is silent
    still = replace(expected, expression=np.zeros_like(expected.expression))
    assert follow_heard_opening(still, NAMES, MOTION) is still


def test_frames_without_a_prediction_keep_theirs(expected):
    sigma = expected.expression_sigma.copy()
    sigma[50:80] = np.inf
    changed = follow_heard_opening(replace(expected, expression_sigma=sigma), NAMES, MOTION)

    np.testing.assert_array_equal(changed.expression[50:80], expected.expression[50:80])
    assert not np.array_equal(changed.expression[:50], expected.expression[:50])
