from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from captures import moving_capture
from export_heads import jawed_capture, still_capture
from scipy.spatial.transform import Rotation

from avface.capture import Capture
from avface.errors import AvfaceError
from avface.export.arkit import take_name, timecode

HEADER = (
    "Timecode,BlendShapeCount,EyeBlinkLeft,EyeLookDownLeft,EyeLookInLeft,EyeLookOutLeft,EyeLookUpLeft,"
    "EyeSquintLeft,EyeWideLeft,EyeBlinkRight,EyeLookDownRight,EyeLookInRight,EyeLookOutRight,EyeLookUpRight,"
    "EyeSquintRight,EyeWideRight,JawForward,JawRight,JawLeft,JawOpen,MouthClose,MouthFunnel,MouthPucker,"
    "MouthRight,MouthLeft,MouthSmileLeft,MouthSmileRight,MouthFrownLeft,MouthFrownRight,MouthDimpleLeft,"
    "MouthDimpleRight,MouthStretchLeft,MouthStretchRight,MouthRollLower,MouthRollUpper,MouthShrugLower,"
    "MouthShrugUpper,MouthPressLeft,MouthPressRight,MouthLowerDownLeft,MouthLowerDownRight,MouthUpperUpLeft,"
    "MouthUpperUpRight,BrowDownLeft,BrowDownRight,BrowInnerUp,BrowOuterUpLeft,BrowOuterUpRight,CheekPuff,"
    "CheekSquintLeft,CheekSquintRight,NoseSneerLeft,NoseSneerRight,TongueOut,HeadYaw,HeadPitch,HeadRoll,"
    "LeftEyeYaw,LeftEyePitch,LeftEyeRoll,RightEyeYaw,RightEyePitch,RightEyeRoll"
)
"""The first line of the app's own recordings."""

Rows = list[dict[str, str]]


def read(path: Path) -> Rows:
    with path.open(newline="") as file:
        return list(csv.DictReader(file, strict=True))


def posed(rotation: Rotation, gaze: Rotation | None = None, neck: Rotation | None = None) -> Capture:
    """One frame with the head rotated from facing the camera (x to its left, y up, z to the camera)."""
    capture = still_capture()
    facing = Rotation.from_rotvec([np.pi, 0, 0])
    joints = capture.joints.copy()
    if gaze is not None:
        joints[0, [capture.joint_names.index(f"{side}_eye") for side in ("left", "right")]] = gaze.as_rotvec()
    if neck is not None:
        joints[0, capture.joint_names.index("neck")] = neck.as_rotvec()
    turned = (facing * rotation).as_rotvec()[None].astype(np.float32)
    return replace(capture, rotation=turned, joints=joints)


def angles(capture: Capture, path: Path, what: str) -> tuple[float, float, float]:
    (row,) = read(capture.export(path))
    return float(row[f"{what}Yaw"]), float(row[f"{what}Pitch"]), float(row[f"{what}Roll"])


def test_the_header_is_the_one_the_app_writes(tmp_path):
    path = still_capture().export(tmp_path / "face.csv")
    assert path.read_text().splitlines()[0] == HEADER


def test_every_weight_is_in_the_column_of_its_unit(tmp_path):
    capture = moving_capture(4)
    rng = np.random.default_rng(1)
    capture = replace(capture, expression=rng.uniform(0, 1, (4, 52)).astype(np.float32))
    rows = read(capture.export(tmp_path / "face.csv", frame_rate=25))
    assert len(rows) == 4
    for row, weights in zip(rows, capture.expression, strict=True):
        assert len(row) == 63 and row["BlendShapeCount"] == "61"
        for name, weight in zip(capture.expression_names, weights, strict=True):
            assert float(row[name[0].upper() + name[1:]]) == pytest.approx(weight, abs=1e-9)


def test_pandas_reads_all_columns_but_the_timecode_as_numbers(tmp_path):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(moving_capture(4).export(tmp_path / "face.csv", frame_rate=25))
    assert table.shape == (4, 63)
    assert all(kind.kind in "if" for kind in table.dtypes.iloc[1:])


