import gc
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass

import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.tracking import FaceTrack, Tracks, frame_confidence, track, track_everyone
from avface.tracking import tracker as tracker_module
from avface.tracking.aligned_crops import aligned_crop, crop_matrix
from avface.tracking.face_picture import face_picture
from avface.tracking.face_track import BLOCK, POINT_RECORD, RecordFile, StoredArray
from avface.tracking.facemesh import Face, Region

WIDTH, HEIGHT, SIZE = 320, 200, 60
COLOURS = {"ann": (220, 60, 60), "bob": (60, 220, 60), "eve": (60, 60, 220)}


@dataclass
class Frame:
    index: int
    time: float
    image: np.ndarray


def scene(seed):
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    phase = np.random.default_rng(seed).uniform(0.01, 0.05, 4)
    grey = 100 + 20 * np.sin(phase[0] * x + phase[1] * y + seed) + 20 * np.sin(phase[2] * x - phase[3] * y)
    return np.repeat(grey[..., None], 3, axis=2).astype(np.uint8)


SCENES = [scene(1), scene(2)]


def picture(people, background=0):
    """An image with a disc for each person, (name, x, y) or (name, x, y, size), the last in front."""
    image = SCENES[background].copy()
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for name, at_x, at_y, *size in people:
        radius = (size[0] if size else SIZE) / 2
        image[(x - at_x) ** 2 + (y - at_y) ** 2 <= radius**2] = COLOURS[name]
    return image


def frames(images):
    return (Frame(index, index / 25, image) for index, image in enumerate(images))


class DiscMesh:
    """Stands in for MediaPipe: a disc in a person's colour is that person's face, if half of it is visible."""

    detections = 0

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    def _visible(self, image):
        strongest = image.max(axis=-1)
        for channel, name in enumerate(COLOURS):
            y, x = np.nonzero((strongest == 220) & (image[..., channel] == 220))
            if len(x) < 100:
                continue
            width, height = np.ptp(x) + 1, np.ptp(y) + 1
            if len(x) > 0.5 * np.pi / 4 * max(width, height) ** 2 and min(width, height) > 0.8 * max(
                width, height
            ):
                centre = (float(x.min() + x.max()) / 2, float(y.min() + y.max()) / 2)
                yield name, centre, float(height)

    def right_way_up(self, image, face):
        return None

    def detect(self, image, *, thorough=False, turned=False):
        type(self).detections += 1
        return [Region(x, y, 1.5 * size, 0.0) for _, (x, y), size in self._visible(image)]

    def landmarks(self, image, region):
        near = [
            (np.hypot(x - region.x, y - region.y), name, x, y, size)
            for name, (x, y), size in self._visible(image)
        ]
        if not near:
            return None
        gap, name, x, y, size = min(near)
        if gap > 0.35 * size:
            return None
        rng = np.random.default_rng(list(COLOURS).index(name))
        points = rng.uniform(-0.5, 0.5, (478, 3))
        points[10], points[152] = (0, -0.5, 0), (0, 0.5, 0)
        points[234], points[454] = (-0.5, 0, 0), (0.5, 0, 0)
        points[33], points[263] = (-0.2, -0.1, 0), (0.2, -0.1, 0)
        return Face((points * size + (x, y, 0)).astype(np.float32), 1.0)


@pytest.fixture(autouse=True)
def disc_mesh(monkeypatch):
    monkeypatch.setattr(tracker_module, "FaceMesh", DiscMesh)
    monkeypatch.setattr(DiscMesh, "detections", 0)
    return DiscMesh


def centres(found: FaceTrack):
    return np.array((found.box[:, 0] + found.box[:, 2]) / 2)


def test_one_person_is_tracked_in_every_frame():
    path = np.linspace(60, 260, 40)
    found = track(frames(picture([("ann", x, 100)]) for x in path))

    assert found.landmarks.shape == (40, 478, 2) and found.landmarks.dtype == np.float32
    assert found.depth.shape == (40, 478) and found.box.shape == (40, 4)
    assert found.image_size == (WIDTH, HEIGHT)
    np.testing.assert_allclose(centres(found), path, atol=1)
    np.testing.assert_allclose(found.times, np.arange(40) / 25)
    assert (found.confidence > 0.9).all()
    assert [(one.start, one.end, one.same_person) for one in found.segments] == [(0, 40, True)]


