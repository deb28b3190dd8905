"""MediaPipe's own face mesh loop on a video: the yardstick for speed, and a second opinion on landmarks."""

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
from avface.tracking.facemesh import quiet_stderr


def run_mediapipe(path: Path) -> tuple[int, float]:
    """Run MediaPipe alone on a video: decoding it and `solutions.face_mesh.FaceMesh`, nothing else.

    Video mode with refined landmarks (478 points) and one face, the settings with which it is usually run.
    Frames are decoded as avface decodes them, a few ahead in a second thread, so that only what follows
    differs. Returns the number of frames and the seconds they took; loading the networks isn't counted.

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

    Static mode looks for the face anew in every picture, so it differs from video mode by the tracker's own
    uncertainty: the landmarks no reconstruction can be expected to agree with better.
    """

    every: int
    """Frames between two that are looked at."""
    faces: dict[int, F32] = field(default_factory=dict)
    """By frame: landmarks (N, 478, 2) in pixels of the N faces seen in it."""

    def through(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Pass frames on unchanged, looking at some."""
        with _face_mesh(static_image_mode=True, max_num_faces=4) as mesh:
            for frame in frames:
                if frame.index % self.every == 0:
                    with _quiet_once(frame.index):
                        self.faces[frame.index] = _landmarks(mesh, frame.image)
                yield frame

    def nearest_to(self, reference: Floats) -> F32:
        """The face nearest to the reference (T, 478, 2) in each frame looked at: (T, 478, 2) pixels; nan
        elsewhere."""
        nearest = np.full(reference.shape, np.nan, np.float32)
        for index, faces in self.faces.items():
            if len(faces) and np.isfinite(reference[index]).all():
                apart = np.linalg.norm(faces - reference[index], axis=-1).mean(1)
                nearest[index] = faces[apart.argmin()]
        return nearest


@contextmanager
def _face_mesh(**options: Any) -> Iterator[Any]:
    """A FaceMesh whose networks are loaded, without the log that they write while loading."""
    from mediapipe.python.solutions.face_mesh import FaceMesh

    with quiet_stderr():
        mesh = FaceMesh(refine_landmarks=True, **options)
        mesh.process(np.zeros((64, 64, 3), np.uint8))  # they finish loading on their first picture
    with mesh:
        yield mesh


def _quiet_once(index: int) -> AbstractContextManager[None]:
    """For frame 0, on whose face a FaceMesh writes a last line of its log."""
    return nullcontext() if index else quiet_stderr()


def _landmarks(mesh: Any, image: U8) -> F32:
    """(N, 478, 2) pixels, (0, 0) the middle of the top-left one."""
    found = mesh.process(image).multi_face_landmarks or []
    points = [[(point.x, point.y) for point in face.landmark] for face in found]
    height, width = image.shape[:2]
    pixels = np.array(points, np.float32).reshape(-1, 478, 2) * np.array((width, height), np.float32)
    return np.asarray(pixels - np.float32(0.5))
