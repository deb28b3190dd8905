"""Scenes, their pictures, and clips on disk."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from avface.errors import AvfaceError
from avface.head import load_head
from avface.media import Clip
from avface.synthetic.clips import (
    RECIPE,
    TRUTH,
    VIDEO,
    SceneConfig,
    SynthesisConfig,
    make_clip,
    scene_of,
    synthesize,
)
from avface.synthetic.rendering.renderer import SceneRenderer
from avface.synthetic.rendering.scene import sample_scene
from avface.synthetic.truth import VERSION, ClipTruth

SMALL = SceneConfig(size=96, seconds=0.6, texture=64)
SERIES = SynthesisConfig(seed=5, scene=SMALL, supersampling=1)

pytest.importorskip("espeakng_loader")


@pytest.fixture(scope="module")
def head():
    return load_head()


@pytest.fixture(scope="module")
def scene(head):
    return sample_scene(1, 2, SMALL, head)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A clip's folder."""
    folder = tmp_path_factory.mktemp("series") / "clip_000003"
    return make_clip(folder, 3, SERIES).folder


def test_the_same_number_gives_the_same_scene_and_another_one_another(head, scene):
    again, other = sample_scene(1, 2, SMALL, head), sample_scene(1, 3, SMALL, head)

    for name in ("shape", "rest", "backdrop", "clothes", "hair"):
        np.testing.assert_array_equal(getattr(again, name), getattr(scene, name))
        assert not np.array_equal(getattr(other, name), getattr(scene, name)) or name == "hair", name
    np.testing.assert_array_equal(again.performance.expression, scene.performance.expression)
    np.testing.assert_array_equal(again.skin.albedo, scene.skin.albedo)


@pytest.mark.slow
def test_faces_are_in_the_picture_and_not_too_small(head):
    for index in range(12):
        scene = sample_scene(9, index, replace(SMALL, seconds=2.0), head)
        landmarks = scene.capture(head, "open").landmarks()
        inside = ((landmarks > 0) & (landmarks < SMALL.size - 1)).all(-1).mean()
        assert inside > 0.95, f"scene {index}: {inside:.0%} of the landmarks inside"
        assert np.ptp(landmarks[0, :, 1]) > 0.2 * SMALL.size, f"scene {index}"


def test_the_head_rotates_about_the_neck_joint(head, scene):
    rotation, translation = scene.motion(head)
    pivot = head.joint_positions(torch.as_tensor(scene.shape))[head.joint_names.index("neck")]
    moved = (rotation @ pivot + translation - torch.as_tensor(scene.performance.shift)).numpy()

    np.testing.assert_allclose(moved, moved[:1].repeat(len(moved), 0), atol=1e-5)


def test_pictures_dont_depend_on_the_batch_size(head, scene):
    one = list(SceneRenderer(scene, head, 1).frames(batch=1))
    three = list(SceneRenderer(scene, head, 1).frames(batch=3))

    assert len(one) == len(scene)
    difference = np.abs(np.stack(one).astype(int) - np.stack(three))
    assert difference.max() <= 1  # sums in another order


def test_the_mask_of_the_head_is_where_its_vertices_are_projected(head, scene):
    mask = SceneRenderer(scene, head, 2).buffers(range(1)).head[0].numpy()
    landmarks = scene.capture(head, "open").landmarks([0])[0].round().astype(int)
    nose, outside = landmarks[4], (2, 2)

    assert mask[nose[1], nose[0]] and not mask[outside]
    x, y = landmarks.T
    inside = (x >= 0) & (y >= 0) & (x < SMALL.size) & (y < SMALL.size)
    assert mask[y[inside], x[inside]].mean() > 0.9


def test_normals_are_unit_vectors_towards_the_camera_on_the_head(head, scene):
    buffers = SceneRenderer(scene, head, 2).buffers(range(1))
    normals = buffers.normals[0][buffers.head[0]]

    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(normals)), rtol=0, atol=1e-4)
    assert float((normals[:, 2] < 0.3).float().mean()) > 0.97  # z grows away from the camera


