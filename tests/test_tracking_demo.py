"""Tracking of the rendered demo clip by MediaPipe: a camera that shakes, faces that are upside down, more than four."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest

from avface import Capture, reconstruct
from avface.media import Clip, VideoWriter
from avface.synthetic.demo_clip import DEMO_CLIP
from avface.tracking import track


@dataclass
class Frame:
    time: float
    image: np.ndarray


@functools.cache
def demo(count=60):
    """The first images of the demo clip, (448, 448, 3)."""
    return [frame.image for _, frame in zip(range(count), Clip.open(DEMO_CLIP).frames(), strict=False)]


def frames(images):
    return (Frame(number / 25, image) for number, image in enumerate(images))


def seen_through_a_moving_window(images, offset, side=350):
    """Crops of images at the top left corner that `offset(number)` gives, as a moving camera sees them."""
    corners = (np.rint(offset(number)).astype(int) for number in range(len(images)))
    return [
        np.ascontiguousarray(image[y : y + side, x : x + side])
        for image, (x, y) in zip(images, corners, strict=True)
    ]


def trembling(number):
    return 49 + 44 * np.sin([0.9 * number, 1.1 * number + 1.6])


def hit(number):
    """Still, then elsewhere from one frame to the next, every twelve frames."""
    return np.array([[14.0, 14.0], [70.0, 50.0]][number // 12 % 2])


@pytest.mark.parametrize("motion", [trembling, hit])
def test_a_camera_that_shakes_makes_no_cut(motion):
    found = track(frames(seen_through_a_moving_window(demo(), motion)))
    assert [segment.start for segment in found.segments] == [0]
    assert found.seen.all()


def test_a_cut_to_a_closer_view_of_the_same_face_is_a_cut():
    closer = [np.ascontiguousarray(image[60:-60, 60:-60]) for image in demo()[12:24]]
    closer = [image[np.linspace(0, len(image) - 1, 448).astype(int)] for image in closer]
    closer = [np.ascontiguousarray(image[:, np.linspace(0, 327, 448).astype(int)]) for image in closer]
    found = track(frames(demo()[:12] + closer))
    assert [segment.start for segment in found.segments] == [0, 12]


@pytest.mark.slow
@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_video_that_is_turned_is_followed_the_right_way_up(quarters):
    upright = track(frames(demo(30)))
    turned = track(frames([np.ascontiguousarray(np.rot90(image, quarters)) for image in demo(30)]))
    expected = np.array(upright.landmarks[:])
    for _ in range(quarters):  # counterclockwise: (x, y) is seen at (y, 447 - x)
        expected = np.stack([expected[..., 1], 447 - expected[..., 0]], axis=-1)
    assert turned.seen.all()
    apart = np.linalg.norm(np.array(turned.landmarks[:]) - expected, axis=-1).mean(axis=1)
    assert apart.max() < 0.02 * np.ptp(upright.landmarks[0][:, 1]), "2 % of the height of the face"


@pytest.mark.slow
def test_a_picture_that_is_upside_down_after_a_cut_is_followed_right():
    images = demo()[:12] + [np.ascontiguousarray(image[::-1, ::-1]) for image in demo()[12:24]]
    found = track(frames(images))
    assert [segment.start for segment in found.segments] == [0, 12]
    forehead, chin = found.landmarks[:, 10, 1], found.landmarks[:, 152, 1]
    assert (forehead[:12] < chin[:12]).all() and (forehead[12:] > chin[12:]).all()


@pytest.mark.slow
def test_each_of_nine_faces_is_chosen_by_a_point_on_it():
    small = [image[::2, ::2] for image in demo()[:4]]
    grid = [np.ascontiguousarray(np.tile(image, (3, 3, 1))) for image in small]
    for row in range(3):
        for column in range(3):
            point = (224.0 * column + 112, 224.0 * row + 112)
            found = track(frames(grid), face=point)
            x0, y0, x1, y1 = found.box[-1]
            assert x0 < point[0] < x1 and y0 < point[1] < y1
    assert found.people == 9


@pytest.mark.slow
def test_a_video_whose_pictures_are_turned_is_reconstructed_and_drawn_turned(tmp_path):
    upside_down = tmp_path / "turned.mp4"
    with VideoWriter(upside_down) as writer:
        for number, image in enumerate(demo(12)):
            writer.write(np.ascontiguousarray(image[::-1, ::-1]), number / 25)
    capture = reconstruct(upside_down, rotate=180)
    capture.save(tmp_path / "capture.npz")
    assert Capture.load(tmp_path / "capture.npz").rotate == 180
    assert capture.rotation[:, 0] == pytest.approx(np.full(12, np.pi), abs=0.3), "upright, facing the camera"
    overlay = Clip.open(capture.export(tmp_path / "overlay.mp4"))
    shown = next(iter(overlay.frames())).image[:, :448].astype(int)
    assert np.abs(shown - demo()[0]).mean() < 6, "the frame beside the overlay is upright, too"
