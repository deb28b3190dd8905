"""Heads outside the shape space: size and symmetry of their deformation, refused options."""

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree

from avface.errors import AvfaceError
from avface.head import load_head
from avface.synthetic.out_of_model import MIRROR, OutOfModelConfig, out_of_model_head, out_of_model_scene

FIELD_ONLY = {"known_sigma": 0.0, "proportions": 0.0, "taper": 0.0}


@pytest.fixture(scope="module")
def model():
    return load_head()


def displacement(model, person=0, **settings):
    """Displacement (V, 3) of a head from the model's mean by the random field alone, in metres."""
    head = out_of_model_head(person, OutOfModelConfig(**FIELD_ONLY, **settings))
    return (head.template - model.template).double().numpy()


@pytest.mark.parametrize("size", [1.0, 3.0])
def test_the_field_has_its_root_mean_square_over_the_face(model, size):
    moved = displacement(model, field_mm=size)

    rms = np.sqrt((moved[model.regions["face"]] ** 2).sum(1).mean())
    assert rms == pytest.approx(size / 1000, rel=0.02)


def test_without_asymmetry_the_field_is_symmetric_and_with_it_not(model):
    points = model.template.double().numpy()
    face = np.flatnonzero(model.regions["face"])
    apart, mirrored = cKDTree(points).query(points[face] * MIRROR)
    pairs = face[apart < 1e-4], mirrored[apart < 1e-4]
    assert len(pairs[0]) > 100

    def difference(asymmetry):
        moved = displacement(model, asymmetry=asymmetry)
        return np.abs(moved[pairs[0]] - moved[pairs[1]] * MIRROR).max()

    assert difference(0.0) < 1e-4
    assert difference(1.0) > 1e-3


@pytest.mark.slow
def test_a_persons_clips_have_the_same_face_and_other_scenes():
    config = OutOfModelConfig(seconds=0.2, size=32)
    head = out_of_model_head(1, config)
    first, second = (out_of_model_scene(1, clip, config, head) for clip in (0, 1))

    for name in ("shape", "hair"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    np.testing.assert_array_equal(first.skin.albedo, second.skin.albedo)
    assert not np.array_equal(first.rest, second.rest)
    assert not np.array_equal(first.backdrop, second.backdrop)
    assert not np.array_equal(first.performance.expression, second.performance.expression)
    assert not torch.as_tensor(first.shape).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, "seed=-1 must not be negative"),
        ({"known_sigma": -0.1}, "known_sigma=-0.1 must not be negative"),
        ({"proportions": -0.1}, "proportions=-0.1 must not be negative"),
        ({"taper": float("nan")}, "taper=nan must not be negative"),
        ({"field_mm": -1.0}, "field_mm=-1.0 must not be negative"),
        (
            {"field_lengths": (0.05, 0.02)},
            r"field_lengths=\(0.05, 0.02\) must be two positive lengths in order",
        ),
        ({"field_lengths": (0.0, 0.02)}, "two positive lengths"),
        ({"asymmetry": 1.5}, "asymmetry=1.5 must be from 0 to 1"),
        ({"seconds": 0.0}, "seconds=0.0 must be above 0 and finite"),
        ({"size": 0}, "size=0 must be at least 16 pixels"),
    ],
)
def test_impossible_options_are_refused(settings, message):
    with pytest.raises(AvfaceError, match=message):
        OutOfModelConfig(**settings)
