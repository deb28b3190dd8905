"""From a real video to a capture. Real clips are in the folder AVFACE_CLIPS; tests of them are skipped without it."""

from pathlib import Path

import numpy as np
import pytest
from export_heads import jawed_capture
from real_clips import real_clip
from videos import constant_rate, noises, write_video

import avface
import avface.tracking
from avface.errors import AvfaceError
from avface.head import load_head
from avface.head.schemes import LIPS_INNER_LOWER, LIPS_INNER_UPPER

# One real clip


@pytest.fixture(scope="module")
def clip():
    return real_clip("M003_level_1_disgusted_015.mp4")


@pytest.fixture(scope="module")
def reconstruction(clip):
    reports = []
    capture = avface.reconstruct(clip, progress=lambda *args: reports.append(args))
    return capture, reports


@pytest.fixture(scope="module")
def reference(clip):
    """The track of the clip's most prominent person."""
    from avface.media import Clip
    from avface.tracking import track

    return track(Clip.open(clip).frames())


@pytest.mark.slow
def test_every_frame_of_the_video_has_its_row_at_its_time(reconstruction, clip):
    import av

    with av.open(str(clip)) as container:
        stream = container.streams.video[0]
        times = sorted(float(frame.pts * stream.time_base) for frame in container.decode(stream))
        size = (stream.width, stream.height)
    capture, _ = reconstruction

    assert len(capture) == len(times) and capture.image_size == size
    np.testing.assert_allclose(capture.times, np.array(times) - times[0], atol=1e-4)
    assert capture.vertices(0).shape == (1, capture.head_model.num_vertices, 3)
    assert (capture.confidence > 0.3).all()
    assert capture.source == str(clip) and capture.provenance["focal length"] == "estimated"


@pytest.mark.slow
def test_the_landmarks_fit_the_picture(reconstruction, reference):
    capture, _ = reconstruction
    points = reference.landmarks[:]
    size = np.sqrt(np.ptp(points, axis=1).prod(-1))

    error = np.linalg.norm(capture.landmarks() - points, axis=2).mean(1) / size
    assert 100 * error.mean() < 1.6
    assert 100 * error.max() < 5


@pytest.mark.slow
def test_the_mouth_opens_in_step_with_the_tracked_landmarks(reconstruction, reference):
    def opening(points):
        gap = (points[:, LIPS_INNER_LOWER, 1] - points[:, LIPS_INNER_UPPER, 1]).mean(1)
        return gap - gap.mean()

    found, true = opening(reconstruction[0].landmarks()), opening(np.asarray(reference.landmarks[:]))
    inner = slice(8, -8)
    match = [np.dot(np.roll(found, -lag)[inner], true[inner]) for lag in range(-6, 7)]

    assert int(np.argmax(match)) - 6 == 0
    assert np.corrcoef(found, true)[0, 1] > 0.9


@pytest.mark.slow
def test_the_person_is_plausible(reconstruction):
    capture, _ = reconstruction

    assert np.abs(capture.shape).max() <= 3 + 1e-5
    assert capture.expression.min() >= 0 and capture.expression.max() <= 1
    assert np.abs(np.diff(capture.rotation, axis=0)).max() < 0.3, "no jump"
    assert capture.translation[:, 2].min() > 0.15 and capture.translation[:, 2].max() < 5
    assert 0.5 < capture.focal_length / max(capture.image_size) < 5
    neck = capture.joint_names.index("neck")
    assert (capture.joints[:, neck] == 0).all() and np.abs(capture.joints).max() < 0.9


@pytest.mark.slow
def test_progress_counts_every_frame_of_all_stages(reconstruction):
    capture, reports = reconstruction
    frames, stages = len(capture), ("track", "solve", "lips")
    tracked, *others = ([done for name, done, _ in reports if name == stage] for stage in stages)
    counts = [len(tracked), *map(len, others)]
    assert [name for name, _, _ in reports] == [
        name for name, count in zip(stages, counts, strict=True) for _ in range(count)
    ]
    assert tracked == list(range(1, frames + 1))
    for done in others:
        assert done and done[0] == 0, "a stage is reported before its first result"
        assert done == sorted(done) and done[-1] == frames
    assert {total for _, _, total in reports} == {frames}


