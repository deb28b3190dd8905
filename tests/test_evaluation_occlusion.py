import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from captures import moving_capture
from real_clips import real_clip
from test_evaluation_clips import film

from avface.errors import AvfaceError
from avface.evaluation import occlusion as protocol
from avface.evaluation.occluded_clips import (
    OccludedClip,
    OccludedClipsConfig,
    make_occluded_clip,
    make_whole_face_clip,
    plan_events,
)
from avface.evaluation.occlusion import (
    CARRY,
    HOLD,
    INTERPOLATE,
    TRACKER,
    OcclusionReport,
    estimates,
    evaluate_occlusion,
    head_motion_percent,
    measure_case,
    occluded_figures,
    upper_face,
)
from avface.evaluation.occlusion_whole_face import WholeFaceReport, whole_face_case
from avface.head.measures import box_size
from avface.head.schemes import LEFT_EYE, LIPS, LIPS_INNER_LOWER, LIPS_INNER_UPPER
from avface.media import Clip
from avface.synthetic.occlusion.compositing import covered_landmarks, occlude
from avface.synthetic.occlusion.plan import OcclusionEvent
from avface.synthetic.occlusion.video import occlusion_rng

FRAMES = 60


@pytest.fixture(scope="module")
def landmarks():
    return moving_capture(FRAMES).landmarks().astype(np.float64)


def covering(frames, points=LIPS, count=FRAMES):
    covered = np.zeros((count, 478), bool)
    covered[np.ix_(frames, points)] = True
    return covered


def made_clip(landmarks, covered, **changes):
    clip = OccludedClip(Path("a.mp4"), 0, Path("o.mp4"), landmarks, covered, np.arange(len(landmarks)) / 25)
    return dataclasses.replace(clip, **changes)


def test_a_frame_is_hidden_when_over_half_of_the_lips_are_covered(landmarks):
    covered = covering([3, 4]) | covering([5], LIPS[:21]) | covering([6], LIPS[:20])
    clip = made_clip(landmarks, covered)
    assert np.flatnonzero(clip.lips_occluded).tolist() == [3, 4, 5]
    assert np.flatnonzero(~clip.clear).tolist() == [3, 4, 5, 6]


def test_frames_with_something_over_the_eyes_are_not_clear_and_those_without_a_face_neither(landmarks):
    lost = landmarks.copy()
    lost[9] = np.nan
    clip = made_clip(lost, covering([2], np.arange(100)) | covering([9]) | covering([4], LEFT_EYE[:3]))
    assert not clip.clear[2] and clip.clear[4]
    assert not clip.clear[9] and not clip.lips_occluded[9]


def test_a_clip_that_is_never_clear_makes_do_with_frames_that_are_not_hidden(landmarks):
    covered = covering(range(FRAMES), LIPS[:1]) | covering([1, 2])
    assert np.flatnonzero(~made_clip(landmarks, covered).clear).tolist() == [1, 2]


def test_the_right_answer_has_no_error_and_follows_the_mouth(landmarks):
    occluded = np.arange(FRAMES) % 20 > 8
    figures = occluded_figures(landmarks, landmarks, occluded)
    assert (figures.nme478, figures.lips) == (0, 0)
    assert figures.opening == pytest.approx(1) and figures.opening_within == pytest.approx(1)


def test_errors_are_of_hidden_frames_alone_in_per_cent_of_the_face(landmarks):
    occluded = np.arange(FRAMES) < 5
    off = landmarks + 0.03 * box_size(landmarks)[:, None, None] * [0.6, 0.8]
    off[20:] += 1000
    figures = occluded_figures(off, landmarks, occluded)
    assert figures.nme478 == pytest.approx(3) and figures.lips == pytest.approx(3)
    lips_only = landmarks.copy()
    lips_only[:, LIPS] = off[:, LIPS]
    figures = occluded_figures(lips_only, landmarks, occluded)
    assert figures.lips == pytest.approx(3) and figures.nme478 == pytest.approx(3 * 40 / 478)


def test_what_is_not_a_number_or_far_away_has_the_worst_error(landmarks):
    occluded = np.arange(FRAMES) < 4
    off = landmarks.copy()
    off[:2], off[2:4] = np.nan, 1e6
    figures = occluded_figures(off, landmarks, occluded)
    assert figures.nme478 == figures.lips == 100
    assert figures.opening == 0


