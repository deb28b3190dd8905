"""CSV curves of the expression units; for ARKit's units in the format of Live Link Face."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import F64, Floats
from avface.capture.resampling import at_times, check_rate, constant_rate_times
from avface.errors import AvfaceError
from avface.export.pose import matrices
from avface.files import replacing
from avface.geometry.axes import flip_rotation

if TYPE_CHECKING:
    from avface.capture import Capture

UNIT_COLUMNS = (
    *("EyeBlinkLeft", "EyeLookDownLeft", "EyeLookInLeft", "EyeLookOutLeft", "EyeLookUpLeft", "EyeSquintLeft"),
    *("EyeWideLeft", "EyeBlinkRight", "EyeLookDownRight", "EyeLookInRight", "EyeLookOutRight"),
    *("EyeLookUpRight", "EyeSquintRight", "EyeWideRight", "JawForward", "JawRight", "JawLeft", "JawOpen"),
    *("MouthClose", "MouthFunnel", "MouthPucker", "MouthRight", "MouthLeft", "MouthSmileLeft"),
    *("MouthSmileRight", "MouthFrownLeft", "MouthFrownRight", "MouthDimpleLeft", "MouthDimpleRight"),
    *("MouthStretchLeft", "MouthStretchRight", "MouthRollLower", "MouthRollUpper", "MouthShrugLower"),
    *("MouthShrugUpper", "MouthPressLeft", "MouthPressRight", "MouthLowerDownLeft", "MouthLowerDownRight"),
    *("MouthUpperUpLeft", "MouthUpperUpRight", "BrowDownLeft", "BrowDownRight", "BrowInnerUp"),
    *("BrowOuterUpLeft", "BrowOuterUpRight", "CheekPuff", "CheekSquintLeft", "CheekSquintRight"),
    *("NoseSneerLeft", "NoseSneerRight", "TongueOut"),
)
"""The 52 units in the order of the app's recordings; its network packets have JawLeft before JawRight."""

ANGLE_COLUMNS = tuple(
    f"{what}{angle}" for what in ("Head", "LeftEye", "RightEye") for angle in ("Yaw", "Pitch", "Roll")
)

FRAME_RATE = 60
"""Rows per second. Importers of the app's recordings, whatever the timecodes, count 60 frames a second."""

START_TIMECODE = "00:00:00:00"
"""Timecode of time 0."""

BLOCK = 256
"""Frames per block of rows."""


def export_csv(
    capture: Capture,
    path: str | Path,
    *,
    frame_rate: float = FRAME_RATE,
    start_timecode: str = START_TIMECODE,
) -> Path:
    """Write the expression weights, head and gaze angles as a .csv; returns its path.

    For a head with ARKit's units the file has the format of Live Link Face: Timecode, BlendShapeCount, the 52 weights,
    then yaw, pitch and roll of the head and of both eyes in radians, all with ten decimals as the app writes them
    (signs: `yaw_pitch_roll`). The head's angles are relative to facing the camera, those of the eyes to looking
    straight out of the head. BlendShapeCount is 61, and 0 in rows in which the person isn't seen, which importers
    skip; their values are the solver's.

    Rows are sampled at `frame_rate` rows per second, whatever the video's rate (`avface.capture.resampling`), since
    importers count 60 of them as a second. The timecode HH:MM:SS:FF.fff counts them from `start_timecode` at time 0.

    For other heads the columns are Timecode, Seconds, the head's own units by name, and the same angles.

    Raises:
        AvfaceError: if `frame_rate` isn't a whole number from 1 to 1000, `start_timecode` isn't HH:MM:SS:FF at that
            rate, or the file can't be written.
    """
    path = Path(path)
    rate, first = check_timing(path, frame_rate, start_timecode)
    capture = at_times(capture, constant_rate_times(capture.times, rate))
    arkit = is_arkit(capture.expression_names)
    columns = UNIT_COLUMNS if arkit else capture.expression_names
    names = [_unit_name(column) for column in columns] if arkit else list(capture.expression_names)
    units = [capture.expression_names.index(name) for name in names]
    with (
        replacing(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="replace") as file,
    ):
        csv.writer(file, lineterminator="\n").writerow(
            ["Timecode", "BlendShapeCount" if arkit else "Seconds", *columns, *ANGLE_COLUMNS]
        )
        count = len(columns) + len(ANGLE_COLUMNS)
        form = ",".join(["%.10f"] * count)  # for a whole row: a fifth of the time of single numbers
        for start in range(0, len(capture), BLOCK):
            block = slice(start, start + BLOCK)
            values = np.concatenate([capture.expression[block][:, units], *_angles(capture, block)], 1) + 0.0
            seen = capture.confidence[block] > 0
            for time, row, shown in zip(capture.times[block], values.tolist(), seen, strict=True):
                second = count * int(shown) if arkit else f"{time:.6f}"
                file.write(f"{timecode(float(time), rate, first)},{second},{form % tuple(row)}\n")
    return path