def test_the_detector_rarely_runs_while_a_face_is_tracked(disc_mesh):
    track(frames([picture([("ann", 160, 100)])] * 50))
    assert disc_mesh.detections <= 6  # At the start and every 0.4 of 2 seconds.


def test_frames_without_the_face_are_nan_and_the_face_is_found_again():
    images = [picture([("ann", 160, 100)] if not 10 <= n < 22 else []) for n in range(40)]
    found = track(frames(images))

    unseen = np.zeros(40, bool)
    unseen[10:22] = True
    np.testing.assert_array_equal(~found.seen, unseen)
    np.testing.assert_array_equal(found.confidence == 0, unseen)
    np.testing.assert_array_equal(np.isnan(found.landmarks).all(axis=(1, 2)), unseen)
    assert np.isfinite(found.landmarks[~unseen]).all()
    assert np.isnan(found.depth[unseen]).all() and np.isnan(found.box[unseen]).all()


def test_the_most_prominent_person_comes_first():
    images = [
        picture([("bob", 60, 100, 50), ("ann", 160, 100, 80), ("eve", 270, 100, 50)]) for _ in range(12)
    ]
    images += [picture([("bob", 60, 100, 50), ("ann", 160, 100, 80)]) for _ in range(12)]
    everyone = track_everyone(frames(images))

    assert [everyone.frames_seen(n) for n in range(len(everyone))] == [24, 24, 12]
    assert [np.nanmean(centres(everyone.select(n))) for n in range(3)] == pytest.approx([160, 60, 270], abs=1)
    assert np.nanmean(centres(everyone.select())) == pytest.approx(160, abs=1)
    last = everyone.select(2)
    assert last.seen.tolist() == [True] * 12 + [False] * 12
    assert len(last) == 24


def test_a_point_selects_the_face_under_it():
    images = [picture([("ann", 80, 100)])] * 8
    images += [picture([("ann", 80, 100), ("bob", 240, 100)])] * 16
    everyone = track_everyone(frames(images))
    bob = everyone.person_at((250.0, 90.0))
    assert np.nanmean(centres(everyone.select(bob))) == pytest.approx(240, abs=1)
    assert everyone.person_at((80.0, 110.0)) == 1 - bob
    assert everyone.person_at((80.0, 62.0)) == 1 - bob, "the hair above the landmarks belongs to the face"
    assert np.nanmean(centres(track(frames(images), face=(250, 90)))) == pytest.approx(240, abs=1)


def test_a_point_without_a_face_is_refused_with_a_list_of_who_is_there():
    images = [picture([("ann", 80, 100, 70)])] * 8
    images += [picture([("ann", 80, 100, 70), ("bob", 240, 100)])] * 16
    with pytest.raises(AvfaceError) as refused:
        track(frames(images), face=(300.0, 10.0))
    text = str(refused.value)
    assert "300,10" in text
    assert "face 0 at 80,100 in frame 0, face 1 at 240,100 in frame 10" in text, (
        "the detector runs every 0.4 s"
    )


def test_as_many_faces_are_followed_as_are_asked_for(monkeypatch):
    monkeypatch.setattr(tracker_module, "FACES_AT_ONCE", 1)
    images = [picture([("ann", 60, 100, 40), ("bob", 160, 100, 50), ("eve", 260, 100, 70)])] * 6
    assert np.nanmean(centres(track(frames(images)))) == pytest.approx(260, abs=1)
    assert np.nanmean(centres(track(frames(images), face=(60.0, 100.0)))) == pytest.approx(60, abs=1)
    last = track(frames(images), face=2)
    assert np.nanmean(centres(last)) == pytest.approx(60, abs=1)
    assert (last.person, last.people) == (2, 3)
    with pytest.raises(AvfaceError, match=r"face 5 .* shows 3 .*face 2 at 60,100 in frame 0"):
        track(frames(images), face=5)


