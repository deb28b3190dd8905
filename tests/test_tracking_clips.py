"""Tracking of real people: clips in the folder that AVFACE_CLIPS names; skipped without."""

import functools
from dataclasses import dataclass

import av
import numpy as np
import pytest
from real_clips import real_clip

from avface.tracking import track, track_everyone
from avface.tracking.facemesh import FaceMesh

NAMES = {
    "a": "M003_level_1_disgusted_015.mp4",
    "b": "W040_level_3_happy_029.mp4",
    "c": "WDA_AlexandriaOcasioCortez_000.mp4",
    "d": "skarsgard.mp4",
}
SIZE = 240


@dataclass
class Frame:
    index: int
    time: float
    image: np.ndarray


def clip(name, count=40):
    """The first frames of a clip, (240, 240, 3) from its middle."""
    return decoded(name)[:count]


@functools.cache
def decoded(name):
    path = real_clip(NAMES[name])
    images = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            width = round(SIZE * frame.width / frame.height)
            image = frame.to_ndarray(format="rgb24", width=width, height=SIZE, interpolation="AREA")
            left = (width - SIZE) // 2
            images.append(np.ascontiguousarray(image[:, left : left + SIZE]))
            if len(images) == 40:
                break
    return images


def frames(images):
    return (Frame(index, index / 25, image) for index, image in enumerate(images))


def crossing(front, behind):
    """Two heads in ovals, one moving right in front of the other moving left; and where their middles are."""
    width, count = 640, min(len(front), len(behind))
    y, x = np.mgrid[:SIZE, :SIZE] - SIZE / 2
    oval = ((x / 75) ** 2 + (y / 105) ** 2 < 1)[..., None]
    columns = np.arange(width)
    stripes = (90 + 30 * np.sin(columns / 30))[None, :, None]
    images, places = [], []
    for n in range(count):
        image = np.broadcast_to(stripes, (SIZE, width, 3)).astype(np.uint8)
        moved = round((width - SIZE) * n / (count - 1))
        for source, left in ((behind[n], width - SIZE - moved), (front[n], moved)):
            image[:, left : left + SIZE] = np.where(oval, source, image[:, left : left + SIZE])
        images.append(image)
        places.append((moved + SIZE / 2, width - moved - SIZE / 2))
    return images, np.array(places)


def test_points_are_those_of_mediapipes_own_face_mesh():
    images = clip("a", 8)
    found = track(frames(images))
    mediapipe = pytest.importorskip("mediapipe")
    with mediapipe.solutions.face_mesh.FaceMesh(refine_landmarks=True) as reference:
        for image, points, depth in zip(images, found.landmarks, found.depth, strict=True):
            theirs = reference.process(image).multi_face_landmarks[0].landmark
            theirs = np.array([(one.x, one.y, one.z) for one in theirs]) * SIZE
            np.testing.assert_allclose(points, theirs[:, :2] - 0.5, atol=0.1)
            np.testing.assert_allclose(depth, theirs[:, 2], atol=0.1)


@pytest.mark.parametrize("name", NAMES)
def test_every_frame_is_tracked_with_confidence(name):
    found = track(frames(clip(name, 25)))
    assert found.seen.all()
    assert np.min(found.confidence) > 0.7
    assert len(found.segments) == 1


def test_a_mirrored_image_has_mirrored_points():
    # The centre of the image is at (SIZE - 1) / 2: an offset of half a pixel would show twice.
    images = clip("a", 6)
    plain = np.mean(track(frames(images)).landmarks[:], axis=(0, 1))
    mirrored = np.mean(
        track(frames([np.ascontiguousarray(one[:, ::-1]) for one in images])).landmarks[:], axis=(0, 1)
    )
    assert plain[0] + mirrored[0] == pytest.approx(SIZE - 1, abs=0.7)
    assert plain[1] == pytest.approx(mirrored[1], abs=0.7)


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("c", "d")])
def test_a_cut_to_another_person_is_reported_and_not_tracked(first, second):
    one, other = clip(first), clip(second, 12)
    found = track(frames(one[:14] + other + one[26:40]))
    assert [(part.start, part.end, part.same_person) for part in found.segments] == [
        (0, 14, True),
        (14, 26, False),
        (26, 40, True),
    ]
    assert found.segments[1].similarity < 0.3 < 0.7 < found.segments[2].similarity
    np.testing.assert_array_equal(found.seen, [True] * 14 + [False] * 12 + [True] * 14)


@pytest.mark.parametrize(("front", "behind"), [("a", "b"), ("c", "b")])
def test_two_people_who_cross_are_not_swapped(front, behind):
    images, places = crossing(clip(front), clip(behind))
    everyone = track_everyone(frames(images))
    for number, start in enumerate(places[0]):
        found = everyone.select((float(start), SIZE / 2))
        seen = found.seen
        middle = np.array(found.box[:, 0] + found.box[:, 2])[seen] / 2
        apart = np.abs(places[seen, 0] - places[seen, 1]) > 60
        nearest = np.abs(middle[:, None] - places[seen]).argmin(axis=1)
        assert (nearest[apart] == number).all(), "the track has switched to the other face"
        assert seen[:10].all() and seen[-10:].all()


def test_the_face_is_found_again_after_black_frames_in_the_frame_it_returns():
    images = clip("a")
    images = images[:12] + [np.zeros_like(images[0])] * 6 + images[12:24]
    found = track(frames(images))
    np.testing.assert_array_equal(found.seen, [True] * 12 + [False] * 6 + [True] * 12)


def test_the_same_person_mirrored_after_a_cut_is_the_same_person():
    images = clip("d", 24)
    found = track(frames(images[:12] + [np.ascontiguousarray(one[:, ::-1]) for one in images[12:]]))
    assert found.seen.all()
    assert all(part.same_person for part in found.segments)


def test_a_flash_keeps_the_segment():
    images = clip("b", 20)
    images[10] = np.full_like(images[0], 250)
    found = track(frames(images))
    assert len(found.segments) == 1
    assert found.seen.sum() == 19 and not found.seen[10]


def test_small_faces_and_faces_larger_than_the_image_are_found():
    image = clip("a", 1)[0]
    far = np.full((SIZE * 4, SIZE * 6, 3), 90, np.uint8)
    far[300 : 300 + SIZE, 500 : 500 + SIZE] = image
    with FaceMesh() as mesh:
        assert mesh.detect(far) == [], "the face is too large for this test"
        face = mesh.landmarks(image, mesh.detect(image)[0])
    small = track(frames([far] * 3))
    assert small.seen.all()
    np.testing.assert_allclose(small.landmarks[2], face.landmarks[:, :2] + (500, 300), atol=3)

    x0, y0, x1, y1 = (round(edge) for edge in face.box)
    x, y, reach = (x0 + x1) // 2, (y0 + y1) // 2, round(0.36 * (x1 - x0))
    close = np.ascontiguousarray(
        image[y - reach : y + reach, x - reach : x + reach].repeat(3, 0).repeat(3, 1)
    )
    large = track(frames([close] * 3))
    assert large.seen.all()
    assert (large.confidence < 0.9).all(), "part of the face lies outside"


def test_a_portrait_video_is_tracked():
    images = [np.pad(one[:, 60:180], ((150, 60), (0, 0), (0, 0))) for one in clip("a", 6)]
    found = track(frames(images))
    assert found.image_size == (120, 450)
    assert found.seen.all()
