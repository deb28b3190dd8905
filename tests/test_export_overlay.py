import dataclasses

import av
import numpy as np
import pytest
import torch
from captures import moving_capture
from detail_captures import detail_capture

from avface.errors import AvfaceError
from avface.export import overlay
from avface.export.overlay import export_overlay
from avface.geometry.rasteriser import rasterise
from avface.geometry.shading import sample_texture
from avface.media import Clip, EncodingConfig, VideoWriter

SIZE = (160, 120)
FRAMES = 8
TIMES = np.array([0.0, 0.04, 0.08, 0.2, 0.24, 0.28, 0.32, 0.5])
GREY = 120


@pytest.fixture(scope="module")
def filmed(tmp_path_factory):
    """A grey video of uneven times with a tone that starts at 0.25 s."""
    path = tmp_path_factory.mktemp("overlay") / "talk.mp4"
    t = np.arange(int(16_000 * 0.7)) / 16_000
    tone = (0.5 * np.sin(2 * np.pi * 440 * t) * (t > 0.25)).astype(np.float32)
    with VideoWriter(path, sound=(tone, 16_000), encoding=EncodingConfig(crf=5)) as writer:
        for time in TIMES:
            writer.write(np.full((SIZE[1], SIZE[0], 3), GREY, np.uint8), float(time))
    return path


@pytest.fixture(scope="module")
def capture(filmed):
    confidence = np.ones(FRAMES, np.float32)
    confidence[5] = 0
    made = moving_capture(FRAMES, size=SIZE)
    return dataclasses.replace(made, times=TIMES, confidence=confidence, source=str(filmed))


@pytest.fixture(scope="module")
def written(capture, tmp_path_factory):
    return export_overlay(capture, tmp_path_factory.mktemp("overlay") / "overlay.mp4")


def pictures(path):
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]).astype(int)


def test_the_frame_is_on_the_left_and_the_blended_head_on_the_right(capture, written):
    images = pictures(written)

    assert images.shape == (FRAMES, SIZE[1], 2 * SIZE[0], 3)
    assert np.abs(images[:, :, : SIZE[0]] - GREY).max() < 12, "the left half is not the frame as filmed"
    right = images[:, :, SIZE[0] :]
    changed = np.abs(right - GREY).max(-1) > 15
    for frame in range(FRAMES):
        pixels = capture.camera.project(torch.as_tensor(capture.vertices([frame])[0])).numpy()
        low, high = pixels.min(0), pixels.max(0)
        rows, columns = changed[frame].nonzero()
        drawn = np.array([columns.min(), rows.min(), columns.max(), rows.max()])
        clipped = np.clip([*low, *high], 0, [SIZE[0] - 1, SIZE[1] - 1] * 2)
        # chroma is stored at half the resolution, so edges bleed by up to two pixels
        assert np.abs(drawn - clipped).max() <= 3, f"frame {frame}: head at {drawn}, expected {clipped}"


def test_the_head_is_blue_in_frames_with_confidence_0(written):
    right = pictures(written)[:, :, SIZE[0] :]
    blueness = [np.percentile(image[..., 2] - image[..., 0], 95) for image in right]

    assert blueness[5] > 25
    assert max(np.delete(blueness, 5)) < 10


def test_detail_is_shaded_unless_an_earlier_stage_is_named(capture, tmp_path):
    detailed = capture.with_layer(detail_capture(FRAMES).detail)
    plain, full, coarse = (
        pictures(export_overlay(made, tmp_path / f"{number}.mp4", layout="blended", stage=stage))
        for number, (made, stage) in enumerate([(capture, None), (detailed, None), (detailed, "coarse")])
    )
    assert np.abs(full - plain).max() > 30
    assert np.abs(coarse - plain).max() < 8


