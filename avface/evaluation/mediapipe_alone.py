"""MediaPipe's own face mesh on a video: the baseline for speed, and an estimate of the tracker's noise."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avface.arrays import F32, U8, Floats
from avface.media import Clip, Frame
from avface.threads import refuse_after_fork
from avface.tracking.facemesh import quiet_stderr


def run_mediapipe(path: Path) -> tuple[int, float]:
    """Run MediaPipe alone on a video: decoding and `solutions.face_mesh.FaceMesh`, nothing else.

    Video mode with refined landmarks (478 points) and one face, its usual settings. Frames are decoded as in avface, a
    few ahead in a second thread, so that only the processing differs. Returns the number of frames and their time in
    seconds without the loading of the networks.

    Raises:
        AvfaceError: if the video can't be read.
    """
    clip = Clip.open(path)
    with _face_mesh(static_image_mode=False, max_num_faces=1) as mesh:
        start = time.perf_counter()
        frames = 0
        for frame in clip.frames():
            with _quiet_once(frame.index):
                mesh.process(frame.image)
            frames += 1
        return frames, time.perf_counter() - start


@dataclass
class StaticSample:
    """MediaPipe in static mode on every n-th frame of a stream that passes through.

    Static mode detects the face anew in every frame, so that it differs from video mode by the tracker's own noise: a
    lower bound for the landmark error of a reconstruction.
    """

    every: int
    """Step in frames between samples."""
    faces: dict[int, F32] = field(default_factory=dict)
    """By frame: landmarks (N, 478, 2) in pixels of its N detected faces."""

    def through(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Pass frames on unchanged and sample every n-th."""
        with _face_mesh(static_image_mode=True, max_num_faces=4) as mesh:
            for frame in frames:
                if frame.index % self.every == 0:
                    with _quiet_once(frame.index):
                        self.faces[frame.index] = _landmarks(mesh, frame.image)
                yield frame

    def nearest_to(self, reference: Floats) -> F32:
        """The face nearest to the reference (T, 478, 2) in each sampled frame: (T, 478, 2) pixels, nan elsewhere."""
        nearest = np.full(reference.shape, np.nan, np.float32)
        for index, faces in self.faces.items():
            if len(faces) and np.isfinite(reference[index]).all():
                distances = np.linalg.norm(faces - reference[index], axis=-1).mean(1)
                nearest[index] = faces[distances.argmin()]
        return nearest


@contextmanager
def _face_mesh(**options: Any) -> Iterator[Any]:
    """A FaceMesh with its networks loaded; their log output is suppressed."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    refuse_after_fork()
    with quiet_stderr():
        mesh = FaceMesh(refine_landmarks=True, **options)
        mesh.process(np.zeros((64, 64, 3), np.uint8))  # loading ends with the first frame
    with mesh:
        yield mesh


def _quiet_once(index: int) -> AbstractContextManager[None]:
    """For frame 0, with which a FaceMesh writes the last line of its log."""
    return nullcontext() if index else quiet_stderr()


def _landmarks(mesh: Any, image: U8) -> F32:
    """(N, 478, 2) pixels; (0, 0) is the centre of the top-left pixel."""
    found = mesh.process(image).multi_face_landmarks or []
    points = [[(point.x, point.y) for point in face.landmark] for face in found]
    height, width = image.shape[:2]
    pixels = np.array(points, np.float32).reshape(-1, 478, 2) * np.array((width, height), np.float32)
    return np.asarray(pixels - np.float32(0.5))