@pytest.mark.parametrize("front", ["ann", "bob"])
def test_two_faces_that_cross_are_not_swapped(front):
    forth = np.linspace(50, 270, 45)
    back = forth[::-1]
    images = []
    for a, b in zip(forth, back, strict=True):
        people = [("ann", a, 100), ("bob", b, 104)]
        images.append(picture(people[::-1] if front == "ann" else people))
    everyone = track_everyone(frames(images))

    assert len(everyone) == 2
    ann, bob = everyone.select((50.0, 100.0)), everyone.select((270.0, 104.0))
    assert ann.seen.sum() > 25 and bob.seen.sum() > 25
    np.testing.assert_allclose(centres(ann)[ann.seen], forth[ann.seen], atol=8)
    np.testing.assert_allclose(centres(bob)[bob.seen], back[bob.seen], atol=8)
    # The visible rest of a half occluded disc has its centre off by up to 6 pixels; the two are 30 apart then.
    assert ann.seen[-1] and bob.seen[-1] and not (ann.seen.all() and bob.seen.all())


def test_a_cut_to_another_person_starts_a_segment_without_the_first():
    images = [picture([("ann", 160, 100)])] * 14 + [picture([("bob", 165, 100)], 1)] * 10
    images += [picture([("ann", 100, 90)])] * 8
    found = track(frames(images))

    assert [(one.start, one.end) for one in found.segments] == [(0, 14), (14, 24), (24, 32)]
    assert [one.same_person for one in found.segments] == [True, False, True]
    first, second, third = (one.similarity for one in found.segments)
    assert first == 1 and second < 0.2 and third > 0.8
    assert found.seen.tolist() == [True] * 14 + [False] * 10 + [True] * 8


def test_a_segment_without_a_face_has_no_similarity():
    images = [picture([("ann", 160, 100)])] * 8 + [picture([], 1)] * 6
    found = track(frames(images))
    assert [one.same_person for one in found.segments] == [True, False]
    assert np.isnan(found.segments[1].similarity)


def test_a_background_that_changes_behind_a_still_speaker_is_no_cut():
    images = [picture([("ann", 160, 100)])] * 10 + [picture([("ann", 160, 100)], 1)] * 10
    found = track(frames(images))
    assert len(found.segments) == 1
    assert found.seen.all()


def test_progress_counts_frames():
    counts = []
    track(frames([picture([("ann", 160, 100)])] * 7), on_frame=counts.append)
    assert counts == [1, 2, 3, 4, 5, 6, 7]


def test_frames_are_taken_one_by_one():
    taken = 0

    def source():
        nonlocal taken
        for frame in frames([picture([("ann", 160, 100)])] * 20):
            taken += 1
            yield frame

    ahead = []
    track(source(), on_frame=lambda done: ahead.append(taken - done))
    assert max(ahead) <= 2


