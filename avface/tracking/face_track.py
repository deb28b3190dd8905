"""What tracking hands on: one person over all frames of a clip; and the temporary file it streams through."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from avface.errors import AvfaceError

Float = npt.NDArray[np.float32]

_FRAME_FIELDS: list[tuple[str, str] | tuple[str, str, tuple[int, ...]]] = [
    ("landmarks", "<f4", (478, 2)),
    ("depth", "<f4", (478,)),
    ("crop", "<f4", (4,)),
    ("confidence", "<f4"),
]
FRAME_RECORD = np.dtype(_FRAME_FIELDS)
"""One frame of one person in the temporary file."""


@dataclass(frozen=True)
class Segment:
    """A stretch of frames between two shot cuts."""

    start: int
    """First frame."""
    end: int
    """One past the last frame."""
    same_person: bool
    """Whether the tracked person is seen in it."""
    similarity: float
    """How alike the most similar face in it and the tracked person are, in [0, 1] with 0.5 undecided: 1
    where the person was seen longest, nan where there is no face at all."""


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One person over all T frames of a clip.

    The per-frame arrays lie in a temporary file without a name, mapped into memory read-only: frames are
    read from disk as they are used, and the file is gone with the last array, or with the process however
    it ends.
    """

    landmarks: Float
    """(T, 478, 2) pixels in MediaPipe's scheme, (0, 0) the middle of the top-left pixel; nan where unseen."""
    depth: Float
    """(T, 478) MediaPipe's z on the scale of the pixels, relative to the head, growing away from the
    camera; nan where unseen. An estimate of a network, good for ordering rather than for measuring."""
    confidence: Float
    """(T,) in [0, 1]: 0 where the person is not seen, and only there; see
    `avface.tracking.frame_confidence`."""
    crop: Float
    """(T, 4) box of the landmarks, x0, y0, x1, y1 in pixels; nan where unseen."""
    times: npt.NDArray[np.float64]
    """(T,) seconds."""
    segments: tuple[Segment, ...]
    """Shots, in order; they cover all frames."""
    image_size: tuple[int, int]
    """Width and height of the frames in pixels."""

    def __len__(self) -> int:
        return len(self.times)

    @property
    def seen(self) -> npt.NDArray[np.bool_]:
        """(T,) whether the person is seen."""
        return np.asarray(self.confidence > 0)


class RecordFile:
    """Records of one numpy type appended to a temporary file without a name, then mapped into memory.

    The file has no entry in any folder (on Windows: is deleted when closed), so nothing is left behind even
    if the process is killed. Raises AvfaceError when the folder for temporary files is full or not
    writable.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._count = 0
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115 - open as long as self
                prefix="avface-", buffering=1 << 20
            )
        except OSError as problem:
            raise self._explained(problem) from problem

    def __len__(self) -> int:
        return self._count

    def append(self, records: npt.NDArray[Any]) -> None:
        """Write one record or an array of them at the end."""
        try:
            self._file.write(np.ascontiguousarray(records, dtype=self.dtype).tobytes())
        except OSError as problem:
            raise self._explained(problem) from problem
        self._count += records.size

    def map(self) -> npt.NDArray[Any]:
        """All records so far, (N,), read-only; stays valid after `close`."""
        if self._count == 0:
            return np.zeros(0, self.dtype)
        try:
            self._file.flush()
        except OSError as problem:
            raise self._explained(problem) from problem
        return np.memmap(self._file, dtype=self.dtype, mode="r", shape=(self._count,))

    def close(self) -> None:
        """Forget the file; arrays from `map` keep its contents alive."""
        self._file.close()

    @staticmethod
    def _explained(problem: OSError) -> AvfaceError:
        return AvfaceError(
            f"{tempfile.gettempdir()}: cannot write the face track's temporary file "
            f"({problem.strerror or problem}); free some space there or set TMPDIR to another folder"
        )
