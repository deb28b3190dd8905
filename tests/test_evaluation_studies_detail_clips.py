"""The photometric check of folds on videos."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from captures import moving_capture
from detail_captures import detail_capture

from avface.errors import AvfaceError
from avface.evaluation.studies.detail import render_detail
from avface.evaluation.studies.detail_clips import clip_light, light_table
from avface.head.skin.atlas import detail_atlas
from avface.media import VideoWriter

FRAMES = 2


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A capture with folds, and the video of a head of clay that has them."""
    capture = detail_capture(FRAMES, resolution=128, depth=4e-4)
    atlas = detail_atlas(capture.head_model, 128)
    path = tmp_path_factory.mktemp("clay") / "clay.mp4"
    with VideoWriter(path) as writer:
        for row in range(FRAMES):
            points = torch.as_tensor(capture.vertices([row])[0])
            height = torch.as_tensor(capture.displacement([row])[0])
            writer.write(render_detail(atlas, points, capture.camera, height), row / 25)
    return replace(capture, source=str(path))


def test_true_folds_explain_the_picture_and_others_do_not(filmed):
    light = clip_light(filmed)
    assert light.frames == FRAMES
    assert light.detailed < 0.9 * light.coarse < light.shifted
    assert light.detailed < light.shadowed < light.shadowed_shifted, "clay is lit by its slopes alone"
    assert "clay" in light_table([light]) and "-" in light_table([light]).splitlines()[-1]


def test_nothing_to_check_is_said(filmed):
    with pytest.raises(AvfaceError, match="no detail"):
        clip_light(moving_capture(2))
    with pytest.raises(AvfaceError, match="no frame shows"):
        clip_light(replace(filmed, confidence=np.zeros(FRAMES, np.float32)))
