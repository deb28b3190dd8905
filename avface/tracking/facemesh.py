"""Adapter for MediaPipe FaceMesh: nothing else in avface depends on which MediaPipe is installed.

MediaPipe's own ``solutions.FaceMesh`` is a fixed loop of two networks: a detector and, per face, the landmark network
(attention mesh, 478 points) on a rotated square around the face. Here the same two parts of the installed package are
run one by one, with the same rules between them. So

* the caller keeps the region of each face, and a shot cut or a second person needs no reset;
* the detector runs when it is needed, not on every frame with fewer faces than the maximum;
* the landmark network's presence score is available;
* a lost face is detected again within the same frame, not one frame later.

On a single face the points agree with ``solutions.FaceMesh`` to rounding.

Needs mediapipe 0.10.x up to 0.10.21, the releases whose wheels contain the models.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import math
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from avface.arrays import F32, U8
from avface.errors import AvfaceError
from avface.files.temporary import temporary_folder
from avface.threads import held_stderr, refuse_after_fork

NUM_LANDMARKS = 478
_EYE_CORNERS = (33, 263)
"""Outer corners of the subject's right and left eye: MediaPipe rotates the region so that they are level."""
_REGION_SCALE = 1.5
"""Side of the region over the longer side of the face's box, for detections and landmarks alike
(MediaPipe)."""
_PRESENCE_STREAM = "facelandmarkcpu__face_presence_score"
_TURNED_SIDE, _TURNED_MARGIN = 128, 2.0
"""Side in pixels of the crop in which `right_way_up` detects a face, and its side over that of the face's region."""
_HALF_TURN_GAIN, _QUARTER_TURN_GAIN = 0.05, 0.15
"""Gain of the detector's score from which a face is taken to be turned by a half or a quarter. On ten clips with 96
faces the right way up, the half turn lost at least 0.13 and a quarter gained at most 0.02; on 73 faces that were
followed upside down the half turn gained at least 0.10, but for one at a quarter turn, where that gained 0.29."""

_DETECTOR = """
input_stream: "image"
output_stream: "detections"
node {
  calculator: "FaceDetection%sRangeCpu"
  input_stream: "IMAGE:image"
  output_stream: "DETECTIONS:detections"
}
"""
_LANDMARKS = """
input_stream: "image"
input_stream: "region"
input_side_packet: "with_attention"
output_stream: "landmarks"
node {
  calculator: "FaceLandmarkCpu"
  input_stream: "IMAGE:image"
  input_stream: "ROI:region"
  input_side_packet: "WITH_ATTENTION:with_attention"
  output_stream: "LANDMARKS:landmarks"
}
"""

_NOISE = re.compile(rb"^(INFO: Created TensorFlow Lite|WARNING: All log messages before absl|[IW]\d{4} )")

_TURNED_SCORE = 0.75
"""Least score of a face in a turned image: 0.83 to 0.97 for nearly all that are upright there."""


@dataclass(frozen=True)
class Region:
    """The rotated square of an image that is the landmark network's input for one face."""

    x: float
    """Centre in pixels; (0, 0) is the middle of the top-left pixel."""
    y: float
    """Centre in pixels, downwards."""
    side: float
    """Length of a side in pixels."""
    angle: float
    """Rotation in radians, clockwise as seen in the picture; 0 when the eyes are level."""
    score: float = 1.0
    """The detector's confidence in [0, 1]: 0.9 to 1 for faces the right way up, 0.5 to 0.85 for faces upside down."""