def test_a_mouth_that_is_held_follows_nothing_within_a_gap(landmarks):
    """Even though the true face, by whose box errors are measured, grows when its mouth opens."""
    occluded = (np.arange(FRAMES) > 10) & (np.arange(FRAMES) < 30) | (np.arange(FRAMES) > 40)
    held = landmarks.copy()
    held[11:30], held[41:] = landmarks[10], landmarks[40]
    figures = occluded_figures(held, landmarks, occluded)
    assert figures.opening_within == 0 and abs(figures.opening) > 0.01


def test_a_mouth_that_does_the_opposite_is_told(landmarks):
    upper, lower = (int(ring[4]) for ring in (LIPS_INNER_UPPER, LIPS_INNER_LOWER))
    occluded = np.ones(FRAMES, bool)
    size = box_size(landmarks).mean()
    true, opposite = landmarks.copy(), landmarks.copy()
    curve = 0.05 * (1 + np.sin(np.arange(FRAMES)))
    true[:, lower] = true[:, upper] + np.stack([0 * curve, curve * size], 1)
    opposite[:, lower] = opposite[:, upper] + np.stack([0 * curve, (0.1 - curve) * size], 1)
    assert occluded_figures(opposite, true, occluded).opening == pytest.approx(-1)


def test_the_baselines_are_what_their_names_say(landmarks):
    covered = covering(range(20, 30))
    tracked = landmarks.copy()
    tracked[20:30] += 40
    tracked[27] = np.nan
    made = estimates(made_clip(landmarks, covered), tracked)
    assert list(made) == [TRACKER, HOLD, INTERPOLATE, CARRY]
    np.testing.assert_array_equal(made[TRACKER][27], tracked[26])
    np.testing.assert_array_equal(made[HOLD][25], landmarks[19])
    line = landmarks[19] + (landmarks[30] - landmarks[19]) * 6 / 11
    np.testing.assert_allclose(made[INTERPOLATE][25], line)
    upper = upper_face()
    np.testing.assert_array_equal(made[CARRY][25][upper], tracked[25][upper])
    assert not upper[LIPS].any() and upper[LEFT_EYE].all()
    case = measure_case(made_clip(landmarks, covered), made, lost=1)
    assert case.hidden == 10 and case.lost == 1 and list(case.figures) == list(made)


def test_a_clip_whose_face_is_lost_while_it_is_clear_is_refused(landmarks):
    with pytest.raises(AvfaceError, match=r"a\.mp4"):
        estimates(made_clip(landmarks, covering([3])), np.full_like(landmarks, np.nan))
    with pytest.raises(AvfaceError, match="never occluded; try another seed"):
        measure_case(made_clip(landmarks, covering([])), {})


def test_motion_is_in_per_cent_of_the_face_a_second(landmarks):
    still = np.repeat(landmarks[:1], FRAMES, 0)
    times = np.arange(FRAMES) / 25
    assert head_motion_percent(still, times) == 0
    step = 0.002 * box_size(still)[0]
    moving = still + np.arange(FRAMES)[:, None, None] * [step, 0]
    assert head_motion_percent(moving, times) == pytest.approx(5, rel=0.01)
    assert head_motion_percent(moving[:20], times[:20]) == pytest.approx(5, rel=0.01)


@pytest.mark.parametrize("frames", [30, 41, 118, 300, 900])
@pytest.mark.parametrize("slack", [1.15, 1.7])
def test_stays_are_inside_apart_and_as_long_as_wanted(frames, slack):
    config = OccludedClipsConfig()
    events = plan_events(np.random.default_rng(frames), frames, 25.0, config, slack)
    covered = np.zeros(frames, int)
    for stay in events:
        covered[stay.start : stay.stop] += 1
        assert 0 < stay.start < stay.stop < frames and stay.enters and stay.leaves
    assert covered.max() == 1
    assert covered.mean() == pytest.approx(slack * config.share, abs=0.06)
    assert len(events) == max(1, round(config.share * frames / (config.stretch * 25)))


def test_what_would_be_covered_is_what_is_covered(landmarks):
    """Of frames like the pictures: same places, same colour of skin or none."""
    events = (OcclusionEvent(10, 30, True, True),)
    config = dataclasses.replace(protocol_config(), kinds=("cup",))
    grey = np.full((240, 320, 3), 128, np.uint8)
    landmarks = landmarks[:50]
    frames = occlude((grey for _ in landmarks), landmarks, occlusion_rng(5), config, events)
    made = np.stack([frame.landmark_occluded for frame in frames])
    planned = covered_landmarks(landmarks, (320, 240), occlusion_rng(5), config, events, 5)
    assert made.any()
    assert (planned != made[::5]).mean() < 0.01


def protocol_config():
    from avface.synthetic.occlusion.plan import OcclusionConfig

    return OcclusionConfig(mouth_share=1.0)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("clean") / "made.mp4"
    film(moving_capture(24), path)
    return path