def test_without_light_the_person_is_black_and_twice_the_light_is_twice_as_bright(head, scene):
    def lit(factor):
        light = replace(
            scene.light, harmonics=factor * scene.light.harmonics, colours=factor * scene.light.colours
        )
        return SceneRenderer(replace(scene, light=light), head, 1)

    mask = lit(1).buffers(range(1)).head
    dark, once, twice = (lit(factor).light(range(1))[mask] for factor in (0.0, 1.0, 2.0))

    assert dark.max() == 0
    torch.testing.assert_close(twice, 2 * once, rtol=1e-4, atol=1e-5)
    assert once.mean() > 0.01


def test_a_clip_holds_video_sound_and_truth_that_agree(made, head):
    truth = ClipTruth.load(made / TRUTH)
    clip = Clip.open(made / VIDEO)

    assert len(list(clip.frames())) == len(truth) == 15
    assert clip.info.has_audio and len(clip.audio()) == pytest.approx(0.6 * 16_000, abs=1100)
    assert (clip.info.width, clip.info.height) == truth.image_size
    np.testing.assert_allclose(truth.capture().landmarks(), truth.landmarks, atol=1e-3)
    assert ((truth.expression >= 0) & (truth.expression <= 1)).all()
    assert truth.tracked.shape == truth.landmarks.shape
    assert truth.albedo.dtype == np.uint8 and truth.relief.shape == truth.albedo.shape[:2]


def test_the_scene_is_reproduced_from_the_truth(made):
    truth = ClipTruth.load(made / TRUTH)
    scene = scene_of(truth)

    np.testing.assert_array_equal(scene.shape, truth.shape)
    np.testing.assert_array_equal(scene.performance.expression, truth.expression)
    np.testing.assert_allclose(scene.skin.relief * 1e6, truth.relief, rtol=2e-3, atol=0.01)


def test_a_clip_is_reproduced_to_the_byte(made, tmp_path):
    again = make_clip(tmp_path / made.name, 3, SERIES).folder

    for name in (VIDEO, TRUTH):
        assert (again / name).read_bytes() == (made / name).read_bytes(), name


def test_a_series_is_resumed(tmp_path):
    out = tmp_path / "series"
    synthesize(out, 1, SERIES, workers=1)
    first = (out / "clip_000000" / TRUTH).stat().st_mtime_ns
    (out / ".clip_000001.77").mkdir()  # left by a killed run
    progress = []

    clips = synthesize(out, 2, SERIES, workers=1, on_clip=progress.append)

    assert progress == [1, 2] and [clip.frames for clip in clips] == [15, 15]
    assert (out / "clip_000000" / TRUTH).stat().st_mtime_ns == first
    assert sorted(path.name for path in out.iterdir()) == sorted(["clip_000000", "clip_000001", RECIPE])


@pytest.mark.slow
def test_the_number_of_workers_changes_nothing(tmp_path):
    synthesize(tmp_path / "one", 3, SERIES, workers=1)
    synthesize(tmp_path / "two", 3, SERIES, workers=2)

    for path in sorted((tmp_path / "one").rglob("*.*")):
        if path.is_file():
            assert (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_the_tracker_finds_the_synthetic_faces(tmp_path):
    clips = synthesize(tmp_path, 6, SynthesisConfig(seed=1, scene=SceneConfig(seconds=1.0)))
    assert sum(clip.tracked for clip in clips) >= 0.98 * sum(clip.frames for clip in clips)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"size": 8}, "size=8 must be at least 16 pixels"),
        ({"texture": 0}, "texture=0 must be at least 16 pixels"),
        ({"seconds": 0.0}, "seconds=0.0 must be above 0 and finite"),
        ({"seconds": float("nan")}, "seconds=nan must be above 0 and finite"),
        ({"frame_rate": -1.0}, "frame_rate=-1.0 must be above 0 and finite"),
        ({"frame_rate": float("inf")}, "frame_rate=inf must be above 0 and finite"),
        (
            {"silence": 0.9, "sounds": 0.2},
            "silence=0.9 and sounds=0.2 must be shares that are together at most 1",
        ),
        ({"sounds": -0.1}, "sounds=-0.1 must be shares"),
        ({"shape_sigma": (1.0, 0.5)}, r"shape_sigma=\(1.0, 0.5\) must be two numbers in order"),
        ({"shape_sigma": (-0.1, 0.5)}, "not negative"),
    ],
)
def test_impossible_scenes_are_refused(settings, message):
    with pytest.raises(AvfaceError, match=message):
        SceneConfig(**settings)


