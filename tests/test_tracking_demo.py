"""Tracking of the rendered demo clip by MediaPipe: a camera that shakes, faces that are upside down, more than four."""

import functools
from dataclasses import dataclass

import numpy as np
import pytest

from avface.media import Clip
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