def test_an_occluded_clip_is_made_once_and_kept(video, tmp_path, monkeypatch):
    config = OccludedClipsConfig(kinds=("cup",), trials=1)
    made = make_occluded_clip(video, 1, tmp_path, config)
    assert 0 < made.lips_occluded.mean() < 0.7 and made.clear.any()
    assert made.name == "made #1" and made.known.all()
    assert sorted(path.name for path in made.video.parent.iterdir()) == ["occluded.mp4", "truth.npz"]
    monkeypatch.setattr("avface.evaluation.occluded_clips._make", None)
    again = make_occluded_clip(video, 1, tmp_path, config)
    np.testing.assert_array_equal(again.covered, made.covered)
    truth = made.video.parent / "truth.npz"
    with np.load(truth) as archive:
        arrays = dict(archive)
    np.savez(truth, **{**arrays, "version": 1})
    with pytest.raises(AvfaceError, match=r"truth\.npz: version 1, not 2; remove .* and run again"):
        make_occluded_clip(video, 1, tmp_path, config)
    truth.write_bytes(b"damaged")
    with pytest.raises(AvfaceError, match=r"truth\.npz: damaged"):
        make_occluded_clip(video, 1, tmp_path, config)


def test_the_protocol_measures_methods_and_names_what_it_cannot(video, tmp_path, monkeypatch):
    truth = moving_capture(24)
    asked = []

    def reconstruct(path, *, progress, **options):
        asked.append(options)
        return truth if options["audio"] else dataclasses.replace(truth, expression=0 * truth.expression)

    def make(source, seed, work, config, on_frame):
        if source.name == "broken.mp4":
            raise AvfaceError(f"{source}: broken")
        return made_clip(
            truth.landmarks().astype(float), covering(range(8, 17), count=24), source=source, video=source
        )

    (video.parent / "broken.mp4").write_bytes(b"")
    monkeypatch.setattr(protocol, "make_occluded_clip", make)
    monkeypatch.setattr("avface.pipeline.reconstruct", reconstruct)
    report = evaluate_occlusion(
        video.parent, seeds=1, parts=("lower-face",), networks=Path("w.safetensors"), work=tmp_path
    )
    assert [options["audio"] for options in asked] == [True, False]
    assert all(options["networks"] == Path("w.safetensors") for options in asked)
    assert report.failed.keys() == {"broken.mp4"}
    sound, silent = protocol.WITH_SOUND, protocol.WITHOUT_SOUND
    assert report.mean(sound, "lips") < 1e-4 < report.mean(silent, "lips")
    assert report.mean(sound, "opening") == pytest.approx(1, abs=1e-4)
    content = json.loads(report.to_json())
    assert content["means"]["all"][sound]["lips"]["mean"] < 1e-4
    text = report.table()
    assert "made.mp4 #0" in text and "not measured" in text and max(map(len, text.splitlines())) < 130
    with pytest.raises(AvfaceError, match="seeds=0: must be 1 or more"):
        evaluate_occlusion(video.parent, seeds=0)
    for parts in ((), ("upper-face",), "whole-face"):
        with pytest.raises(AvfaceError, match=r"parts=.*: must be one or more of lower-face, whole-face"):
            evaluate_occlusion(video.parent, parts=parts)


def test_means_are_over_cases_and_apart_for_still_and_moving_heads(landmarks):
    clip = made_clip(landmarks, covering(range(20, 30)))
    case = measure_case(clip, {TRACKER: landmarks, HOLD: landmarks + np.array([2, 0])})
    still = dataclasses.replace(
        case,
        motion=1.0,
        figures={name: dataclasses.replace(each, lips=each.lips + 2) for name, each in case.figures.items()},
    )
    report = OcclusionReport((dataclasses.replace(case, motion=9.0), still))
    assert report.mean(TRACKER, "lips", moving=True) == 0
    assert report.mean(TRACKER, "lips", moving=False) == 2
    assert report.mean(TRACKER, "lips") == 1
    assert "moving heads" in report.table() and "nearly still heads" in report.table()
    assert json.loads(report.to_json())["means"]["all"][TRACKER]["lips"] == {"mean": 1.0, "spread": 1.0}