# Bad input


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"focal_length": 0}, "focal length 0: must be a finite number above 0 pixels"),
        ({"face": -1}, "face -1: people are numbered from 0"),
        ({"device": "abacus"}, "device abacus: can't be used"),
        ({"stages": ("hair",)}, "no such stage as 'hair'"),
    ],
)
def test_arguments_that_cannot_work_are_refused_before_the_video_is_opened(tmp_path, arguments, message):
    with pytest.raises(AvfaceError, match=message):
        avface.reconstruct(tmp_path / "missing.mp4", **arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"focal_length": 1e-6}, r"noise\.mp4: focal length 1e-06: must be from "),
        ({"face": (5000, 1)}, r"noise\.mp4: face 5000,1: is outside the pictures"),
    ],
)
def test_arguments_that_do_not_fit_the_video_are_refused_before_it_is_tracked(
    tmp_path, monkeypatch, arguments, message
):
    monkeypatch.setattr(avface.tracking, "track", lambda *_, **__: pytest.fail("too late"))
    video = write_video(tmp_path / "noise.mp4", noises(3), constant_rate(3))

    with pytest.raises(AvfaceError, match=message):
        avface.reconstruct(video, **arguments)


@pytest.mark.parametrize(
    ("head", "message"),
    [("nobody", "nobody: unknown head"), (Path("none.npz"), r"none\.npz: no such head file")],
)
def test_an_unknown_head_is_refused_before_the_video_is_tracked(tmp_path, monkeypatch, head, message):
    monkeypatch.setattr(avface.tracking, "track", lambda *_, **__: pytest.fail("too late"))
    video = write_video(tmp_path / "noise.mp4", noises(3), constant_rate(3))

    with pytest.raises(AvfaceError, match=message):
        avface.reconstruct(video, head=head)


def test_networks_that_cannot_be_used_are_refused_before_the_video_is_tracked(tmp_path, monkeypatch):
    monkeypatch.setattr(avface.tracking, "track", lambda *_, **__: pytest.fail("too late"))
    video = write_video(tmp_path / "noise.mp4", noises(3), constant_rate(3))

    with pytest.raises(AvfaceError, match=r"none\.safetensors: no such file"):
        avface.reconstruct(video, networks=tmp_path / "none.safetensors")


def test_a_head_without_landmarks_is_refused_before_the_video_is_tracked(tmp_path, monkeypatch):
    monkeypatch.setattr(avface.tracking, "track", lambda *_, **__: pytest.fail("too late"))
    head = jawed_capture(tmp_path).head
    video = write_video(tmp_path / "noise.mp4", noises(3), constant_rate(3))

    with pytest.raises(AvfaceError, match="no landmark scheme 'mediapipe478'"):
        avface.reconstruct(video, head=head)


def test_a_video_without_a_face_is_refused_by_its_name(tmp_path):
    video = write_video(tmp_path / "noise.mp4", noises(3), constant_rate(3))

    with pytest.raises(AvfaceError, match=r"noise\.mp4: no face found in any"):
        avface.reconstruct(video)


def test_a_missing_video_is_refused_by_its_name(tmp_path):
    with pytest.raises(AvfaceError, match=r"none\.mp4"):
        avface.reconstruct(tmp_path / "none.mp4")


# Eyes


def test_gaze_becomes_the_rotation_of_the_eye_joints():
    from avface.stages.coarse import _joints

    head = load_head("open")

    class Fit:
        gaze = np.arange(8.0).reshape(2, 2, 2)

    joints = _joints(head, Fit())

    assert joints.shape == (2, 3, 3)
    np.testing.assert_array_equal(joints[:, head.joint_names.index("left_eye"), :2], Fit.gaze[:, 0])
    np.testing.assert_array_equal(joints[:, head.joint_names.index("right_eye"), :2], Fit.gaze[:, 1])
    assert (joints[..., 2] == 0).all() and (joints[:, head.joint_names.index("neck")] == 0).all()