def check_timing(path: Path, frame_rate: float, start_timecode: str) -> tuple[int, int]:
    """The rate and the number of frames that a start timecode HH:MM:SS:FF counts at it; messages name `path`.

    Raises:
        AvfaceError: if the rate isn't a whole number from 1 to 1000, or the timecode doesn't exist at that rate.
    """
    named = f"{path}: frame rate {frame_rate}"
    check_rate(frame_rate, named)
    if frame_rate % 1:
        raise AvfaceError(
            f"{named} must be a whole number, since timecodes count whole frames; use 30 for 29.97"
        )
    rate = int(frame_rate)
    match = re.fullmatch(r"(\d\d):(\d\d):(\d\d):(\d{2,3})", start_timecode, re.ASCII)
    if match is None:
        raise AvfaceError(
            f"{path}: start timecode {start_timecode!r} must be HH:MM:SS:FF, such as 01:00:00:00"
        )
    hours, minutes, seconds, frames = map(int, match.groups())
    if hours > 23 or minutes > 59 or seconds > 59 or frames >= rate:
        raise AvfaceError(
            f"{path}: start timecode {start_timecode!r} doesn't exist; it counts up to 23:59:59:{rate - 1:02d} at "
            f"{rate} frames per second"
        )
    return rate, ((hours * 60 + minutes) * 60 + seconds) * rate + frames


def take_name(video: str | Path) -> str:
    """Name of the file of curves of a video, `<clip>_1_avface.csv`: slate, take and subject, as the app names takes."""
    return f"{Path(video).stem}_1_avface.csv"


def is_arkit(names: Sequence[str]) -> bool:
    """Whether the names include all of ARKit's expression units."""
    return {_unit_name(column) for column in UNIT_COLUMNS} <= set(names)


def _unit_name(column: str) -> str:
    """ARKit's name of the unit of a column."""
    return column[0].lower() + column[1:]


def timecode(time: float, rate: int, first: int = 0) -> str:
    """HH:MM:SS:FF.fff of a time in seconds, at a whole number of frames per second; time 0 is frame `first` of the
    day. It starts again at 24 hours."""
    seconds, thousandths = divmod(round(time * rate * 1000) + first * 1000, rate * 1000)
    frame, fraction = divmod(thousandths, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour % 24:02d}:{minute:02d}:{second:02d}:{frame:02d}.{fraction:03d}"


def yaw_pitch_roll(rotations: Floats) -> F64:
    """The app's angles (T, 3) in radians of rotations (T, 3, 3) in the head's axes (x to the subject's left, y up).

    The rotation is Rx(pitch) Ry(-yaw) Rz(roll). Positive yaw turns to the subject's right, positive pitch
    down, positive roll moves the top of the head to the subject's right.

    Source: no definition is published. Recordings contain eye angles beside the eyeLook weights: yaw increases
    with eyeLookInLeft and eyeLookOutRight, pitch with eyeLookDown, and since ARKit's eyes have no torsion, the
    recorded roll determines order and unit: tan(roll) = tan(pitch) sin(yaw) holds to four digits. The head's
    angles are assumed to follow the same rule (docs/formats.md).
    """
    pitch = np.arctan2(-rotations[:, 1, 2], rotations[:, 2, 2])
    yaw = -np.arcsin(np.clip(rotations[:, 0, 2], -1, 1))
    roll = np.arctan2(-rotations[:, 0, 1], rotations[:, 0, 0])
    return np.stack([yaw, pitch, roll], 1)


def _angles(capture: Capture, frames: slice) -> Iterator[F64]:
    """Angles (T, 3) of the head, the left and the right eye; zeros for missing eyes."""

    def joint(name: str) -> F64:
        if name not in capture.joint_names:
            return np.tile(np.eye(3), (len(capture.times[frames]), 1, 1))
        return matrices(capture.joints[frames, capture.joint_names.index(name)])

    yield yaw_pitch_roll(flip_rotation(matrices(capture.rotation[frames])) @ joint("neck"))
    yield yaw_pitch_roll(joint("left_eye"))
    yield yaw_pitch_roll(joint("right_eye"))