def test_turning_to_the_subjects_right_is_positive_yaw(tmp_path):
    # The person's right is the camera's left, -x: the nose goes from +z to -x.
    turned = posed(Rotation.from_euler("y", -0.3))
    np.testing.assert_allclose(angles(turned, tmp_path / "a.csv", "Head"), (0.3, 0, 0), atol=1e-6)


def test_nodding_down_is_positive_pitch(tmp_path):
    turned = posed(Rotation.from_euler("x", 0.2))
    np.testing.assert_allclose(angles(turned, tmp_path / "a.csv", "Head"), (0, 0.2, 0), atol=1e-6)


def test_leaning_to_the_subjects_right_is_positive_roll(tmp_path):
    turned = posed(Rotation.from_euler("z", 0.25))
    np.testing.assert_allclose(angles(turned, tmp_path / "a.csv", "Head"), (0, 0, 0.25), atol=1e-6)


def test_the_angles_give_back_the_rotation(tmp_path):
    rotation = Rotation.from_rotvec([0.3, -0.5, 0.4])
    yaw, pitch, roll = angles(posed(rotation), tmp_path / "a.csv", "Head")
    again = Rotation.from_euler("XYZ", [pitch, -yaw, roll])
    assert (again.inv() * rotation).magnitude() < 1e-5


def test_a_turned_neck_turns_the_head(tmp_path):
    head, neck = Rotation.from_rotvec([0.1, 0.2, 0]), Rotation.from_rotvec([0, -0.4, 0.1])
    both = angles(posed(head, neck=neck), tmp_path / "a.csv", "Head")
    np.testing.assert_allclose(both, angles(posed(head * neck), tmp_path / "b.csv", "Head"), atol=1e-5)


@pytest.mark.parametrize("eye", ["LeftEye", "RightEye"])
def test_gaze_has_the_signs_and_the_roll_of_the_apps_recordings(tmp_path, eye):
    # Looking down is positive pitch, looking to the subject's right positive yaw, and an eye that turns about
    # the vertical and then its own horizontal axis, as ARKit's does, is recorded with
    # tan(roll) = tan(pitch) sin(yaw).
    gaze = Rotation.from_euler("YX", [-0.15, 0.2])
    yaw, pitch, roll = angles(posed(Rotation.identity(), gaze), tmp_path / "a.csv", eye)
    assert yaw == pytest.approx(0.15, abs=0.01) and pitch == pytest.approx(0.2, abs=0.01)
    assert np.tan(roll) == pytest.approx(np.tan(pitch) * np.sin(yaw), rel=1e-4)


@pytest.mark.parametrize(
    ("time", "rate", "expected"),
    [
        (0.0, 25, "00:00:00:00.000"),
        (1.0, 25, "00:00:01:00.000"),
        (0.04, 25, "00:00:00:01.000"),
        (0.9999999, 25, "00:00:01:00.000"),
        (3723.5, 60, "01:02:03:30.000"),
        (1001 / 30000, 30, "00:00:00:01.001"),
        (0.033, 60, "00:00:00:01.980"),
    ],
)
def test_timecodes_count_frames_and_thousandths_of_them(time, rate, expected):
    assert timecode(time, rate) == expected


def seconds_of(timecode: str, rate: float) -> float:
    hours, minutes, seconds, frame = timecode.split(":")
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + float(frame) / rate


RATES = {
    "25": np.arange(50) / 25,
    "29.97": np.arange(60) * 1001 / 30000,
    "60": np.arange(120) / 60,
    "variable": np.cumsum(np.random.default_rng(5).uniform(0.01, 0.07, 50)) - 0.04,
    "a pause": np.concatenate([np.arange(25) / 25, 8 + np.arange(25) / 25]),
}
"""Times of frames in seconds."""


