"""The result of tracking, one person over all frames of a clip, and the temporary file that it is stored in."""

from __future__ import annotations

import io
import operator
import shutil
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from avface.arrays import F32, F64, U8, Bool
from avface.files.temporary import temporary_file, unusable
from avface.tracking.aligned_crops import AlignedCrops

BLOCK = 512
"""Records read from disk at a time: 3 MB of faces."""

BUFFER = 1 << 20
"""Bytes of records that are written at a time."""

_POINT_FIELDS: list[tuple[str, str, tuple[int, ...]]] = [
    ("landmarks", "<f4", (478, 2)),
    ("depth", "<f4", (478,)),
]
POINT_RECORD = np.dtype(_POINT_FIELDS)
"""The points of one person in one frame, as stored in the temporary file."""


@dataclass(frozen=True)
class Segment:
    """The frames between two shot cuts."""

    start: int
    """First frame."""
    end: int
    """One past the last frame."""
    same_person: bool
    """Whether the tracked person appears in it."""
    similarity: float
    """Largest similarity of a face in it to the tracked person, in [0, 1] with 0.5 undecided: 1 where the person is
    seen longest, nan without any face."""


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One person over all T frames of a clip: what the detector tracked and, if computed, what optical flow refined.

    The points lie in a temporary file without a name and are read as they are sliced; the file is deleted with the last
    of them, or with the process however it ends. All else is small, 28 bytes a frame, and in memory.
    """

    landmarks: F32 | StoredArray
    """(T, 478, 2) as the detector tracked them: pixels in MediaPipe's scheme, (0, 0) the middle of the top-left pixel;
    nan where the person was not detected. What networks are trained on; for a fit see `best_landmarks`."""
    depth: F32 | StoredArray
    """(T, 478) MediaPipe's z on the scale of the pixels, relative to the head, growing away from the camera; nan where
    the person was not detected. A network's estimate, fit for ordering rather than for measuring."""
    confidence: F32
    """(T,) in [0, 1]: 0 where the person was not detected or is covered, and only there; see
    `avface.tracking.frame_confidence`."""
    box: F32
    """(T, 4) bounding box of the landmarks, x0, y0, x1, y1 in pixels; nan where the person was not detected."""
    times: F64
    """(T,) seconds."""
    segments: tuple[Segment, ...]
    """Shots, in order; they cover all frames."""
    image_size: tuple[int, int]
    """Width and height of the frames in pixels."""
    visibility: F32 | StoredArray | None = None
    """(T, 478) in [0, 1]: probability that nothing occludes a landmark, 1 = seen; 1 in frames without the person, of
    which nothing is known. None where it was not estimated."""
    covered: Bool | None = None
    """(T,) frames in which the whole face is covered: not seen, nor looked for by optical flow
    (`avface.tracking.covered`). None if none were set aside, or visibility was not estimated."""
    flow_landmarks: F32 | StoredArray | None = None
    """(T, 478, 2) the landmarks with those of occluded frames refined by optical flow from clear frames
    (`avface.tracking.refine_by_flow`); elsewhere as detected. None if none were refined."""
    flow_tracked: Bool | StoredArray | None = None
    """(T, 478) whether optical flow tracked a landmark; the others of a refined frame move rigidly with the tracked
    ones. None if none were refined."""
    flow_confidence: F32 | None = None
    """(T,) confidence of `flow_landmarks`; above 0 also in refined frames in which the person was not detected. None if
    none were refined."""
    aligned_crops: AlignedCrops | None = None
    """Images of the face in some of the frames; None if none were kept."""
    pictures: U8 | StoredArray | None = None
    """(T, side, side) grey pictures of the face, warped by `landmarks` into a layout (`avface.tracking.face_picture`);
    0 where the person was not detected. None if none were kept."""
    person: int = 0
    """Number of the person in the order of prominence, from 0."""
    people: int = 1
    """Number of people seen in the clip."""

    def __len__(self) -> int:
        return len(self.times)

    @property
    def seen(self) -> Bool:
        """(T,) whether the person was detected."""
        return np.asarray(self.confidence > 0)

    def mean_visibility(self) -> F32:
        """Mean of `visibility` over the landmarks (T,), read in blocks; it must have been estimated."""
        assert self.visibility is not None
        return np.concatenate(
            [
                np.asarray(self.visibility[start : start + BLOCK], np.float32).mean(1)
                for start in range(0, len(self), BLOCK)
            ]
        )

    @property
    def best_landmarks(self) -> F32 | StoredArray:
        """(T, 478, 2) `flow_landmarks` where optical flow refined any, `landmarks` otherwise."""
        return self.landmarks if self.flow_landmarks is None else self.flow_landmarks

    @property
    def best_confidence(self) -> F32:
        """(T,) confidence of `best_landmarks`."""
        return self.confidence if self.flow_confidence is None else self.flow_confidence