@dataclass(frozen=True, eq=False)
class Face:
    """One face in one image."""

    landmarks: F32
    """(478, 3) float32. x, y in pixels, (0, 0) the middle of the top-left pixel; z on the same scale,
    relative to the face's centre, growing away from the camera, as MediaPipe gives it."""
    presence: float
    """The landmark network's probability in [0, 1] that its region holds a face. Nearly always above 0.999 where the
    face is partly visible; partial occlusion does not lower it, full occlusion does."""

    @functools.cached_property
    def box(self) -> tuple[float, float, float, float]:
        """x0, y0, x1, y1 of the landmarks in pixels."""
        x, y = self.landmarks[:, 0], self.landmarks[:, 1]
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the box in pixels."""
        x0, y0, x1, y1 = self.box
        return (x0 + x1) / 2, (y0 + y1) / 2

    @functools.cached_property
    def size(self) -> float:
        """Square root of the box's area in pixels."""
        x0, y0, x1, y1 = self.box
        return math.sqrt(max((x1 - x0) * (y1 - y0), 1e-6))

    @property
    def next_region(self) -> Region:
        """The region of the same face in the next frame, by MediaPipe's rule."""
        (x, y), (x0, y0, x1, y1) = self.centre, self.box
        right, left = self.landmarks[_EYE_CORNERS[0]], self.landmarks[_EYE_CORNERS[1]]
        angle = math.atan2(left[1] - right[1], left[0] - right[0])
        return Region(x, y, _REGION_SCALE * max(x1 - x0, y1 - y0), angle)


def quiet_stderr() -> AbstractContextManager[None]:
    """Suppress MediaPipe's C++ start-up log, which is written to file descriptor 2; pass on all else."""
    return held_stderr(lambda line: _NOISE.match(line) is not None)


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """Set an environment variable in the block, unless the user has set it."""
    given = name in os.environ
    os.environ.setdefault(name, value)
    try:
        yield
    finally:
        if not given:
            del os.environ[name]


def _import_mediapipe() -> Any:
    """MediaPipe; it imports Matplotlib, which fails where it has neither a folder for its settings nor for temporary
    files.

    Raises:
        AvfaceError: if there is no folder for temporary files.
    """
    try:
        tempfile.gettempdir()
    except OSError:
        # the folder is beside the results; an import that has failed can't be repeated
        with temporary_folder() as folder, _environment("MPLCONFIGDIR", str(folder)):
            return importlib.import_module("mediapipe")
    return importlib.import_module("mediapipe")