def clock_capture(times: np.ndarray) -> Capture:
    """The weight of jawOpen is a tenth of the time in seconds, so that each row tells which moment it shows."""
    capture = moving_capture(len(times))
    expression = capture.expression.copy()
    expression[:, capture.expression_names.index("jawOpen")] = 0.1 * times
    return replace(capture, expression=expression, times=times)


def unreal(rows: Rows) -> list[float]:
    """Seconds at which Unreal's LiveLinkFaceImporter plays the rows: 60 frames a second, in ticks of 1 / 24000."""
    return [np.floor(seconds_of(row["Timecode"], 60) * 24000) / 24000 for row in rows]


def maya(rows: Rows) -> list[float]:
    """The CSV importers for Maya: whole frames, 60 to each second of the timecode, the first row is frame 1."""
    frames = []
    for row in rows:
        _, _, second, frame = row["Timecode"].split(":")
        frames.append(60 * int(second) + int(float(frame)))
    return [(frame - frames[0]) / 60 for frame in frames]


def faceit(rows: Rows) -> list[float]:
    """Faceit for Blender, in a scene of 24 frames a second: rows without blend shapes are skipped, the rest are
    counted from the first of them at 60 frames a second."""
    frames = [24 * seconds_of(row["Timecode"], 60) for row in rows if float(row["BlendShapeCount"])]
    return [(frame - frames[0]) / 24 for frame in frames]


def row_counter(rows: Rows) -> list[float]:
    """Scripts that ignore the timecode."""
    return [number / 60 for number in range(len(rows))]


@pytest.mark.parametrize("importer", [unreal, maya, faceit, row_counter])
@pytest.mark.parametrize("rate", RATES)
def test_importers_play_every_row_within_ten_milliseconds_of_its_time(tmp_path, rate, importer):
    times = RATES[rate] - RATES[rate][0]
    rows = read(clock_capture(times).export(tmp_path / "face.csv"))

    shown = 10 * np.array([float(row["JawOpen"]) for row in rows])
    played = np.array(importer(rows))
    held = played > times[-1]  # the last row may lie after the last frame, whose pose it holds
    assert held.sum() <= 1
    assert np.abs(played - shown)[~held].max() < 0.010
    assert times[-1] <= played[-1] < times[-1] + 1 / 60 + 1e-3, "nothing is missing at the end"


def test_rows_are_60_a_second_with_timecodes_to_match(tmp_path):
    rows = read(moving_capture(26).export(tmp_path / "face.csv"))
    assert [row["Timecode"] for row in rows[:2]] == ["00:00:00:00.000", "00:00:00:01.000"]
    assert len(rows) == 61 and rows[-1]["Timecode"] == "00:00:01:00.000"


def test_rows_can_have_another_rate(tmp_path):
    rows = read(clock_capture(RATES["25"]).export(tmp_path / "face.csv", frame_rate=30))
    times = [seconds_of(row["Timecode"], 30) for row in rows]
    np.testing.assert_allclose(np.diff(times), 1 / 30, atol=1e-9)
    np.testing.assert_allclose([10 * float(row["JawOpen"]) for row in rows[:-1]], times[:-1], atol=1e-6)


def test_a_start_timecode_is_the_first_rows(tmp_path):
    capture = moving_capture(26)
    rows = read(capture.export(tmp_path / "face.csv", start_timecode="23:59:59:30"))
    assert rows[0]["Timecode"] == "23:59:59:30.000"
    assert rows[29]["Timecode"] == "23:59:59:59.000" and rows[30]["Timecode"] == "00:00:00:00.000"
    plain = read(capture.export(tmp_path / "plain.csv"))
    assert all(a["JawOpen"] == b["JawOpen"] for a, b in zip(rows, plain, strict=True))


