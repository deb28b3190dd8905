"""CSV curves of the expression units; for ARKit's units in the format of Live Link Face."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from avface.arrays import F64, Floats
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

BLOCK = 256
"""Frames per block of rows."""


def export_csv(capture: Capture, path: str | Path, *, frame_rate: int | None = None) -> Path:
    """Write the expression weights, head and gaze angles as a .csv; returns its path.

    For a head with ARKit's units the file has the format of Live Link Face, one row per frame: Timecode,
    BlendShapeCount (61), the 52 weights, then yaw, pitch and roll of the head and of both eyes in radians, all with
    ten decimals as the app writes them (signs: `yaw_pitch_roll`). The head's angles are relative to facing the
    camera, those of the eyes to looking straight out of the head. The timecode HH:MM:SS:FF.fff counts `frame_rate`
    frames per second (by default the video's rate, rounded to a whole number) from 0 at the first frame, and keeps
    the true time to a thousandth of a frame.

    For other heads the columns are Timecode, Seconds, the head's own units by name, and the same angles.

    Raises:
        AvfaceError: if `frame_rate` isn't a whole number of at least 1, or the file can't be written.
    """
    path = Path(path)
    rate = max(1, round(capture.frame_rate)) if frame_rate is None else frame_rate
    if rate < 1 or rate % 1:
        raise AvfaceError(f"{path}: frame_rate={rate} must be a whole number of at least 1")
    rate, arkit = int(rate), is_arkit(capture.expression_names)
    columns = UNIT_COLUMNS if arkit else capture.expression_names
    names = [_unit_name(column) for column in columns] if arkit else list(capture.expression_names)
    units = [capture.expression_names.index(name) for name in names]
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["Timecode", "BlendShapeCount" if arkit else "Seconds", *columns, *ANGLE_COLUMNS])
        for start in range(0, len(capture), BLOCK):
            block = slice(start, start + BLOCK)
            values = np.concatenate([capture.expression[block][:, units], *_angles(capture, block)], 1)
            for time, row in zip(capture.times[block], values, strict=True):
                second = len(row) if arkit else f"{time:.6f}"
                writer.writerow(
                    [timecode(float(time), rate), second, *(f"{value:.10f}" for value in row + 0.0)]
                )
    return path


def is_arkit(names: Sequence[str]) -> bool:
    """Whether the names include all of ARKit's expression units."""
    return {_unit_name(column) for column in UNIT_COLUMNS} <= set(names)


def _unit_name(column: str) -> str:
    """ARKit's name of the unit of a column."""
    return column[0].lower() + column[1:]


def timecode(time: float, rate: int) -> str:
    """HH:MM:SS:FF.fff of a time in seconds, at a whole number of frames per second."""
    seconds, thousandths = divmod(round(time * rate * 1000), rate * 1000)
    frame, fraction = divmod(thousandths, 1000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}:{frame:02d}.{fraction:03d}"


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
