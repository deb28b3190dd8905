"""Statistics of motion against motion that is known."""

from dataclasses import replace

import numpy as np
import pytest

from avface.errors import AvfaceError
from avface.evaluation.studies import reality_gap
from avface.evaluation.studies.acoustic import AcousticEvaluation
from avface.evaluation.studies.lips import LipEvaluation
from avface.evaluation.studies.reality_gap import (
    CHIN,
    TOP,
    RealityGapConfig,
    blink_lengths,
    capture_statistics,
    gap_table,
    main,
    motion_statistics,
    performance_statistics,
    synthetic_statistics,
)
from avface.head import load_head
from avface.synthetic.performance.performance import Performance, perform

RATE = 25.0


@pytest.fixture(scope="module")
def head():
    return load_head()


def performance(head, frames=100, turn=None, shift=None, **units):
    """Known courses (T,) of units, turn and shift (T, 3)."""
    expression = np.zeros((frames, head.num_expression), np.float32)
    for name, course in units.items():
        expression[:, head.expression_names.index(name)] = course
    still = np.zeros((frames, 3), np.float32)
    return Performance(
        frame_rate=RATE,
        expression=expression,
        joints=np.zeros((frames, head.num_joints, 3), np.float32),
        turn=still if turn is None else np.asarray(turn, np.float32),
        shift=still if shift is None else np.asarray(shift, np.float32),
        sound=np.zeros(int(frames / RATE * 16_000), np.float32),
        phonemes=(),
        kind="silence",
        language="",
        voice="",
        emotion="neutral",
    )


def measured(head, made):
    return performance_statistics(made, head, np.zeros(head.num_shape))


def test_a_still_face_is_shut_and_still(head):
    figures = measured(head, performance(head))
    assert figures.opening_mean == pytest.approx(0, abs=0.05) and figures.closed == 100
    for still in (
        "opening_speed_rms",
        "jaw_speed_rms",
        "turn_speed",
        "turn_range",
        "shift_speed",
        "jitter",
        "blinks",
    ):
        assert getattr(figures, still) == pytest.approx(0, abs=0.05), still
    assert np.isnan(figures.blink_ms)
    assert figures.seconds == pytest.approx(4)


def test_jaw_speed_and_opening_of_a_mouth_that_opens_and_shuts(head):
    times = np.arange(100) / RATE
    course = 0.2 - 0.2 * np.cos(2 * np.pi * times)
    figures = measured(head, performance(head, jawOpen=course))

    assert figures.jaw_speed_rms == pytest.approx(0.2 * 2 * np.pi / np.sqrt(2), rel=0.03)
    assert figures.units["jawOpen"] == pytest.approx(0.2, abs=0.01)
    # from a weight of 0.04 the lips part; at 0.08 they are 1 per cent of the face's height apart (CLOSED)
    assert 3.4 < figures.opening_mean < 6 and 7 < figures.opening_p95 < 12
    assert figures.closed == pytest.approx(100 * (course < 0.08).mean(), abs=3)


def test_speed_and_range_of_a_head_that_swings(head):
    times = np.arange(100) / RATE
    turn = np.zeros((100, 3))
    turn[:, 1] = np.radians(20) * np.sin(2 * np.pi * 0.5 * times)
    shift = np.zeros((100, 3))
    shift[:, 0] = 0.05 * times
    figures = measured(head, performance(head, turn=turn, shift=shift))

    assert figures.turn_speed == pytest.approx(20 * np.pi / np.sqrt(2), rel=0.02)
    assert figures.turn_range == pytest.approx(40, abs=1)
    assert figures.shift_speed == pytest.approx(50, rel=0.01)


def test_blinks_are_counted_and_timed(head):
    times = np.arange(250) / RATE
    shut = np.zeros(250)
    for start in (1.0, 4.0, 7.0):
        shut = np.maximum(shut, np.clip(1.4 - np.abs(times - start - 0.15) / 0.1, 0, 1))
    figures = measured(head, performance(head, 250, eyeBlinkLeft=shut, eyeBlinkRight=shut))

    assert figures.blinks == pytest.approx(18)
    assert figures.blink_ms == pytest.approx(240, abs=60)


def test_looking_down_for_long_or_eyes_shut_all_the_time_are_no_blinks(head):
    half = np.zeros(250)
    half[100:180] = 0.95
    for course in (half, np.ones(250)):
        capture = performance(head, 250, eyeBlinkLeft=course, eyeBlinkRight=course).capture(
            head, np.zeros(head.num_shape)
        )
        assert blink_lengths(capture.landmarks(), capture.times) == []


