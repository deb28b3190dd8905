"""Windows of consecutive frames from shards, for training and evaluation."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import IterableDataset, get_worker_info

from avface.data.crops import FACE, OCCLUDED, OUTSIDE
from avface.data.items import SPLITS, Split
from avface.data.samples import TRUTH, Arrays, Chunk, ChunkInfo, decode_picture, decode_sample, samples_until
from avface.data.shards import damaged, read_index, read_samples
from avface.errors import AvfaceError

Window = dict[str, Any]


class Windows(IterableDataset[Window]):
    """The windows of one split of a prepared dataset.

    Each shard is read by exactly one worker of one machine: worker r * W + w of all (machine or process r of
    `world_size`, worker w of W) reads every (world_size * W)-th shard. There should be at least as many shards as
    workers.

    A window is a dict for torch's default collation, with L frames and N pixels:

    * `images` (L, 3, N, N) uint8 RGB;
    * `face` (L, N, N) bool: visible pixels of the face: within the hull of the landmarks, inside the picture, and not
      known to be occluded; `occluded` (L, N, N) bool: pixels known to be occluded (ground truth; else all False);
    * `landmarks` (L, 478, 2) float32 pixels of the crop, (0, 0) the middle of the top-left one, and `depth` (L, 478);
      `confidence` (L,) in [0, 1], 0 where landmarks are interpolated;
    * `crop` (L, 3) float32: x, y of the crop's centre and its side in pixels of the video's own frames: a point
      p there is at (p - centre + side / 2) * N / side - 1/2 in the crop;
    * `speech` (L, ...) float32 features, if the dataset has them; `sound` (L * 640 at 25 fps,) float32 at 16 kHz;
      `has_sound` bool;
    * `id`, `identity` str, `frame` int: index of the window's first frame in the item, and `source_frame` (L,) in the
      video;
    * `truth.<name>` of each requested name.
    """

    def __init__(
        self,
        folder: str | Path,
        split: Split,
        *,
        length: int = 16,
        stride: int | None = None,
        shuffle: bool = False,
        endless: bool = False,
        seed: int = 0,
        buffer: int = 256,
        truth: Sequence[str] = (),
        rank: int | None = None,
        world_size: int | None = None,
    ):
        """Open a dataset.

        Args:
            folder: Folder of the dataset, made by `prepare`.
            split: The split to read.
            length: Number of frames of a window.
            stride: Number of frames from the start of one window to that of the next; None is `length`, so that each
                frame is in one window. 1 gives all windows.
            shuffle: Shards in random order, the first window of each take at a random one of its first `stride`
                frames, and windows shuffled by a buffer; all determined by seed and epoch. Otherwise everything is in
                the order of the files.
            endless: Continue with the next epoch for ever. For training on several machines, which have unequal
                numbers of windows: count steps, not epochs.
            seed: Seed of the shuffling.
            buffer: Size of the shuffle buffer of a worker in windows (encoded, about 0.3 MB each).
            truth: Names of ground truth to include.
            rank: Index of this machine or process; None takes that of torch.distributed, 0 without it.
            world_size: Number of machines or processes; None takes that of torch.distributed, 1 without it.

        Raises:
            AvfaceError: when the folder holds no finished dataset, or the split is empty.
            ValueError: when a number is out of range.
        """
        if split not in SPLITS:
            raise ValueError(f"split={split!r} must be one of {', '.join(SPLITS)}")
        stride = length if stride is None else stride
        for name, value in (("length", length), ("stride", stride), ("buffer", buffer)):
            if value < 1:
                raise ValueError(f"{name}={value} must be at least 1")
        if seed < 0:
            raise ValueError(f"seed={seed} must not be negative")
        if rank is None or world_size is None:
            joined = torch.distributed.is_available() and torch.distributed.is_initialized()
            rank = (torch.distributed.get_rank() if joined else 0) if rank is None else rank
            world_size = (
                (torch.distributed.get_world_size() if joined else 1) if world_size is None else world_size
            )
        if not 0 <= rank < world_size:
            raise ValueError(f"rank={rank} must be from 0 to world_size - 1, which is {world_size - 1}")
        self.folder = Path(folder)
        index = read_index(self.folder)
        self.shards: tuple[_Shard, ...] = tuple(
            _Shard(self.folder / entry["shard"], entry["bytes"], entry["samples"])
            for entry in index["shards"][split]
        )
        """The split's shards, in order."""
        if not self.shards:
            filled = [name for name in SPLITS if index["shards"][name]]
            raise AvfaceError(
                f"{self.folder}: its {split} split is empty (there is {', '.join(filled)}); prepare it with a larger "
                "share, or with more identities"
            )
        self.length, self.stride, self.truth = length, stride, tuple(truth)
        self.shuffle, self.endless, self.seed, self.buffer = shuffle, endless, seed, buffer
        self.rank, self.world_size = rank, world_size
        # in shared memory, so that persistent workers receive a new epoch
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._passed: tuple[int, ...] = ()

    def pass_over(self, windows: Sequence[int]) -> None:
        """Skip so many windows, undecoded, at the start of the next iterations: for a resumed run.

        One number per worker, in order; a loader with as many workers then continues where one that has yielded so many
        windows stopped.
        """
        self._passed = tuple(windows)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, from 0, that the next iteration reads (or, if endless, starts with)."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[Window]:
        """Read this worker's share.

        Raises AvfaceError, naming the shard, when one is missing or damaged, or lacks ground truth asked for.
        """
        worker = get_worker_info()
        workers, number = (1, 0) if worker is None else (worker.num_workers, worker.id)
        first, everyone = self.rank * workers + number, self.world_size * workers
        begin = int(self._epoch)
        passed = self._passed[number] if number < len(self._passed) else 0
        for epoch in count(begin) if self.endless else (begin,):
            shards = self.shards
            if self.shuffle:
                order = np.random.default_rng([self.seed, epoch]).permutation(len(shards))
                shards = tuple(shards[i] for i in order)
            stream: Iterator[_EncodedFrames] = (
                frames for shard in shards[first::everyone] for frames in self._windows_of(shard, epoch)
            )
            if self.shuffle:
                stream = self._shuffled(stream, np.random.default_rng([self.seed, epoch, first, everyone]))
            for frames in stream:
                if passed:
                    passed -= 1
                else:
                    yield self._decoded(frames)

    def _windows_of(self, shard: _Shard, epoch: int) -> Iterator[_EncodedFrames]:
        """All windows of a shard, in order."""
        held: _EncodedFrames | None = None
        start = 0
        for chunk in shard.chunks():
            info = chunk.info
            if held is None or not info.first:
                start = self._phase(info, epoch)
                held = _EncodedFrames.of(shard.path, chunk)
            else:
                held = held.extended_by(chunk)
            while start + self.length <= held.first + len(held.images):
                yield held.part(start, start + self.length)
                start += self.stride
            held = held.part(min(start, held.first + len(held.images)), held.first + len(held.images))

    def _phase(self, info: ChunkInfo, epoch: int) -> int:
        """Index of the first frame of a take's first window."""
        choices = min(self.stride, info.total - self.length + 1)
        if not self.shuffle or choices < 1:
            return 0
        take = zlib.crc32(f"{info.id}\n{info.take}".encode())
        return int(np.random.default_rng([self.seed, epoch, take]).integers(choices))

    def _shuffled(
        self, windows: Iterator[_EncodedFrames], rng: np.random.Generator
    ) -> Iterator[_EncodedFrames]:
        """Yield windows at random from a buffer that is kept full."""
        held: list[_EncodedFrames] = []
        for frames in windows:
            held.append(frames)
            if len(held) == self.buffer:
                place = int(rng.integers(len(held)))
                held[place], held[-1] = held[-1], held[place]
                yield held.pop()
        yield from (held[i] for i in rng.permutation(len(held)))

    def _decoded(self, frames: _EncodedFrames) -> Window:
        try:
            images = np.stack([decode_picture(data) for data in frames.images])
            masks = np.stack([decode_picture(data) for data in frames.masks])
        except ValueError as error:
            raise damaged(frames.shard, str(error)) from None
        occluded = (masks & OCCLUDED) > 0
        samples = samples_until(self.length, frames.info.frame_rate)
        sound = np.zeros(samples, np.float32)
        stored = frames.arrays["sound"][:samples]
        sound[: len(stored)] = stored / np.float32(32767)
        window: Window = {
            "images": torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2))),
            "face": torch.from_numpy((masks & (FACE | OUTSIDE) == FACE) & ~occluded),
            "occluded": torch.from_numpy(occluded),
            "sound": torch.from_numpy(sound),
            "has_sound": frames.info.has_sound,
            "id": frames.info.id,
            "identity": frames.info.identity,
            "frame": frames.info.start + frames.first,
        }
        for name in ("landmarks", "depth", "confidence", "crop", "source_frame"):
            window[name] = torch.from_numpy(frames.arrays[name].copy())
        if "speech" in frames.arrays:
            window["speech"] = torch.from_numpy(frames.arrays["speech"].astype(np.float32))
        known = frames.arrays | frames.clip
        for name in (f"{TRUTH}{name}" for name in self.truth):
            if name not in known:
                there = sorted(key.removeprefix(TRUTH) for key in known if key.startswith(TRUTH))
                raise AvfaceError(
                    f"{frames.shard}: {frames.info.id} has no ground truth {name.removeprefix(TRUTH)}, only "
                    f"{', '.join(there) or 'none at all'}"
                )
            window[name] = torch.from_numpy(np.array(known[name]))
        return window