@pytest.mark.parametrize(
    ("scene", "settings", "message"),
    [
        ({"size": 62}, {}, "size 62: must be at least 64 pixels"),
        ({"size": 101}, {}, "size 101: must be even"),
        ({"seconds": 0.1}, {}, "0.1 seconds: clips must be at least half a second"),
        ({"frame_rate": 4.0}, {}, "frame rate 4: must be from 5 to 120"),
        ({}, {"occluded": 1.5}, "occluded 1.5: must be a share from 0 to 1"),
        ({}, {"occluded": float("nan")}, "occluded nan"),
        ({}, {"supersampling": 0}, "supersampling 0: must be from 1 to 4"),
        ({}, {"seed": -1}, "seed -1: must not be negative"),
    ],
)
def test_impossible_series_are_refused(scene, settings, message):
    with pytest.raises(AvfaceError, match=message):
        SynthesisConfig(scene=SceneConfig(**scene), **settings)


def test_a_folder_of_other_clips_or_other_files_is_refused_and_unchanged(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("precious")
    with pytest.raises(AvfaceError, match="not empty"):
        synthesize(tmp_path / "mine", 1, SERIES)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / RECIPE).write_text("{}")
    with pytest.raises(AvfaceError, match="other options"):
        synthesize(tmp_path / "other", 1, SERIES)
    with pytest.raises(AvfaceError, match="0 clips: make at least one"):
        synthesize(tmp_path / "none", 0, SERIES)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_a_truth_file_that_is_missing_damaged_or_old_is_refused_by_name(made, tmp_path):
    with pytest.raises(AvfaceError, match=r"truth\.npz: no such file"):
        ClipTruth.load(tmp_path / "truth.npz")
    (tmp_path / "cut.npz").write_bytes((made / TRUTH).read_bytes()[:5000])
    with pytest.raises(AvfaceError, match=r"cut\.npz: not a readable"):
        ClipTruth.load(tmp_path / "cut.npz")
    np.savez(tmp_path / "old.npz", version=0)
    with pytest.raises(AvfaceError, match=r"old\.npz: not a truth file of version"):
        ClipTruth.load(tmp_path / "old.npz")
    np.savez(tmp_path / "thin.npz", version=VERSION, seed=1)
    with pytest.raises(AvfaceError, match=r"thin\.npz: .*shape.* missing"):
        ClipTruth.load(tmp_path / "thin.npz")


def test_occlusion_masks_come_back_from_their_bits(made):
    truth = ClipTruth.load(made / TRUTH)
    assert not truth.occlusion_mask(0).any() and truth.occlusion_mask(0).shape == (96, 96)

    masks = np.random.default_rng(0).random((15, 96, 96)) < 0.3
    hidden = replace(truth, occlusion=np.packbits(masks, axis=-1))
    np.testing.assert_array_equal(hidden.occlusion_mask(7), masks[7])


def test_the_recipe_of_a_series_is_readable(tmp_path):
    synthesize(tmp_path / "out", 1, SERIES, workers=1)
    recipe = json.loads((tmp_path / "out" / RECIPE).read_text())
    assert recipe["seed"] == 5 and recipe["scene"]["size"] == 96
