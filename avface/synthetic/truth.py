"""Ground truth of a synthetic clip, and its file."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avface.arrays import U8, Bool, Floats
from avface.capture import Capture
from avface.errors import AvfaceError
from avface.files import replacing

VERSION = 2
"""Version of the file's keys and of the scenes: a seed gives the same scene within one version."""


@dataclass(frozen=True)
class ClipTruth:
    """Exact ground truth of a clip of T frames, and the output of the real tracker in its video.

    Vertices, landmarks and poses are computed by `capture()`; displacement and the rest of the scene by
    `avface.synthetic.clips.scene_of`, which reproduces it from the seed.

    Shapes: shape (S,), expression (T, E) in [0, 1] named by expression_names, rotation (T, 3) axis-angle and
            translation (T, 3) metres of the head in the camera, joints (T, J, 3) axis-angle, times (T,) seconds,
            landmarks (T, 478, 2) pixels of the head's own landmarks, tracked (T, 478, 2) pixels of the tracker in the
            encoded video, nan without a detection, tracked_confidence (T,), occlusion (T, H, ceil(W / 8)) uint8,
            packed bits of the pixels that an occluder hides, or (0, 0, 0) without one; light_harmonics (9, 3),
            light_directions (K, 3), light_colours (K, 3); albedo (R, R, 3) uint8 sRGB and relief (R, R) micrometres
            float16 in UV, row 0 at the top (v = 1); phoneme_symbols (P,) IPA, "" for a pause, with phoneme_starts
            (P,) seconds.
    """

    seed: int
    index: int
    config: str
    head: str
    shape: Floats
    expression: Floats
    expression_names: tuple[str, ...]
    rotation: Floats
    translation: Floats
    joints: Floats
    joint_names: tuple[str, ...]
    focal_length: float
    principal_point: tuple[float, float]
    image_size: tuple[int, int]
    times: Floats
    landmarks: Floats
    tracked: Floats
    tracked_confidence: Floats
    occlusion: U8
    light_harmonics: Floats
    light_directions: Floats
    light_colours: Floats
    albedo: U8
    relief: Floats
    phoneme_symbols: tuple[str, ...]
    phoneme_starts: Floats
    kind: str
    language: str
    voice: str
    emotion: str

    def __len__(self) -> int:
        """Number of frames T."""
        return len(self.times)

    def capture(self) -> Capture:
        """The ground truth of head and camera as a `Capture`, from which vertices, landmarks and exports follow."""
        return Capture(
            head=self.head,
            shape=np.asarray(self.shape, np.float32),
            expression=np.asarray(self.expression, np.float32),
            expression_names=self.expression_names,
            rotation=np.asarray(self.rotation, np.float32),
            translation=np.asarray(self.translation, np.float32),
            joints=np.asarray(self.joints, np.float32),
            joint_names=self.joint_names,
            focal_length=self.focal_length,
            principal_point=self.principal_point,
            image_size=self.image_size,
            times=np.asarray(self.times, np.float64),
            confidence=np.ones(len(self), np.float32),
            provenance={"truth": "avface.synthetic"},
        )

    def occlusion_mask(self, frame: int) -> Bool:
        """Pixels (H, W) of a frame that an occluder hides."""
        width, height = self.image_size
        if not len(self.occlusion):
            return np.zeros((height, width), bool)
        return np.unpackbits(self.occlusion[frame], axis=-1)[:, :width].astype(bool)

    def save(self, path: Path) -> Path:
        """Write the truth as an .npz file, atomically.

        Raises:
            AvfaceError: if it can't be written.
        """
        arrays = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, version=np.int64(VERSION), **arrays)
        return path

    @classmethod
    def load(cls, path: str | Path) -> ClipTruth:
        """Read a file that `save` wrote.

        Raises:
            AvfaceError: if it is missing, damaged or of another version.
        """
        path = Path(path)
        try:
            with np.load(path, allow_pickle=False) as archive:
                data = {key: archive[key] for key in archive.files}
        except FileNotFoundError:
            raise AvfaceError(f"{path}: no such file; a synthetic clip has its truth in truth.npz") from None
        except Exception as error:  # zipfile and zlib raise a family of errors on damaged archives
            raise AvfaceError(f"{path}: not a readable truth file ({error}); make the clip again") from None
        if int(data.get("version", -1)) != VERSION:
            raise AvfaceError(f"{path}: not a truth file of version {VERSION}; make the clips again")
        missing = [field.name for field in fields(cls) if field.name not in data]
        if missing:
            raise AvfaceError(f"{path}: {', '.join(missing)} missing; make the clip again")
        values: dict[str, Any] = {field.name: _plain(data[field.name], field.type) for field in fields(cls)}
        return cls(**values)


def _plain(value: npt.NDArray[np.generic], kind: object) -> object:
    """Numbers, strings and tuples as such; arrays as they are."""
    if str(kind).startswith("tuple"):
        return tuple(value.tolist())
    return value.item() if value.ndim == 0 else value
