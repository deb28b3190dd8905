import dataclasses
import json

import numpy as np
import pytest
import torch
from captures import moving_capture

from avface.errors import AvfaceError
from avface.evaluation import ClipsReport, evaluate_clips
from avface.evaluation.clips import measure
from avface.evaluation.machine import describe_machine
from avface.geometry.mesh import vertex_normals
from avface.geometry.rasteriser import rasterise
from avface.head.appearance import vertex_colours
from avface.head.measures import box_size
from avface.media import VideoWriter
from avface.tracking import FaceTrack, Segment

FRAMES = 40


@pytest.fixture(scope="module")
def capture():
    return moving_capture(FRAMES)


def tracked(capture, **changes):
    """A track that saw exactly the capture's landmarks."""
    landmarks = capture.landmarks()
    track = FaceTrack(
        landmarks=landmarks,
        depth=np.zeros((len(capture), 478), np.float32),
        confidence=np.ones(len(capture), np.float32),
        box=np.concatenate([landmarks.min(1), landmarks.max(1)], 1),
        times=capture.times,
        segments=(Segment(0, len(capture), True, 1.0),),
        image_size=capture.image_size,
    )
    return dataclasses.replace(track, **changes)


def unsampled(capture):
    return np.full((len(capture), 478, 2), np.nan)


def result(capture, track, static=None, name="a.mp4"):
    return measure(name, capture, track, unsampled(capture) if static is None else static, 30.0, 120.0)


def test_a_perfect_reconstruction_has_perfect_figures(capture):
    found = result(capture, tracked(capture))
    assert (found.frames, found.measured, found.found) == (FRAMES, FRAMES, 100)
    assert max(found.nme478, found.nme68, found.lips, found.lips68) < 1e-5
    assert found.auc10 == pytest.approx(1) and found.auc7 == pytest.approx(1)
    assert found.jitter_ratio == pytest.approx(1) and found.jitter > 0
    assert (found.lag, found.lag_correlation) == (0, pytest.approx(1))
    assert found.largest_shape_weight == np.abs(capture.shape).max()
    assert found.speed_ratio == 0.25
    assert np.isnan(found.noise478) and np.isnan(found.noise_lips)


def test_a_shift_by_a_known_share_of_the_face_is_found_in_all_errors(capture):
    landmarks = capture.landmarks().astype(np.float64)
    shift = 0.02 * box_size(landmarks)[:, None, None] * (0.6, 0.8)
    found = result(capture, tracked(capture, landmarks=landmarks + shift), landmarks)
    assert found.nme478 == pytest.approx(2, abs=0.001)
    assert found.lips == pytest.approx(2, abs=0.001)
    assert found.noise478 == pytest.approx(2, abs=0.001) and found.noise_lips == pytest.approx(2, abs=0.001)
    assert found.nme68 > 2, "the 68 points' box is smaller"
    assert found.auc10 == pytest.approx(1 - found.nme68 / 10)
    assert found.auc7 == pytest.approx(1 - found.nme68 / 7)


def test_frames_without_a_reference_are_left_out_and_counted(capture):
    landmarks, confidence = capture.landmarks(), np.ones(FRAMES, np.float32)
    landmarks[5:9], confidence[5:9] = np.nan, 0
    found = result(capture, tracked(capture, landmarks=landmarks, confidence=confidence))
    assert (found.frames, found.measured) == (FRAMES, FRAMES - 4)
    assert found.nme478 < 1e-5 and found.auc10 == pytest.approx(1) and found.jitter_ratio == pytest.approx(1)


def test_frames_in_which_the_method_saw_no_face_have_the_worst_error(capture):
    confidence = np.ones(FRAMES, np.float32)
    confidence[:10] = 0
    found = result(dataclasses.replace(capture, confidence=confidence), tracked(capture))
    assert found.measured == FRAMES and found.found == 75
    for error in (found.nme478, found.nme68, found.lips, found.lips68):
        assert error == pytest.approx(25, abs=1e-4)
    assert found.auc10 == pytest.approx(0.75)


def test_a_reconstruction_far_off_is_no_worse_than_one_that_saw_nothing(capture):
    found = result(capture, tracked(capture, landmarks=capture.landmarks() + 10_000))
    assert found.nme478 == 100 and found.auc10 == 0


def test_a_reconstruction_without_numbers_is_not_mistaken_for_one_without_figures(capture):
    broken = dataclasses.replace(capture, translation=np.full((FRAMES, 3), np.nan, np.float32))
    assert result(broken, tracked(capture)).nme478 == 100


def test_a_mouth_that_moves_two_frames_late_lags_by_two(capture):
    curve = np.random.default_rng(2).uniform(0, 0.6, FRAMES + 2)
    jaw = capture.expression_names.index("jawOpen")
    late, true = (capture.expression.copy() for _ in range(2))
    true[:, jaw], late[:, jaw] = curve[2:], curve[:-2]
    found = result(
        dataclasses.replace(capture, expression=late),
        tracked(dataclasses.replace(capture, expression=true)),
    )
    assert found.lag == 2 and found.lag_correlation > 0.95


def test_restlessness_is_told_as_a_ratio_to_the_references_and_not_over_cuts(capture):
    landmarks = capture.landmarks()
    landmarks[20:] += 30
    segments = (Segment(0, 20, True, 1.0), Segment(20, FRAMES, True, 1.0))
    assert result(capture, tracked(capture, landmarks=landmarks)).jitter_ratio < 0.9
    cut = result(capture, tracked(capture, landmarks=landmarks, segments=segments))
    assert cut.jitter_ratio == pytest.approx(1, abs=1e-3)


