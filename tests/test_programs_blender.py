"""Exports as Blender shows them: imported by its own importers, evaluated at every frame of its scene."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from captures import moving_capture
from detail_captures import detail_capture
from lip_captures import lip_capture
from played import errors, in_blender

from avface.capture.resampling import at_constant_rate
from avface.head.morphs import morph_targets

pytestmark = pytest.mark.slow

MILLIMETRES, PIXELS = 0.01, 0.01
"""Largest errors of vertices and of landmarks through the imported camera."""
RATES = {"25": 25.0, "29.97": 30000 / 1001, "60": 60.0}


def talking(rate, frames=60):
    """A capture with refined lips at a constant frame rate."""
    return replace(lip_capture(frames), times=np.arange(frames) / rate, image_size=(320, 240))


def rate_before_import(rate):
    """FPS and Base of the scene, as docs/formats.md gives them for importing a .glb.

    Blender 4.2's glTF importer takes their product for the frame rate, which is their quotient.
    """
    whole = round(rate)
    return whole, rate / whole


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_glb_in_blender_has_the_vertices_and_landmarks_of_every_frame(tmp_path, rate):
    capture = talking(rate)

    played = in_blender(capture.export(tmp_path / "head.glb"), capture.image_size, *rate_before_import(rate))

    np.testing.assert_allclose(played.keys, np.arange(len(capture)), atol=1e-3)
    millimetres, pixels = errors(capture, played)
    assert millimetres < MILLIMETRES and pixels < PIXELS, f"{millimetres:.4f} mm, {pixels:.4f} px"


@pytest.mark.parametrize("rate", RATES.values(), ids=RATES)
def test_usdc_in_blender_has_the_vertices_and_landmarks_of_every_frame(tmp_path, rate):
    capture = replace(talking(rate), principal_point=(150.25, 131.5))

    played = in_blender(capture.export(tmp_path / "head.usdc"), capture.image_size, round(rate))

    np.testing.assert_allclose(played.keys, np.arange(len(capture)), atol=1e-3)
    assert (played.facts["frame_start"], played.facts["frame_end"]) == (0, len(capture) - 1)
    millimetres, pixels = errors(capture, played)
    assert millimetres < MILLIMETRES and pixels < PIXELS, f"{millimetres:.4f} mm, {pixels:.4f} px"


@pytest.mark.parametrize("suffix", ["glb", "usdc"])
def test_a_resampled_scene_has_whole_frames_in_blender(tmp_path, suffix):
    gaps = np.random.default_rng(4).uniform(0.02, 0.06, 39)  # of a variable frame rate
    capture = replace(lip_capture(40), times=np.concatenate([[0], gaps.cumsum()]))
    resampled = at_constant_rate(capture, 30)

    played = in_blender(capture.export(tmp_path / f"head.{suffix}", fps=30), capture.image_size, 30)

    np.testing.assert_allclose(played.keys, np.arange(len(resampled)), atol=1e-3)
    millimetres, pixels = errors(resampled, played)
    assert millimetres < MILLIMETRES and pixels < PIXELS, f"{millimetres:.4f} mm, {pixels:.4f} px"


@pytest.mark.parametrize("suffix", ["glb", "usdc"])
def test_shape_keys_in_blender_have_the_names_of_the_units_and_stay_within_their_sliders(tmp_path, suffix):
    capture = talking(25.0, 12)

    facts = in_blender(capture.export(tmp_path / f"head.{suffix}"), capture.image_size, 25).facts

    units = list(morph_targets(capture.head_model, capture.shape).names)
    lips = facts["shape_keys"][len(units) :]
    assert facts["shape_keys"][: len(units)] == units and units[:52] == list(capture.expression_names)
    assert all(name.startswith("lips_") for name in lips)
    assert len(lips) == 2 * capture.lips.weights.shape[1], "a pair for each component"
    assert facts["shape_key_ranges"] == [[0, 1]] * len(facts["shape_keys"])


@pytest.mark.parametrize("suffix", ["glb", "usdc"])
def test_brows_lips_and_irises_are_coloured_in_blender(tmp_path, suffix):
    facts = in_blender(moving_capture(2).export(tmp_path / f"head.{suffix}"), (320, 240), 25).facts

    assert {"skin: Base Color", "iris: Base Color"} <= set(facts["textured"])


@pytest.mark.parametrize("suffix", ["glb", "usdc"])
def test_the_skin_has_its_normal_map_in_blender(tmp_path, suffix):
    facts = in_blender(detail_capture(2).export(tmp_path / f"head.{suffix}"), (320, 240), 25).facts

    assert "skin: Normal" in facts["textured"]
