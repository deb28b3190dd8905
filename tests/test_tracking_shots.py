from dataclasses import dataclass

import numpy as np
import pytest

from avface.tracking.shots import (
    Change,
    difference,
    scene_motion,
    shifted_difference,
    thumbnail,
    unchanged_share,
    with_changes,
)


@dataclass
class Picture:
    image: np.ndarray


def scene(seed, height=180, width=320):
    """A smooth random image: a sum of waves with its own phases."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.zeros((height, width, 3))
    for _ in range(8):
        wave = rng.uniform(-0.06, 0.06, 2)
        phase = wave[0] * x + wave[1] * y + rng.uniform(0, 6)
        image += np.sin(phase)[..., None] * rng.normal(size=3) * 25
    return np.clip(128 + image, 0, 255).astype(np.uint8)


def cuts(images, least=Change.CERTAIN):
    changes = [change for _, change in with_changes([Picture(image) for image in images])]
    assert len(changes) == len(images)
    return [index for index, change in enumerate(changes) if change >= least]


def test_a_cut_is_found_at_its_frame():
    assert cuts([scene(1)] * 10 + [scene(2)] * 10 + [scene(3)] * 5) == [10, 20]


def test_every_frame_comes_out_once_and_in_order():
    pictures = [Picture(np.full((8, 8, 3), value, np.uint8)) for value in range(7)]
    assert [one for one, _ in with_changes(pictures)] == pictures
    assert list(with_changes([])) == []


def test_a_short_clip_may_begin_and_end_with_a_cut():
    assert cuts([scene(1), scene(2)]) == [1]


@pytest.mark.parametrize("length", [1, 2])
@pytest.mark.parametrize("level", [0, 255])
def test_flashes_and_black_frames_are_no_cuts(length, level):
    dip = [np.full_like(scene(1), level)] * length
    assert cuts([scene(1)] * 8 + dip + [scene(1)] * 8, Change.POSSIBLE) == []


def test_an_exposure_step_is_no_cut():
    dark = (scene(1) * 0.5).astype(np.uint8)
    assert cuts([scene(1)] * 8 + [dark] * 8, Change.POSSIBLE) == []


def test_a_fast_pan_is_no_cut_but_the_cut_in_it_is():
    wide, other = scene(1, width=1400), scene(2, width=1400)
    pan = [wide[:, 28 * step : 28 * step + 320] for step in range(24)]  # 9 % of the width a frame
    assert difference(thumbnail(pan[5]), thumbnail(pan[6])) > 0.25, "the pan is too slow for this test"
    assert cuts(pan) == []
    assert cuts(pan[:12] + [other[:, 28 * step : 28 * step + 320] for step in range(12)]) == [12]


def test_noise_in_a_black_image_is_no_cut():
    rng = np.random.default_rng(0)
    assert cuts([rng.integers(0, 4, (90, 160, 3)).astype(np.uint8) for _ in range(12)], Change.POSSIBLE) == []


@pytest.mark.parametrize(("bottom", "right"), [(120, 170), (180, 320)])
def test_something_before_the_scene_is_a_partial_change(bottom, right):
    part = scene(1).copy()
    part[60:bottom, 100:right] = scene(2)[60:bottom, 100:right]
    images = [scene(1)] * 10 + [part] * 6
    assert cuts(images, Change.POSSIBLE) == []
    assert cuts(images, Change.PARTIAL) == [10]


def test_a_smaller_change_than_a_scene_is_a_possible_cut():
    mixed = (0.45 * scene(1).astype(float) + 0.55 * scene(2)).astype(np.uint8)
    images = [scene(1)] * 10 + [mixed] * 6
    assert unchanged_share(thumbnail(images[0]), thumbnail(mixed)) < 0.2
    assert cuts(images, Change.POSSIBLE) == [10]


def test_edges_stay_the_same_when_contrast_changes_and_differ_between_scenes():
    dark = (40 + 0.5 * scene(1)).astype(np.uint8)
    assert unchanged_share(thumbnail(scene(1)), thumbnail(dark)) > 0.95
    assert unchanged_share(thumbnail(scene(1)), thumbnail(scene(2))) < 0.1
    assert unchanged_share(thumbnail(scene(1)), thumbnail(np.zeros((30, 40, 3), np.uint8))) == 0


def test_differences_have_the_documented_values():
    one, flat = thumbnail(scene(1)), thumbnail(np.full_like(scene(1), 90))
    assert difference(one, one) == 0
    assert difference(one, flat) == pytest.approx(0.5, abs=1e-3)
    assert difference(one, thumbnail(255 - scene(1))) == pytest.approx(2, abs=0.02)
    assert difference(one, thumbnail(scene(2))) == pytest.approx(1, abs=0.5)
    assert shifted_difference(one, one) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("shape", [(1, 1), (3, 200), (224, 224), (1920, 1080), (35, 36)])
def test_an_image_of_any_size_has_a_normalised_thumbnail(shape):
    rng = np.random.default_rng(0)
    small = thumbnail(rng.integers(0, 255, (*shape, 3)).astype(np.uint8))
    assert small.size <= 3 * 40 * 70
    assert np.isfinite(small).all()
    np.testing.assert_allclose(small.mean((0, 1)), 0, atol=1e-4)
    assert np.linalg.norm(small) == pytest.approx(1 if min(shape) > 1 else 0, abs=1e-3)


def textured(seed, height=400, width=560):
    """A random image with corners of all sizes."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for cell in (8, 16, 40):
        coarse = rng.uniform(-40, 40, (height // cell + 1, width // cell + 1, 3))
        image += coarse.repeat(cell, 0).repeat(cell, 1)[:height, :width]
    return np.clip(128 + image, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("x, y", [(0, 0), (7, -12), (-40, 30), (55, 10)])
def test_the_motion_of_a_camera_is_found_in_pixels(x, y):
    wide = textured(1)
    before, after = wide[60:340, 80:440], wide[60 - y : 340 - y, 80 - x : 440 - x]
    motion = scene_motion(before, after)
    np.testing.assert_allclose(motion, [[1, 0, x], [0, 1, y]], atol=0.5)
    np.testing.assert_allclose(motion[:, :2], np.eye(2), atol=0.004)


def test_a_large_object_before_the_scene_does_not_hide_that_it_is_the_same():
    before, after = textured(1), textured(1)
    after[150:, 200:400] = textured(2)[150:, 200:400]
    np.testing.assert_allclose(scene_motion(before, after), [[1, 0, 0], [0, 1, 0]], atol=0.1)


@pytest.mark.parametrize("other", ["another", "mirrored", "closer", "flat", "of another size"])
def test_another_scene_is_not_the_same_one_moved(other):
    before = textured(1)
    middle = before[60:340, 84:476]
    after = {
        "another": textured(2),
        "mirrored": np.ascontiguousarray(before[:, ::-1]),
        "closer": middle[np.arange(400) * 280 // 400][:, np.arange(560) * 392 // 560],
        "flat": np.full_like(before, 90),
        "of another size": textured(1, 300),
    }
    assert scene_motion(before, after[other]) is None
    assert scene_motion(np.full_like(before, 90), before) is None