@dataclass(frozen=True)
class _Shard:
    path: Path
    size: int
    samples: int

    def chunks(self) -> Iterator[Chunk]:
        """Read its samples.

        Raises AvfaceError when it is missing or damaged.
        """
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise AvfaceError(
                f"{self.path}: cannot be read ({error.strerror}); run the preparation again to rebuild it"
            ) from None
        if size != self.size:
            raise damaged(self.path, f"{size} bytes, not {self.size}")
        found = 0
        for sample in read_samples(self.path):
            found += 1
            try:
                chunk = decode_sample(sample)
            except ValueError as error:
                raise damaged(self.path, str(error)) from None
            yield chunk
        if found != self.samples:
            raise damaged(self.path, f"{found} samples, not {self.samples}")


@dataclass(frozen=True, eq=False)
class _EncodedFrames:
    """Consecutive frames of a take, still encoded."""

    shard: Path
    info: ChunkInfo
    first: int
    """Index of the first frame in the take."""
    images: list[bytes]
    masks: list[bytes]
    arrays: Arrays
    clip: Arrays

    @classmethod
    def of(cls, shard: Path, chunk: Chunk) -> _EncodedFrames:
        return cls(shard, chunk.info, chunk.info.first, chunk.images, chunk.masks, chunk.arrays, chunk.clip)

    def extended_by(self, chunk: Chunk) -> _EncodedFrames:
        """These frames and those of the next chunk."""
        arrays = {name: np.concatenate([values, chunk.arrays[name]]) for name, values in self.arrays.items()}
        images, masks = self.images + chunk.images, self.masks + chunk.masks
        return _EncodedFrames(self.shard, self.info, self.first, images, masks, arrays, self.clip)

    def part(self, start: int, end: int) -> _EncodedFrames:
        """Frames start to end."""
        rows = slice(start - self.first, end - self.first)
        arrays = {name: self._rows(name, rows) for name in self.arrays}
        return _EncodedFrames(
            self.shard, self.info, start, self.images[rows], self.masks[rows], arrays, self.clip
        )

    def _rows(self, name: str, rows: slice) -> npt.NDArray[Any]:
        if name == "sound":
            before = samples_until(self.first, self.info.frame_rate)
            first, last = (
                samples_until(self.first + row, self.info.frame_rate) for row in (rows.start, rows.stop)
            )
            rows = slice(first - before, last - before)
        return self.arrays[name][rows]
