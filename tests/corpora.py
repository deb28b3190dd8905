"""Small corpora for tests: bright discs for faces, and a tracker that finds them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from videos import Track, constant_rate, write_video

from avface.media import Frame
from avface.tracking import FaceTrack, Segment

WIDTH, HEIGHT, RADIUS = 160, 120, 24

# Points on a disc of radius 1, the first ones on its rim: the same in every frame.
_ANGLES = np.arange(478) * 2.399963
DISC = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], 1) * np.sqrt(1 - np.arange(478) / 478)[:, None]


def disc(centre: tuple[float, float], radius: float = RADIUS, level: int = 230) -> np.ndarray:
    """A picture of a disc on grey."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    inside = np.hypot(x - centre[0], y - centre[1]) <= radius
    return np.where(inside[..., None], level, 60).astype(np.uint8) * np.ones(3, np.uint8)


def nobody() -> np.ndarray:
    """A picture without a disc."""
    return np.full((HEIGHT, WIDTH, 3), 60, np.uint8)


def crashing() -> np.ndarray:
    """A picture that ends the process of the tracker."""
    return np.full((HEIGHT, WIDTH, 3), 255, np.uint8)


def walk(frames: int, start: float = 60.0) -> list[np.ndarray]:
    """A disc that moves to the right by half a pixel a frame."""
    return [disc((start + frame / 2, 55)) for frame in range(frames)]


def write_talk(path: Path, pictures: list[np.ndarray], frame_rate: float = 25.0, sound: bool = True) -> Path:
    """A video of these pictures, with noise as its sound."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(pictures))
    samples = rng.uniform(-0.5, 0.5, (1, round(len(pictures) / frame_rate * 16_000))).astype(np.float32)
    tracks = [Track(samples, rate=16_000)] if sound else []
    return write_video(path, pictures, constant_rate(len(pictures), frame_rate), tracks=tracks)


def write_aac(path: Path, samples: np.ndarray) -> Path:
    """A sound file of samples (1, N) at 16 kHz, with the encoder's delay marked as encoders do."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16_000, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 16_000, 0, Fraction(1, 16_000)
        container.mux(sound.encode(frame) + sound.encode(None))
    return path


@dataclass(frozen=True)
class DiscTracker:
    """Finds the bright disc of each frame."""

    cut: int | None = None
    """Frame at which a new shot begins."""
    seconds: float = 0.0
    """Time that each clip takes at least."""

    def __call__(self, frames: Iterable[Frame]) -> FaceTrack:
        times, centres, radii = [], [], []
        time.sleep(self.seconds)
        for frame in frames:
            bright = frame.image[..., 1] > 150
            if bright.all():
                os._exit(13)
            rows, columns = np.nonzero(bright)
            times.append(frame.time)
            found = len(rows) > 20
            centres.append((columns.mean(), rows.mean()) if found else (np.nan, np.nan))
            radii.append(np.sqrt(len(rows) / np.pi) if found else np.nan)
        size = (frame.image.shape[1], frame.image.shape[0])
        landmarks = np.array(centres)[:, None] + np.array(radii)[:, None, None] * DISC
        seen = np.isfinite(radii)
        shots = [0, *([self.cut] if self.cut else []), len(times)]
        return FaceTrack(
            landmarks=landmarks.astype(np.float32),
            depth=landmarks[..., 0].astype(np.float32) * 0,
            confidence=np.where(seen, 0.9, 0).astype(np.float32),
            box=np.full((len(times), 4), np.nan, np.float32),
            times=np.array(times),
            segments=tuple(Segment(a, b, True, 1.0) for a, b in pairwise(shots)),
            image_size=size,
        )


def loudness(sound: np.ndarray | None, times: np.ndarray) -> np.ndarray:
    """Speech features (T, 16, 29) of which all numbers are the frame's loudness, or 0 without sound."""
    values = np.zeros((len(times), 16, 29), np.float32)
    for row, moment in enumerate(times if sound is not None else []):
        first = round(moment * 16_000)
        values[row] = np.abs(sound[first : first + 640]).mean() if len(sound) > first else 0
    return values


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder, and their bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
