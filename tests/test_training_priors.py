"""Fitting of the occlusion detection and measurement of the shape prior: settings that can't work, too little data."""

import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.tracking.face_texture import FaceTexture
from avface.training import shape_prior
from avface.training.shape_prior import ShapePriorConfig, ShapePriorTraining, measure
from avface.training.visibility import Example, VisibilityTraining, face_mean, fit, train


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (VisibilityTraining, {"clips": "c", "count": 0}, "count=0 must be positive"),
        (VisibilityTraining, {"clips": "c", "frames": 0}, "frames=0 must be positive"),
        (VisibilityTraining, {"clips": "c", "steps": 0}, "steps=0 must be positive"),
        (VisibilityTraining, {"clips": "c", "batch": 0}, "batch=0 must be positive"),
        (
            VisibilityTraining,
            {"clips": "c", "occluded_weight": 0.0},
            r"occluded_weight=0\.0 must be positive",
        ),
        (VisibilityTraining, {"clips": "c", "seed": -1}, "seed=-1 must not be negative"),
        (ShapePriorConfig, {"people": 0}, "people=0 must be positive"),
        (ShapePriorConfig, {"step": 0}, "step=0 must be positive"),
        (ShapePriorConfig, {"components": 0}, "components=0 must be positive"),
        (ShapePriorConfig, {"tolerance": 0.0}, r"tolerance=0\.0 must be positive"),
        (ShapePriorConfig, {"least_error": -1.0}, r"least_error=-1\.0 must not be negative"),
        (ShapePriorConfig, {"view_doubt": -1.0}, r"view_doubt=-1\.0 must not be negative"),
        (ShapePriorTraining, {"out": "o", "workers": 0}, "workers=0 must be positive"),
    ],
)
def test_settings_that_cannot_work_are_refused(kind, changes, message):
    with pytest.raises(AvfaceError, match=message):
        kind(**changes)


def example(rng, occluded):
    """Twenty frames of noisy skin; if occluded, with a dark patch on a third of the texels in half of them."""
    texels = FaceTexture().shape[0]
    textures = np.full((20, texels, 4), 255, np.uint8)
    textures[..., :3] = (150 + 10 * rng.normal(size=(20, texels, 3))).clip(0, 255)
    hidden = np.zeros((20, texels), bool)
    if occluded:
        hidden[:10, : texels // 3] = True
        textures[..., :3][hidden] = 20
    return Example(textures, hidden)


def test_the_fit_separates_a_dark_patch_from_skin():
    rng = np.random.default_rng(0)
    examples = [example(rng, occluded) for occluded in (False, False, False, False, True, True)]

    arrays = fit(VisibilityTraining("clips", examples=400, steps=150, batch=256), examples)

    from avface.tracking.visibility import VisibilityModel

    model = VisibilityModel(face_mean(examples))
    model.set_weights(arrays)
    new = example(np.random.default_rng(1), True)
    odds = model.log_odds(new.textures, model.reference(new.textures))
    assert np.median(odds[new.occluded]) > 0 > np.median(odds[~new.occluded])


def test_too_little_data_is_refused(tmp_path, monkeypatch):
    with pytest.raises(AvfaceError, match="only 1 clips without an occluder: at least 4 are needed"):
        face_mean([example(np.random.default_rng(0), False)])
    with pytest.raises(AvfaceError, match=r"no folders with truth\.npz; make clips with `avface synthesize`"):
        train(VisibilityTraining(tmp_path))

    class NoClips:
        def __init__(self, *_, **__):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def submit(self, *_):
            return self

        def result(self):
            return None

    monkeypatch.setattr(shape_prior, "ProcessPoolExecutor", NoClips)
    monkeypatch.setattr(shape_prior, "out_of_model_head", lambda *_: pytest.fail("after the clips"))
    with pytest.raises(AvfaceError, match="none of 4 clips could be tracked; use more --people"):
        measure(ShapePriorConfig(people=2))