def test_points_lie_in_files_that_leave_no_trace(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    found = track(frames([picture([("ann", 160, 100)])] * 20))
    assert list(tmp_path.iterdir()) == [], (
        "the file must have no name, so that even a killed process leaves none"
    )
    assert isinstance(found.landmarks, StoredArray) and isinstance(found.depth, StoredArray)

    def open_files():
        links = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
        return [one for one in map(os.readlink, filter(os.path.islink, links)) if str(tmp_path) in one]

    if os.path.exists("/proc/self/fd"):
        assert len(open_files()) == 1, "one for the track, none any more for the sightings"
        depth = found.depth
        del found
        gc.collect()
        assert np.isfinite(depth[3]).all(), "the last field keeps the file"
        del depth
        gc.collect()
        assert open_files() == []


MEMORY_OF_LONG_STREAMS = """
import sys
from types import SimpleNamespace

import numpy as np

from avface.tracking import track, tracker
from avface.tracking.facemesh import Face, Region

points = np.random.default_rng(0).uniform(10, 50, (478, 3)).astype(np.float32)


class StillMesh:
    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        pass

    def right_way_up(self, image, face):
        return None

    def detect(self, image, *, thorough=False, turned=False):
        return [Region(30.0, 30.0, 60.0, 0.0)]

    def landmarks(self, image, region):
        return Face(points.copy(), 1.0)


tracker.FaceMesh = StillMesh
tracker.describe = lambda image, landmarks, known=tracker.describe(np.zeros((64, 64, 3), np.uint8), points): known


def peak(count):
    images = (np.zeros((64, 64, 3), np.uint8) for _ in range(count))
    found = track(SimpleNamespace(time=n / 25, image=image) for n, image in enumerate(images))
    for start in range(0, count, 100):
        assert np.isfinite(found.landmarks[start : start + 100]).all() and np.isfinite(found.depth[start]).all()
    assert found.seen.all() and len(found.box) == count
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


short = peak(1000)
print(peak(6000) - short)
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux's account of memory")
def test_memory_does_not_grow_with_the_clip():
    found = subprocess.run(
        [sys.executable, "-c", MEMORY_OF_LONG_STREAMS], capture_output=True, text=True, check=True
    )
    # A frame's points take 5.7 kB, so holding them would take 29 MB more for 5000 more frames.
    assert int(found.stdout) < 7500, f"{found.stdout.strip()} kB more for 5000 frames more"


def test_a_track_outlives_the_tracks_it_was_taken_from():
    everyone = track_everyone(frames([picture([("ann", 160, 100)])] * 6))
    assert isinstance(everyone, Tracks)
    with everyone:
        found = everyone.select()
    assert np.isfinite(found.landmarks).all()


def test_a_failing_source_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def source():
        yield from frames([picture([("ann", 160, 100)])] * 5)
        raise RuntimeError("broken stream")

    with pytest.raises(RuntimeError, match="broken stream"):
        track(source())
    assert list(tmp_path.iterdir()) == []


def test_a_full_or_missing_temporary_folder_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(AvfaceError, match=r"gone.*TMPDIR"):
        track(frames([picture([("ann", 160, 100)])] * 3))


def test_records_come_back_as_written_and_more_can_follow():
    file = RecordFile(np.dtype([("a", "<f4", (3,)), ("b", "<i4")]))
    assert len(file) == 0 and list(file.blocks()) == []
    records = np.zeros(7, file.dtype)
    records["b"] = np.arange(7)
    file.append(records[:2])
    np.testing.assert_array_equal(file.read(1, 2), records[1:2])
    file.append(records[2:])
    np.testing.assert_array_equal(file.read(0, 7), records)
    assert [one["b"].tolist() for one in file.blocks(3)] == [[0, 1, 2], [3, 4, 5], [6]]
    with pytest.raises(EOFError):
        file.read(6, 8)


def stored():
    records = np.zeros(2 * BLOCK + 5, POINT_RECORD)
    rng = np.random.default_rng(0)
    records["landmarks"], records["depth"] = (
        rng.random((len(records), 478, 2)),
        rng.random((len(records), 478)),
    )
    file = RecordFile(POINT_RECORD)
    file.append(records)
    return StoredArray(file, "landmarks"), np.array(records["landmarks"])


@pytest.mark.parametrize(
    "key",
    [
        np.s_[0],
        np.s_[-1],
        np.int64(BLOCK),
        np.s_[3:9],
        np.s_[BLOCK - 2 : 2 * BLOCK + 1],
        np.s_[:],
        np.s_[-4:],
        np.s_[9:3],
        np.s_[5:10_000],
        np.s_[::7],
        np.s_[10:2:-1],
        np.s_[..., 1],
        np.s_[4, :, 0],
        np.s_[4, ..., [0]],
        np.s_[4:6, [1, 2], [0, 1]],
        np.s_[[5, 2, 5]],
        np.arange(2 * BLOCK + 5) % 3 == 0,
        None,
    ],
    ids=str,
)
def test_an_array_on_disk_is_indexed_like_one_in_memory(key):
    on_disk, in_memory = stored()
    assert (on_disk.shape, on_disk.dtype, on_disk.ndim, len(on_disk)) == (
        in_memory.shape,
        in_memory.dtype,
        in_memory.ndim,
        len(in_memory),
    )
    result = on_disk[key]
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, in_memory[key], strict=True)


def test_an_array_on_disk_goes_into_numpys_functions_and_loops():
    on_disk, in_memory = stored()
    np.testing.assert_array_equal(np.asarray(on_disk, np.float64), in_memory.astype(np.float64), strict=True)
    np.testing.assert_array_equal(np.isnan(on_disk), np.isnan(in_memory))
    assert np.mean(on_disk) == np.mean(in_memory)
    np.testing.assert_array_equal(np.stack(list(on_disk)), in_memory)
    with pytest.raises(IndexError):
        on_disk[len(in_memory)]
    with pytest.raises(TypeError):
        on_disk[0] = 0


def test_no_face_anywhere_is_an_error_for_the_user():
    with pytest.raises(AvfaceError, match="no face found in any of 5 frames"):
        track(frames([picture([])] * 5))


def test_no_frames_is_an_error_for_the_user():
    with pytest.raises(AvfaceError, match="no frames"):
        track(frames([]))


@pytest.mark.parametrize("face", [1, -1])
def test_a_person_who_is_not_there_is_an_error_for_the_user(face):
    with pytest.raises(AvfaceError, match=rf"face {face} was asked for, but the video shows 1"):
        track(frames([picture([("ann", 160, 100)])] * 5), face=face)


def test_frames_of_two_sizes_are_refused():
    images = [picture([("ann", 160, 100)])] * 4 + [picture([("ann", 160, 100)])[:150]]
    with pytest.raises(AvfaceError, match="frame 4 is 320 x 150"):
        track(frames(images))


def test_max_faces_must_be_positive():
    with pytest.raises(ValueError, match="max_faces=0"):
        track(frames([]), max_faces=0)


def test_max_faces_keeps_the_largest():
    images = [picture([("ann", 60, 100, 40), ("bob", 160, 100, 50), ("eve", 260, 100, 70)])] * 6
    everyone = track_everyone(frames(images), max_faces=2)
    assert len(everyone) == 2
    assert sorted(np.nanmean(centres(everyone.select(n))) for n in range(2)) == pytest.approx(
        [160, 260], abs=1
    )


def face(size=100.0, at=(160.0, 100.0), presence=1.0):
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (478, 3)) * size + (*at, 0)
    return Face(points.astype(np.float32), presence)


def test_confidence_falls_with_size_presence_and_points_outside_the_image():
    frame = (320, 200)
    assert frame_confidence(face(), frame) == pytest.approx(1)
    assert frame_confidence(face(size=15), frame) == pytest.approx(0.5, abs=0.02)
    half_out = frame_confidence(face(at=(0.0, 100.0)), frame)
    assert half_out == pytest.approx(0.5, abs=0.05)
    assert 0.3 < frame_confidence(face(presence=0.95), frame) < 0.5
    assert frame_confidence(face(presence=0.5), frame) == pytest.approx(0.01)


def test_confidence_falls_with_acceleration_but_not_with_steady_motion():
    frame = (320, 200)
    still, moved, on = face(at=(100.0, 100.0)), face(at=(120.0, 100.0)), face(at=(140.0, 100.0))
    assert frame_confidence(on, frame, moved, still) == pytest.approx(1)
    leap = frame_confidence(face(at=(180.0, 100.0)), frame, still, still)
    assert leap < 0.1


def test_aligned_crops_are_spread_over_the_clip():
    images = [picture([("ann", 80 + 2 * n, 100), ("bob", 250, 90, 50)]) for n in range(40)]
    found = track(frames(images), pictures=True)
    crops = found.aligned_crops
    assert 8 <= len(crops) <= 16 and crops.frames[0] == 0 and crops.frames[-1] >= 35
    assert (np.diff(crops.frames) > 0).all()
    for number, frame in enumerate(crops.frames):
        np.testing.assert_allclose(crops.landmarks[number], found.landmarks[frame], atol=1e-3)
        expected = aligned_crop(images[frame], crop_matrix(found.landmarks[frame]))
        np.testing.assert_array_equal(crops.pictures[number], expected)
    assert track(frames(images)).aligned_crops is None


def test_a_picture_of_the_face_is_kept_of_every_frame_that_shows_it():
    images = [picture([("ann", 80 + 2 * n, 100), ("bob", 250, 90, 50)]) for n in range(12)]
    images[5] = picture([("bob", 250, 90, 50)])
    found = track(frames(images), pictures=True)
    assert found.pictures.shape[0] == 12
    for number, image in enumerate(images):
        if found.confidence[number] > 0:
            expected = face_picture(image, found.landmarks[number])
            np.testing.assert_array_equal(found.pictures[number], expected)
        else:
            assert not found.pictures[number].any()
    assert not found.confidence[5] and found.confidence[6:].all()
    assert track(frames(images)).pictures is None