@pytest.mark.parametrize(
    ("timecode", "rate", "message"),
    [
        ("1:00:00:00", 60, r"start timecode '1:00:00:00' must be HH:MM:SS:FF, such as 01:00:00:00"),
        ("01:00:00;00", 60, r"must be HH:MM:SS:FF"),
        ("", 60, r"must be HH:MM:SS:FF"),
        ("24:00:00:00", 60, r"doesn't exist; it counts up to 23:59:59:59 at 60 frames per second"),
        ("01:60:00:00", 60, r"doesn't exist"),
        ("01:00:00:30", 30, r"doesn't exist; it counts up to 23:59:59:29 at 30 frames per second"),
    ],
)
def test_a_start_timecode_that_does_not_exist_is_refused(tmp_path, timecode, rate, message):
    with pytest.raises(AvfaceError, match=message):
        still_capture().export(tmp_path / "face.csv", start_timecode=timecode, frame_rate=rate)
    assert not list(tmp_path.iterdir())


def test_rows_in_which_the_person_is_not_seen_have_no_blend_shapes(tmp_path):
    capture = moving_capture(26)
    confidence = capture.confidence.copy()
    confidence[5:10] = 0  # 0.2 to 0.36 s
    rows = read(replace(capture, confidence=confidence).export(tmp_path / "face.csv"))
    counts = [int(row["BlendShapeCount"]) for row in rows]
    nearest = np.round(np.arange(61) / 60 * 25)
    assert counts == [0 if 5 <= frame < 10 else 61 for frame in nearest]
    assert all(len(row) == 63 and None not in row.values() for row in rows), "Unreal stops at a shorter row"


def test_files_are_named_as_the_app_names_takes():
    assert take_name("/videos/talk.v2.mp4") == "talk.v2_1_avface.csv"


def test_the_file_does_not_depend_on_blocks(tmp_path, monkeypatch):
    whole = moving_capture(11).export(tmp_path / "whole.csv").read_bytes()
    monkeypatch.setattr("avface.export.arkit.BLOCK", 4)
    assert moving_capture(11).export(tmp_path / "blocks.csv").read_bytes() == whole


def test_no_frames_give_the_header_alone(tmp_path):
    path = moving_capture(3).select(slice(0, 0)).export(tmp_path / "face.csv")
    assert path.read_text() == HEADER + "\n"


def test_a_head_without_arkits_units_gets_a_column_for_each_of_its_own(tmp_path):
    capture = jawed_capture(tmp_path)

    rows = read(capture.export(tmp_path / "face.csv", frame_rate=100))

    assert list(rows[0])[:6] == ["Timecode", "Seconds", "exp 0", "exp 1", "exp 2", "exp 3"]
    for name in ("exp 0", "exp 3"):
        column = capture.expression[:, capture.expression_names.index(name)]
        expected = np.interp(np.arange(11) / 100, capture.times, column)
        np.testing.assert_allclose([float(row[name]) for row in rows], expected, atol=1e-6)
    np.testing.assert_allclose([float(row["Seconds"]) for row in rows], np.arange(11) / 100, atol=1e-6)
    assert {"HeadYaw", "RightEyeRoll"} <= set(rows[0])


@pytest.mark.parametrize(
    ("rate", "message"),
    [
        *((rate, "must be a number of frames per second from 1 to 1000") for rate in (0, -25, 1001, True)),
        *((float(rate), "must be a number of frames per second from 1 to 1000") for rate in ("nan", "inf")),
        (29.97, "must be a whole number, since timecodes count whole frames; use 30 for 29.97"),
    ],
)
def test_a_rate_that_is_no_whole_number_from_one_is_refused(tmp_path, rate, message):
    with pytest.raises(AvfaceError, match=rf"face.csv: frame rate {rate} {message}"):
        still_capture().export(tmp_path / "face.csv", frame_rate=rate)
    assert not list(tmp_path.iterdir())


def test_a_whole_rate_may_be_a_float(tmp_path):
    written = [
        moving_capture(4).export(tmp_path / "face.csv", frame_rate=rate).read_text() for rate in (60, 60.0)
    ]
    assert written[0] == written[1]


def test_a_missing_folder_is_refused_in_one_line(tmp_path):
    with pytest.raises(AvfaceError, match=r"doesn't exist"):
        still_capture().export(tmp_path / "nowhere" / "face.csv")