@pytest.mark.parametrize("detailed", [False, True])
def test_the_head_is_drawn_as_the_exact_rasteriser_draws_it(capture, detailed):
    """Per pixel: shaded colours, mixed by opacity; within 2 of 255 in all but a few pixels at edges."""
    made = capture.with_layer(detail_capture(FRAMES).detail) if detailed else capture
    renderer = overlay._Renderer(made)
    head, rng = made.head_model, np.random.default_rng(0)
    image = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
    different, covered = 0, 0
    for frame in range(FRAMES):
        patch, (top, left) = renderer.blend(image, frame)
        drawn = image.copy()
        drawn[top : top + patch.shape[0], left : left + patch.shape[1]] = patch
        vertices = torch.as_tensor(made.vertices([frame])[0])
        pixels = made.camera.project(vertices)
        facing = overlay._is_front_facing(pixels.numpy(), head.faces.numpy())
        faces = head.faces[facing]
        exact = rasterise(pixels, vertices[:, 2].contiguous(), faces, SIZE[1], SIZE[0])
        colours = exact.interpolate(renderer._shaded(vertices, frame), faces)
        if detailed:
            atlas = made.detail.atlas(head)
            uv = exact.interpolate(atlas.uv, atlas.uv_faces[facing])
            shading = torch.as_tensor(renderer._detail_shading(vertices, frame))[..., None]
            colours = (colours * sample_texture(shading, uv)).clamp_max(255)
        seen = (exact.triangle >= 0)[..., None]
        background = torch.as_tensor(image)
        expected = torch.where(
            seen, background + overlay.OPACITY * (colours - background), background
        ).numpy()
        different += int((np.abs(drawn - expected).max(-1) > 2).sum())
        covered += int(seen.sum())
    assert covered > 0.1 * FRAMES * SIZE[0] * SIZE[1]
    assert different <= 0.001 * FRAMES * SIZE[0] * SIZE[1]


def test_times_and_sound_are_those_of_the_video(filmed, written):
    clip, original = Clip.open(written), Clip.open(filmed)

    np.testing.assert_allclose([frame.time for frame in clip.frames()], TIMES, atol=1e-4)
    sound, expected = clip.audio(), original.audio()
    onset, expected_onset = (int(np.argmax(np.abs(s) > 0.2)) for s in (sound, expected))
    assert abs(onset - expected_onset) <= 0.005 * 16_000, "the sound is shifted against the pictures"
    assert expected_onset == pytest.approx(0.25 * 16_000, abs=200)


def test_the_blended_layout_is_the_right_half_of_both(capture, written, tmp_path):
    alone = pictures(export_overlay(capture, tmp_path / "blended.mp4", layout="blended"))

    assert alone.shape == (FRAMES, SIZE[1], SIZE[0], 3)
    assert np.abs(alone - pictures(written)[:, :, SIZE[0] :]).mean() < 3


def test_every_frame_is_reported_and_frames_after_the_capture_are_unchanged(capture, filmed, tmp_path):
    count = []
    short = capture.select(slice(0, 3))

    path = export_overlay(short, tmp_path / "o.mp4", video=filmed, on_frame=lambda: count.append(1))

    assert len(count) == FRAMES
    images = pictures(path)
    assert len(images) == FRAMES
    assert np.abs(images[3:] - GREY).max() < 12
    assert np.abs(images[2] - GREY).max() > 30


def test_a_head_outside_the_picture_or_behind_the_camera_changes_nothing(capture, tmp_path):
    for name, place in {"beside": [5, 0, 1], "behind": [0, 0, -1]}.items():
        moved = dataclasses.replace(capture, translation=np.tile(np.float32(place), (FRAMES, 1)))
        images = pictures(export_overlay(moved, tmp_path / f"{name}.mp4"))
        assert np.abs(images - GREY).max() < 12


def test_nobody_else_wears_the_head_in_a_shot_without_the_person(capture, tmp_path):
    shots = {"segment_starts": np.array([0, 4]), "segment_same_person": np.array([True, False])}
    made = dataclasses.replace(capture, **shots)
    images = pictures(export_overlay(made, tmp_path / "shots.mp4"))
    assert (np.abs(images[:4] - GREY).max((1, 2, 3)) > 30).all()
    assert np.abs(images[4:] - GREY).max() < 12


def test_a_missing_video_is_refused_by_its_name(capture, tmp_path):
    lost = dataclasses.replace(capture, source=str(tmp_path / "gone.mp4"))
    with pytest.raises(AvfaceError, match=r"gone\.mp4.*video="):
        export_overlay(lost, tmp_path / "o.mp4")
    with pytest.raises(AvfaceError, match="video="):
        export_overlay(dataclasses.replace(capture, source=""), tmp_path / "o.mp4")
    with pytest.raises(AvfaceError, match=r"other\.mp4"):
        export_overlay(capture, tmp_path / "o.mp4", video=tmp_path / "other.mp4")
    assert list(tmp_path.iterdir()) == []


def test_a_video_of_another_size_is_refused(capture, tmp_path):
    other = dataclasses.replace(capture, image_size=(320, 240))
    with pytest.raises(AvfaceError, match=r"160 x 120.*320 x 240"):
        export_overlay(other, tmp_path / "o.mp4")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_layout_is_refused(capture, tmp_path):
    with pytest.raises(ValueError, match="both, blended"):
        export_overlay(capture, tmp_path / "o.mp4", layout="diagonal")