@pytest.mark.slow
def test_a_real_clip_is_hidden_for_two_fifths_of_its_frames(tmp_path):
    path = real_clip("QoT0S2vu9m4_00002.mp4")
    clip = make_occluded_clip(path, 0, tmp_path)
    assert clip.lips_occluded.mean() == pytest.approx(0.4, abs=0.06)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / path.name).symlink_to(path)
    report = evaluate_occlusion(tmp_path / "one", seeds=1, parts=("lower-face",), work=tmp_path)
    assert report.mean(HOLD, "lips") > report.mean(INTERPOLATE, "lips") * 0.5 > 0
    assert len(report.methods) >= 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kinds": ()}, r"kinds=\(\): name at least one kind"),
        ({"share": 0}, "share=0: must be above 0 and at most 1"),
        ({"share": 1.5}, "share=1.5: must be above 0 and at most 1"),
        ({"tolerance": -0.1}, "tolerance=-0.1: must be from 0 to 1"),
        ({"eyes": 2}, "eyes=2: must be from 0 to 1"),
        ({"stretch": 0}, "stretch=0: must be above 0 seconds"),
        ({"trials": 0}, "trials=0: must be 1 or more"),
    ],
)
def test_a_config_that_cannot_work_is_refused(changes, message):
    with pytest.raises(AvfaceError, match=message):
        OccludedClipsConfig(**changes)


def test_a_covered_face_is_measured_in_covered_frames_and_jumps_around_them(landmarks):
    clip = made_clip(landmarks, covering(range(20, 28)) | covering([19], np.arange(200)))
    clip.covered[20:28] = True
    size = box_size(landmarks)[:, None, None]
    off = landmarks.copy()
    off[20:28] += 0.05 * size[20:28] * [0.6, 0.8]
    off[40:] += 1000  # outside
    steps = np.linalg.norm(np.diff(landmarks, axis=0), axis=2).mean(1) / box_size(landmarks)[1:]
    case = whole_face_case(clip, "hand", 8, {"clean": landmarks, "off": off, "lost": np.nan * landmarks})
    assert case.covered == 8
    assert case.figures["clean"].nme478 == 0 and 0 < case.figures["clean"].jump <= 1
    assert case.figures["off"].nme478 == pytest.approx(5)
    assert case.figures["off"].jump == pytest.approx(0.05 / steps.max(), abs=1)
    assert case.figures["off"].jump > 0.04 / steps.max()
    assert case.figures["lost"].nme478 == 100
    report = WholeFaceReport((case, dataclasses.replace(case, clip="b.mp4")))
    assert report.mean("off", "nme478") == pytest.approx(5) and report.worst("lost", "nme478") == 100
    assert "a.mp4 hand 8" in report.table({}) and "2 clips, 2 cases" in report.table({})
    with pytest.raises(AvfaceError, match="never covered"):
        whole_face_case(made_clip(landmarks, covering([3])), "hand", 8, {})


def test_a_covered_clip_is_made_once_and_says_what_is_too_short(video, tmp_path):
    from avface.tracking import track

    found = track(Clip.open(video).frames())
    asked = []

    def face_track():
        asked.append(1)
        return found

    made = make_whole_face_clip(video, "paper", 8, 3, tmp_path, face_track)
    again = make_whole_face_clip(video, "paper", 8, 3, tmp_path, face_track)
    assert len(asked) == 1 and (made.covered.mean(1) >= 0.95).sum() >= 8
    np.testing.assert_array_equal(made.covered, again.covered)
    with pytest.raises(AvfaceError, match="has 24 frames; a cover of 25 needs 37"):
        make_whole_face_clip(video, "paper", 25, 3, tmp_path, face_track)


def test_the_protocol_has_rows_for_the_whole_face(video, tmp_path, monkeypatch):
    truth = moving_capture(24)
    covered = covering(range(8, 17), np.arange(478), 24)

    def make(source, kind, length, seed, work, face_track, on_frame):
        if length == 25 or source.name != video.name:
            raise AvfaceError(f"{source}: too short")
        return made_clip(truth.landmarks().astype(float), covered, source=source, video=source)

    monkeypatch.setattr("avface.evaluation.occlusion_whole_face.make_whole_face_clip", make)
    monkeypatch.setattr("avface.pipeline.reconstruct", lambda path, **options: truth)
    report = evaluate_occlusion(video.parent, parts=("whole-face",), work=tmp_path)
    assert [(case.kind, case.length) for case in report.whole_face.cases] == [
        ("hand", 8),
        ("microphone", 8),
        ("paper", 8),
    ]
    assert list(report.whole_face.cases[0].figures) == [TRACKER, HOLD, INTERPOLATE, protocol.WITH_SOUND]
    assert report.whole_face.mean(protocol.WITH_SOUND, "nme478") < 1e-4
    assert "made.mp4 hand 25" in report.failed
    content = json.loads(report.to_json())
    assert len(content["whole_face"]) == 3 and content["cases"] == []
    assert "whole face: 1 clips, 3 cases" in report.table()