def test_a_track_of_another_clip_is_refused(capture):
    with pytest.raises(ValueError, match="40 frames, the reference 39"):
        result(capture, tracked(capture.select(slice(39))))


def test_a_single_frame_has_errors_but_no_motion(capture):
    one = capture.select([0])
    found = result(one, tracked(one))
    assert found.nme478 < 1e-5
    assert np.isnan(found.jitter_ratio) and np.isnan(found.lag_correlation)


def test_the_bias_of_the_landmarks_explains_nothing_on_the_surface(capture):
    offset = np.zeros((478, 3), np.float32)
    offset[:, 0] = 0.002
    biased = dataclasses.replace(capture, landmark_bias=offset)
    found = result(biased, tracked(biased))
    assert found.nme478 < 1e-4 < 0.5 < found.surface478
    assert found.surface_lips > 0.5 and found.gap_gain == pytest.approx(1, abs=0.05)


@pytest.fixture(scope="module")
def report(capture):
    first = result(capture, tracked(capture), name="first.mp4")
    first = dataclasses.replace(
        first, nme478=1.0, lag=-1, measured=30, largest_shape_weight=2.0, jitter_ratio=0.5
    )
    second = dataclasses.replace(
        first,
        name="second.mp4",
        surface478=3.0,
        surface_lips=2.5,
        nme478=2.0,
        lag=1,
        measured=10,
        jitter_ratio=float("nan"),
        frames=10,
    )
    return ClipsReport((first, second), {"third.mp4": "third.mp4: no face found"}, "a machine")


def test_means_are_over_clips_or_over_frames(report):
    clips, frames = report.mean(), report.mean(by_frame=True)
    assert clips["nme478"] == 1.5 and frames["nme478"] == 1.25
    assert clips["lag"] == 1, "a lag and a lead must not cancel"
    assert clips["jitter_ratio"] == 0.5, "a clip without the figure is left out"
    assert clips["largest_shape_weight"] == 2 and clips["frames"] == 50 and clips["measured"] == 40


def test_the_table_has_a_row_a_clip_and_says_what_is_missing(report):
    lines = report.table().splitlines()
    assert sum(line.startswith("first.mp4 ") for line in lines) == 2
    assert sum(line.startswith("mean of frames") for line in lines) == 2
    assert "not measured: third.mp4: no face found" in lines
    assert "10 frames without a reference are left out of all errors" in lines
    assert lines[-1] == "a machine"
    assert max(map(len, lines)) < 120
    row = next(line for line in lines if line.startswith("second.mp4"))
    assert row.split()[1:6] == ["10", "100.0", "3.00", "2.50", "2.00"], "on the surface first"


def test_json_is_strict_and_has_null_where_a_figure_is_missing(report):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    content = json.loads(report.to_json(), parse_constant=refuse)
    assert [clip["name"] for clip in content["clips"]] == ["first.mp4", "second.mp4"]
    assert content["clips"][1]["jitter_ratio"] is None
    assert content["clips"][0]["speed_ratio"] == 0.25
    assert content["mean_of_clips"]["nme478"] == 1.5 and content["mean_of_frames"]["nme478"] == 1.25
    assert content["failed"] == {"third.mp4": "third.mp4: no face found"}


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(AvfaceError, match="no such folder"):
        evaluate_clips(tmp_path / "missing")
    (tmp_path / "notes.txt").write_text("no video")
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(AvfaceError, match="no videos"):
        evaluate_clips(tmp_path)
    (tmp_path / "broken.mp4").write_bytes(b"no video either")
    with pytest.raises(AvfaceError, match=r"none of its videos.*broken\.mp4"):
        evaluate_clips(tmp_path)


def film(capture, path):
    """A video of the capture's head before a grey wall."""
    head, (width, height) = capture.head_model, capture.image_size
    colours = torch.as_tensor(vertex_colours(head))
    with VideoWriter(path) as writer:
        for frame, time in enumerate(capture.times):
            points = torch.as_tensor(capture.vertices([frame])[0])
            seen = rasterise(capture.camera.project(points), points[:, 2], head.faces, height, width)
            normals = seen.interpolate(vertex_normals(points, head.faces), head.faces)
            picture = seen.interpolate(colours, head.faces) * (0.3 - 0.7 * normals[..., 2:].clamp(-1, 0))
            picture = torch.where(seen.triangle[..., None] < 0, 0.5, picture)
            writer.write((255 * picture.clamp(0, 1)).byte().numpy(), float(time))


def test_a_folder_of_videos_is_reconstructed_and_measured(tmp_path):
    made = moving_capture(10)
    film(made, tmp_path / "made.mp4")
    (tmp_path / "broken.mov").write_bytes(b"no video")
    reports = []
    report = evaluate_clips(tmp_path, progress=lambda *news: reports.append(news))
    (clip,) = report.clips
    assert (clip.name, clip.frames, clip.measured, clip.found) == ("made.mp4", 10, 10, 100)
    assert 0 < clip.nme478 < 3 and 0 < clip.lips < 5
    assert 0 < clip.noise478 < 5, "two of ten frames are sampled in static mode"
    assert clip.fps > 0 and clip.mediapipe_fps > 0
    assert list(report.failed) == ["broken.mov"]
    assert {stage for _, stage, _, _ in reports} == {"reference", "mediapipe", "track", "solve"}
    assert ("made.mp4", "reference", 10, 10) in reports
    assert report.machine.split(";")[0] == describe_machine().split(";")[0]


def test_the_machine_is_told_in_one_line():
    line = describe_machine()
    assert "cores" in line and "mediapipe 0." in line and "\n" not in line