class FaceMesh:
    """Detector and landmark network of MediaPipe. A context manager; not for use from several threads at
    once.

    Raises AvfaceError where the installed MediaPipe does not contain the models, and in a process that was forked from
    one that had used avface.
    """

    def __init__(self) -> None:
        refuse_after_fork()
        with quiet_stderr():
            self._mp = _import_mediapipe()
            self._rect = importlib.import_module("mediapipe.framework.formats.rect_pb2")
            try:
                self._start()
            except (RuntimeError, FileNotFoundError, ValueError, AttributeError) as problem:
                version = getattr(self._mp, "__version__", "?")
                raise AvfaceError(
                    f"mediapipe {version} does not contain the face landmark models: "
                    f"install mediapipe==0.10.21 ({str(problem).splitlines()[0]})"
                ) from problem

    def _start(self) -> None:
        root = os.path.dirname(os.path.dirname(os.path.abspath(str(self._mp.__file__))))
        bindings = importlib.import_module("mediapipe.python._framework_bindings")
        bindings.resource_util.set_resource_dir(root)
        self._packets: dict[str, Any] = {}
        self._time = 0
        self._image: U8 | None = None
        self._image_packet: Any = None
        self._detector = self._graph(_DETECTOR % "Short", "detections")
        self._far_detector = self._graph(_DETECTOR % "Full", "detections")
        self._mesh = self._graph(_LANDMARKS, "landmarks", _PRESENCE_STREAM)
        self._detector.start_run()
        self._far_detector.start_run()
        self._mesh.start_run({"with_attention": self._mp.packet_creator.create_bool(True)})
        # The networks finish loading, and log about it, on their first image.
        blank = np.zeros((64, 64, 3), np.uint8)
        self.detect(blank, thorough=True)
        self.landmarks(blank, Region(32.0, 32.0, 64.0, 0.0))
        self._image = self._image_packet = None

    def _graph(self, text: str, *outputs: str) -> Any:
        text_format = importlib.import_module("google.protobuf.text_format")
        calculator_pb2 = importlib.import_module("mediapipe.framework.calculator_pb2")
        config = text_format.Parse(text, calculator_pb2.CalculatorGraphConfig())
        graph = self._mp.CalculatorGraph(graph_config=config)
        for name in outputs:
            graph.observe_output_stream(name, self._packets.__setitem__, False)
        return graph

    def _send_image(self, graph: Any, image: U8) -> None:
        if self._image is not image:
            # MediaPipe takes a read-only array without copying it; only this view is read-only.
            view = np.ascontiguousarray(image).view()
            view.flags.writeable = False
            self._image_packet = self._mp.packet_creator.create_image_frame(
                data=view, image_format=self._mp.ImageFormat.SRGB, copy=False
            )
            self._image = image
        self._packets.clear()
        self._time += 1
        graph.add_packet_to_input_stream("image", self._image_packet.at(self._time))

    def detect(self, image: U8, *, thorough: bool = False, turned: bool = False) -> list[Region]:
        """Regions of all detected faces, by descending score.

        Shapes: image (H, W, 3) uint8 RGB. The plain detection (1.4 ms) is MediaPipe's own for FaceMesh and finds faces
        from about an eighth of the image's longer side up to all of it. A thorough one (about 10 ms) also runs the
        full-range detector, for faces down to a third of that, and detects in the image with a border around it, for
        faces larger than the image. `turned` also detects in the image turned by 90, 180 and 270 degrees (about 5 ms):
        the detector misses most faces that are upside down, or takes them for upright.
        """
        regions = self._run_detector(self._detector, image)
        others = self._detect_turned(image) if turned else []
        # A face upside down is often taken for an upright one, with a lower score.
        regions = [
            one
            for one in regions
            if not any(
                math.hypot(one.x - other.x, one.y - other.y) < 0.5 * one.side
                and other.score > one.score + _HALF_TURN_GAIN
                for other in others
            )
        ]
        regions += others
        if not thorough:
            return regions
        regions += self._run_detector(self._far_detector, image)
        step = max(1, max(image.shape[:2]) // 256)
        small = image[::step, ::step]
        border = max(small.shape[:2]) // 4
        framed = np.pad(small, ((border, border), (border, border), (0, 0)))
        regions += [
            Region((one.x - border) * step, (one.y - border) * step, one.side * step, one.angle, one.score)
            for one in self._run_detector(self._detector, framed)
        ]
        return _apart(regions)

    def _detect_turned(self, image: U8) -> list[Region]:
        """Regions of certain faces in the image turned by 90, 180 and 270 degrees."""
        step = max(1, max(image.shape[:2]) // 256)
        small = image[::step, ::step]
        height, width = small.shape[:2]
        regions: list[Region] = []
        for quarters in (1, 2, 3):
            for one in self._run_detector(self._detector, np.ascontiguousarray(np.rot90(small, quarters))):
                if one.score < _TURNED_SCORE:
                    continue
                # Column and row (x, y) of the image turned counterclockwise once are those of (width - 1 - y, x).
                x, y = (
                    (width - 1 - one.y, one.x),
                    (width - 1 - one.x, height - 1 - one.y),
                    (one.y, height - 1 - one.x),
                )[quarters - 1]
                angle = one.angle + quarters * math.pi / 2
                regions.append(Region(x * step, y * step, one.side * step, angle, one.score))
        return _apart(sorted(regions, key=lambda one: -one.score))

    def right_way_up(self, image: U8, face: Face) -> Region | None:
        """The region of a face that was taken for the right way up but is upside down or on its side; None if it isn't.

        The landmark network finds a face in a chin and a mouth that are upside down, and reports its highest presence.
        The detector is the evidence: it runs on the face turned by 0, 90, 180 and 270 degrees (about 4 ms), and is
        surest where the eyes are above nose and mouth.

        Shapes: image (H, W, 3) uint8 RGB.
        """
        region = face.next_region
        scale = _TURNED_MARGIN * region.side / _TURNED_SIDE
        middle = (_TURNED_SIDE - 1) / 2
        best: Region | None = None
        most = -1.0
        for quarters, gain in enumerate((0.0, _QUARTER_TURN_GAIN, _HALF_TURN_GAIN, _QUARTER_TURN_GAIN)):
            angle = region.angle + quarters * math.pi / 2
            across, down = scale * math.cos(angle), scale * math.sin(angle)
            to_image = np.array(
                [
                    [across, -down, region.x - (across - down) * middle],
                    [down, across, region.y - (down + across) * middle],
                ]
            )
            crop = cv2.warpAffine(
                image, to_image, (_TURNED_SIDE, _TURNED_SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
            )
            found = self._run_detector(self._detector, np.asarray(crop, np.uint8))
            score = found[0].score - gain if found else 0.0
            if score > most:
                most, best = score, None
                if quarters and found:
                    x, y = to_image @ (found[0].x, found[0].y, 1.0)
                    best = Region(x, y, found[0].side * scale, angle + found[0].angle, found[0].score)
        return best

    def _run_detector(self, detector: Any, image: U8) -> list[Region]:
        height, width = image.shape[:2]
        self._send_image(detector, image)
        detector.wait_until_idle()
        packet = self._packets.get("detections")
        if packet is None:
            return []
        found = sorted(self._mp.packet_getter.get_proto_list(packet), key=lambda one: -one.score[0])
        regions = []
        for one in found:
            box, points = one.location_data.relative_bounding_box, one.location_data.relative_keypoints
            eye_x, eye_y = (points[1].x - points[0].x) * width, (points[1].y - points[0].y) * height
            regions.append(
                Region(
                    x=(box.xmin + box.width / 2) * width - 0.5,
                    y=(box.ymin + box.height / 2) * height - 0.5,
                    side=_REGION_SCALE * max(box.width * width, box.height * height),
                    angle=math.atan2(eye_y, eye_x),
                    score=float(one.score[0]),
                )
            )
        return regions

    def landmarks(self, image: U8, region: Region) -> Face | None:
        """The face in a region, or None where the network finds none.

        Shapes: image (H, W, 3) uint8 RGB.
        """
        height, width = image.shape[:2]
        self._send_image(self._mesh, image)
        rect = self._rect.NormalizedRect(
            x_center=(region.x + 0.5) / width,
            y_center=(region.y + 0.5) / height,
            width=region.side / width,
            height=region.side / height,
            rotation=region.angle,
        )
        self._mesh.add_packet_to_input_stream(
            "region", self._mp.packet_creator.create_proto(rect).at(self._time)
        )
        self._mesh.wait_until_idle()
        packet = self._packets.get("landmarks")
        if packet is None:
            return None
        points = _read_landmarks(self._mp.packet_getter.get_proto(packet))
        points *= np.array([width, height, width], np.float32)
        # Normalised x is 0 and 1 at the image's edges. MediaPipe's crop is off by part of a pixel of its own: -0.5 is
        # right to about 0.1 % of the face's size (measured by mirroring and rotating).
        points[:, :2] -= 0.5
        return Face(points, float(self._mp.packet_getter.get_float(self._packets[_PRESENCE_STREAM])))

    def close(self) -> None:
        """Release the networks. Safe to call twice."""
        for graph in (self._detector, self._far_detector, self._mesh):
            with contextlib.suppress(RuntimeError, ValueError):
                graph.close()
        self._image = self._image_packet = None

    def __enter__(self) -> FaceMesh:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def _apart(regions: list[Region]) -> list[Region]:
    """Regions without those whose centre is close to that of an earlier one."""
    apart: list[Region] = []
    for one in regions:
        if all(math.hypot(one.x - other.x, one.y - other.y) > 0.2 * other.side for other in apart):
            apart.append(one)
    return apart


def _read_landmarks(message: Any) -> F32:
    """(478, 3) float32 of a NormalizedLandmarkList.

    Reading 1434 attributes one by one takes a tenth of the network's time. A message of plain x, y, z points is
    serialised as one record of 17 bytes a point: two of framing, then three times a tag and a little-endian float.
    """
    raw = message.SerializeToString()
    if len(raw) == NUM_LANDMARKS * 17:
        records = np.frombuffer(raw, np.uint8).reshape(NUM_LANDMARKS, 17)
        if (records[:, [0, 1, 2, 7, 12]] == np.array([0x0A, 15, 0x0D, 0x15, 0x1D], np.uint8)).all():
            fields = records[:, 2:].reshape(NUM_LANDMARKS, 3, 5)[:, :, 1:]
            return np.ascontiguousarray(fields).view("<f4")[..., 0].astype(np.float32)
    return np.array([(point.x, point.y, point.z) for point in message.landmark], np.float32)