def test_frames_without_a_face_are_left_out(head):
    capture = perform(np.random.default_rng(0), head, 4.0).capture(head, np.zeros(head.num_shape))
    landmarks = capture.landmarks()
    whole = capture_statistics(capture, landmarks)
    landmarks[40:60] = np.nan
    part = capture_statistics(capture, landmarks)

    assert np.isfinite(part.opening_mean) and part.opening_mean == pytest.approx(whole.opening_mean, rel=0.5)
    assert np.isfinite(part.jitter) and np.isfinite(part.closed)
    landmarks[:] = np.nan
    unseen = capture_statistics(capture, landmarks)
    assert np.isnan(unseen.opening_mean) and np.isnan(unseen.closed) and unseen.blinks == 0


def test_noise_in_the_landmarks_is_jitter(head):
    capture = performance(head).capture(head, np.zeros(head.num_shape))
    points = capture.landmarks().astype(np.float64)
    noisy = points + np.random.default_rng(0).normal(0, 0.5, points.shape)
    size = np.sqrt(np.prod(np.ptp(points[0], axis=0)))

    # a second difference of white noise is sqrt(6) as large, its length in the plane sqrt(pi / 2) of that
    expected = 100 * 0.5 * np.sqrt(6) * np.sqrt(np.pi / 2) / size
    assert capture_statistics(capture, noisy).jitter == pytest.approx(expected, rel=0.03)


def test_made_performances_are_of_the_order_of_talking_people():
    """Literature's ranges, so wide that every talking person is inside."""
    figures = synthetic_statistics(8, 4.0, seed=5)

    def mean(name):
        return np.nanmean([getattr(item, name) for item in figures])

    assert 2 < mean("opening_mean") < 8
    assert 8 < mean("closed") < 45
    assert 0.6 < mean("jaw_speed_rms") < 2
    assert 10 < mean("blinks") < 40
    assert 5 < mean("turn_speed") < 40


def test_the_table_marks_what_is_far_from_every_real_clip(head):
    plain = replace(measured(head, performance(head, jawOpen=np.linspace(0, 0.3, 100))), blinks=20.0)
    near, far = replace(plain, blinks=25.0), replace(plain, blinks=80.0)

    def line(made):
        table = gap_table({"one": plain, "two": replace(plain, blinks=10.0)}, [made])
        return next(row for row in table.splitlines() if row.startswith("blinks"))

    assert "!" not in line(near) and "!" in line(far)
    assert line(far).split()[-5:] == ["10", "15", "80", "5.33", "!"]
    both = gap_table({"one": plain}, [plain], [near])
    assert "rendered" in both.splitlines()[0] and "1 real clips, 4 s in all" in both


def test_frames_that_do_not_agree_are_refused():
    landmarks = np.zeros((5, 478, 2))
    landmarks[:, TOP, 1], landmarks[:, CHIN, 1] = 0, 100
    with pytest.raises(ValueError, match=r"\[5, 4, 5, 5, 5\] frames"):
        motion_statistics(
            landmarks, np.arange(4) / RATE, np.zeros((5, 1)), ("jawOpen",), np.zeros((5, 3)), np.zeros((5, 3))
        )


def test_a_missing_or_empty_folder_is_explained(monkeypatch, tmp_path):
    monkeypatch.delenv("AVFACE_CLIPS", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        AvfaceError, match="clips: no folder of real clips; name it with --clips or AVFACE_CLIPS"
    ):
        main(RealityGapConfig())
    with pytest.raises(AvfaceError, match=f"{tmp_path}.*no videos"):
        main(RealityGapConfig(clips=tmp_path))


def test_the_command_prints_the_table(monkeypatch, tmp_path, capsys, head):
    for name in ("first.mp4", "second.mp4"):
        (tmp_path / name).touch()
    figures = measured(head, performance(head))
    monkeypatch.setattr(reality_gap, "video_statistics", lambda path: figures)
    main(RealityGapConfig(clips=tmp_path, rendered=tmp_path, performances=2, seconds=1.0))

    printed = capsys.readouterr().out
    assert "first" in printed and "second" in printed and "2 rendered" in printed


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RealityGapConfig(performances=0), "performances=0: must be 1 or more"),
        (lambda: RealityGapConfig(seconds=0), "seconds=0: must be above 0"),
        (lambda: LipEvaluation(hours=0), "hours=0: must be above 0"),
        (lambda: AcousticEvaluation(threads=0), "threads=0: must be 1 or more"),
    ],
)
def test_options_that_cannot_work_are_refused(make, message):
    with pytest.raises(AvfaceError, match=message):
        make()