class RecordFile:
    """Records of one numpy type appended to a temporary file without a name, and read back in pieces.

    Not memory-mapped: touched pages of a map count as the process's memory, so that a pass over a long clip would end
    with all of it in memory. The file has no entry in any folder (on Windows: is deleted when closed), so that nothing
    is left behind even if the process is killed. Where the folder for temporary files can't be used or is full, it lies
    in, or moves to, the folder of the results (`avface.files.temporary`); AvfaceError where that can't be used either.
    """

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self.dtype = dtype
        self._count = 0
        self._lock = threading.Lock()
        self._pending = bytearray()  # the last records, not written yet
        self._files = [temporary_file()]  # one, a list so that `close` finds the file that it has moved to
        self.close = weakref.finalize(self, _close_all, self._files)
        """Close and so delete the file; happens by itself when nothing refers to this object any more."""

    def __len__(self) -> int:
        return self._count

    def append(self, records: npt.NDArray[Any]) -> None:
        """Write one record or an array of them at the end."""
        with self._lock:
            self._pending += np.ascontiguousarray(records, dtype=self.dtype).tobytes()
            if len(self._pending) >= BUFFER:
                self._write()
            self._count += records.size

    def read(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Records start to stop, (stop - start,), in memory of their own; both within 0 to len(self)."""
        records = np.empty(max(stop - start, 0), self.dtype)
        target = memoryview(records.view(np.uint8).data)
        with self._lock:
            self._write()
            try:
                file = self._files[0]
                file.seek(start * self.dtype.itemsize)
                while len(target):
                    got = file.readinto(target)
                    if not got:
                        raise EOFError(f"records {start} to {stop} of {self._count} do not exist")
                    target = target[got:]
            except OSError as problem:
                raise unusable(problem) from None
        return records

    def _write(self) -> None:
        """Write the pending records at the end of the file, which moves to another folder if its own is full."""
        try:
            _append(self._files[0], self._pending)
        except OSError:
            moved = temporary_file(elsewhere=True)
            try:
                self._files[0].seek(0)
                shutil.copyfileobj(self._files[0], moved, 1 << 20)
                _append(moved, self._pending)
            except OSError as problem:
                moved.close()
                raise unusable(problem) from None
            self._files[0].close()
            self._files[0] = moved

    def blocks(self, size: int = BLOCK) -> Iterator[npt.NDArray[Any]]:
        """All records so far, in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.read(start, min(start + size, len(self)))


def _append(file: io.FileIO, pending: bytearray) -> None:
    """Write bytes at the end of a file, removing from `pending` what is written."""
    file.seek(0, io.SEEK_END)
    while pending:
        del pending[: file.write(pending) or 0]


def _close_all(files: list[io.FileIO]) -> None:
    for file in files:
        file.close()


class StoredArray:
    """One field of a RecordFile as an array of N rows that is read from disk where it is used.

    Indexed like a numpy array, and accepted by numpy's functions. One row and a slice of rows without a step are read
    alone; any other index, and numpy's functions, read everything. The result is a copy: the array itself cannot be
    written to.
    """

    def __init__(self, file: RecordFile, field: str) -> None:
        """Use the records that the file has now."""
        self._file, self._field = file, field
        kind = file.dtype[field]
        self.dtype: np.dtype[Any] = kind.base
        """numpy type of one number."""
        self.shape: tuple[int, ...] = (len(file), *kind.shape)
        """(N, ...)."""

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        inner: tuple[Any, ...]
        rows, *others = key if isinstance(key, tuple) else (key,)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                inner = (slice(None), *others)
                return self._rows(start, max(start, stop))[inner]
        elif isinstance(rows, (int, np.integer)) and not isinstance(rows, bool):
            row = operator.index(rows)
            if not -len(self) <= row < len(self):
                raise IndexError(f"row {row} of {len(self)}")
            row %= len(self)
            inner = (0, *others)
            return self._rows(row, row + 1)[inner]
        return self._rows(0, len(self))[key]

    def __iter__(self) -> Iterator[npt.NDArray[Any]]:
        for start in range(0, len(self), BLOCK):
            yield from self._rows(start, min(start + BLOCK, len(self)))

    def __array__(self, dtype: npt.DTypeLike = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("the array lies on disk: it cannot be read without a copy")
        return self._rows(0, len(self)).astype(self.dtype if dtype is None else dtype, copy=False)

    def _rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        result = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for first in range(start, stop, BLOCK):
            last = min(first + BLOCK, stop)
            result[first - start : last - start] = self._file.read(first, last)[self._field]
        return result
