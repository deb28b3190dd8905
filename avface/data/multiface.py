"""Multiface: 13 people in a stage of many cameras, with tracked meshes of 7,306 vertices and sound.

One person's folder `m--<date>--<time>--<identity>--GHS` holds

* `images/<expression>/<camera>/<frame>.png`: 30 pictures a second; numbers of missing frames are left out;
* `tracked_mesh/<expression>/<frame>.bin` and `<frame>_transform.txt`: vertices in the head's own frame, and its pose;
* `audio/<expression>.wav`: sound of the spoken sentences, which begins with their first frame;
* `KRT`: parameters of all cameras.

Camera axes are OpenCV's. The files are in millimetres; here everything is in metres.
Source: the documentation of github.com/facebookresearch/multiface.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avface.arrays import F32, Floats
from avface.errors import AvfaceError
from avface.media import Frame

FRAME_RATE = 30.0
"""Frames per second; frame numbers count these steps."""
NUM_VERTICES = 7306
"""Number of vertices of all tracked meshes, which have one topology."""
MILLIMETRE = 1e-3
"""Metres."""


@dataclass(frozen=True, eq=False)
class StudioCamera:
    """One camera of the stage.

    Shapes: intrinsics (3, 3) in pixels, distortion (5,) in OpenCV's order, rotation (3, 3) and translation (3,)
            in metres from the stage into the camera.
    """

    name: str
    intrinsics: Floats
    distortion: Floats
    rotation: Floats
    translation: Floats

    @property
    def centre(self) -> Floats:
        """(3,) position of the camera in the stage in metres."""
        return -self.rotation.T @ self.translation

    def project(self, points: Floats) -> Floats:
        """Points of the stage (..., 3) in metres -> pixels (..., 2), without the lens's distortion."""
        seen = (points @ self.rotation.T + self.translation) @ self.intrinsics.T
        return seen[..., :2] / seen[..., 2:]


def read_cameras(path: str | Path) -> dict[str, StudioCamera]:
    """Read a KRT file: for each camera its name, 3 lines of intrinsics, 1 of distortion, 3 of [R | t], and a
    blank one.

    Raises AvfaceError when it is missing or has another form; the message gives the line.
    """
    path = Path(path)
    lines = _text(path).splitlines()
    cameras = {}
    number = 0
    while number < len(lines):
        name = lines[number].strip()
        if not name:
            number += 1
            continue
        intrinsics = _numbers(path, lines, number + 1, 3, 3)
        distortion = _numbers(path, lines, number + 4, 1, 5)[0]
        pose = _numbers(path, lines, number + 5, 3, 4)
        cameras[name] = StudioCamera(name, intrinsics, distortion, pose[:, :3], pose[:, 3] * MILLIMETRE)
        number += 8
    if not cameras:
        raise AvfaceError(f"{path}: lists no cameras; it isn't a KRT file of Multiface")
    return cameras


def read_vertices(path: str | Path) -> F32:
    """Read a tracked mesh, a .bin file -> (7306, 3) metres in the head's own frame.

    Raises AvfaceError when it is missing or of another size.
    """
    path = Path(path)
    try:
        values = np.fromfile(path, "<f4")
    except OSError as error:
        raise AvfaceError(f"{path}: cannot be read ({error.strerror})") from None
    if values.size != NUM_VERTICES * 3:
        raise AvfaceError(f"{path}: holds {values.size} numbers, not {NUM_VERTICES} x 3; fetch it again")
    return (values.reshape(-1, 3) * np.float32(MILLIMETRE)).astype(np.float32, copy=False)


def read_head_pose(path: str | Path) -> tuple[Floats, Floats]:
    """Read a head's pose, a _transform.txt file -> rotation (3, 3), translation (3,) metres: stage = R v + t.

    Raises AvfaceError when it is missing or has another form.
    """
    path = Path(path)
    pose = _numbers(path, [line for line in _text(path).splitlines() if line.strip()], 0, 3, 4)
    return pose[:, :3], pose[:, 3] * MILLIMETRE


@dataclass(frozen=True)
class Pictures:
    """The pictures of one expression from one camera, a folder <frame>.png."""

    folder: Path

    @property
    def numbers(self) -> tuple[int, ...]:
        """Frame numbers, in order.

        Raises AvfaceError when the folder holds no picture or one whose name is no number.
        """
        paths = [path for path in self.folder.glob("*.png") if not path.name.startswith(".")]
        for path in paths:
            if not path.stem.isdecimal():
                raise AvfaceError(f"{path}: its name is no frame number")
        if not paths:
            raise AvfaceError(f"{self.folder}: holds no pictures <frame>.png")
        return tuple(sorted(int(path.stem) for path in paths))

    def frames(self) -> Iterator[Frame]:
        """Decode the pictures at their times: the first one's is 0.0, and missing frames leave a gap.

        Raises AvfaceError when a picture is damaged.
        """
        import cv2

        paths = {int(path.stem): path for path in self.folder.glob("*.png") if path.stem.isdecimal()}
        first = self.numbers[0]
        for index, number in enumerate(self.numbers):
            picture = cv2.imread(str(paths[number]), cv2.IMREAD_COLOR)
            if picture is None:
                raise AvfaceError(f"{paths[number]}: not a picture that can be read; fetch it again")
            image = np.ascontiguousarray(picture[..., ::-1], dtype=np.uint8)
            yield Frame(index, (number - first) / FRAME_RATE, image)


def read_truth(meshes: Path, camera: StudioCamera, numbers: tuple[int, ...]) -> dict[str, Floats]:
    """Read the ground truth of given frames in a camera's axes; nan for frames without a mesh.

    meshes: the folder of one expression's tracked meshes.
    Returns vertices (T, 7306, 3) float32 metres in the head's frame, head_rotation (T, 3, 3) and
    head_translation (T, 3) metres into the camera, intrinsics (3, 3) pixels and distortion (5,) of the camera.
    Raises AvfaceError when a file is damaged.
    """
    vertices = np.full((len(numbers), NUM_VERTICES, 3), np.nan, np.float32)
    rotation = np.full((len(numbers), 3, 3), np.nan)
    translation = np.full((len(numbers), 3), np.nan)
    rows = {number: row for row, number in enumerate(numbers)}
    for path in sorted(meshes.glob("*.bin")):
        number = int(path.stem) if path.stem.isdecimal() else -1
        row = rows.get(number)
        if row is None:
            continue
        turn, shift = read_head_pose(path.with_name(f"{path.stem}_transform.txt"))
        vertices[row] = read_vertices(path)
        rotation[row] = camera.rotation @ turn
        translation[row] = camera.rotation @ shift + camera.translation
    return {
        "vertices": vertices,
        "head_rotation": rotation,
        "head_translation": translation,
        "intrinsics": camera.intrinsics,
        "distortion": camera.distortion,
    }


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise AvfaceError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise AvfaceError(f"{path}: is not a text file") from None


def _numbers(path: Path, lines: list[str], start: int, rows: int, columns: int) -> Floats:
    """Read a block of numbers, `rows` lines of `columns` each."""
    result = np.empty((rows, columns))
    for row in range(rows):
        words = lines[start + row].split() if start + row < len(lines) else []
        try:
            result[row] = [float(word) for word in words]
        except ValueError:
            result[row] = np.nan
        if len(words) != columns or not np.isfinite(result[row]).all():
            raise AvfaceError(f"{path}: line {start + row + 1} should hold {columns} numbers; fetch it again")
    return result
