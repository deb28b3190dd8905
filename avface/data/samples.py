"""The samples of a shard, chunks of up to CHUNK_FRAMES consecutive frames, and their encoding.

A take (`avface.data.crops.Take`) is divided into chunks, and a chunk is one WebDataset sample, `<key>-<chunk>`, with
these members:

* `json`: item, identity and place of the frames (`ChunkInfo`), and a CRC-32 of each other member;
* `NNN.jpg`: the crop of frame NNN of the chunk; `NNN.png`: its mask (`avface.data.crops`);
* `safetensors`: arrays with one row per frame (landmarks, depth, confidence, crop, source_frame, speech,
  truth.<name>), and sound (N,) int16;
* `clip.safetensors`: in a take's first chunk, ground truth of the whole clip, truth.<name>.

Why chunks: windows must start at any frame, so that storing windows would store each frame up to 16 times; a whole
clip as one sample would have to fit in memory. The chunks of a take are consecutive in one shard, so a reader that
keeps the last few frames yields every window, across chunks too, and nothing is stored twice.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt

from avface.arrays import U8
from avface.speech.spectrum import SAMPLE_RATE

Arrays = dict[str, npt.NDArray[Any]]
Sample = dict[str, Any]
"""`__key__` and the members' bytes by name, as WebDataset has it."""

CHUNK_FRAMES = 64
"""Maximum number of frames of a chunk, about 1 MB."""
TRUTH = "truth."
"""Prefix of the names of ground truth."""


@dataclass(frozen=True)
class ChunkInfo:
    """Item, identity and frames of a chunk."""

    id: str
    """Id of the item."""
    identity: str
    """Id of the person."""
    take: int
    """Index of the take in the item."""
    start: int
    """Index of the take's first frame in the item at the dataset's frame rate."""
    total: int
    """Number of frames of the take."""
    first: int
    """Index of the chunk's first frame in the take."""
    frames: int
    """Number of frames of the chunk."""
    frame_rate: float
    """Frames per second."""
    has_sound: bool
    """Whether the item has sound; otherwise the stored sound is silence."""
    texts: dict[str, Any] = field(default_factory=dict)
    """Ground truth of strings, in the take's first chunk."""


@dataclass(frozen=True, eq=False)
class Chunk:
    """A chunk as read: pictures still encoded, arrays as in the file."""

    info: ChunkInfo
    images: list[bytes]
    masks: list[bytes]
    arrays: Arrays
    clip: Arrays


def take_key(item: str, take: int) -> str:
    """The common prefix of the keys of a take's samples: short and without dots for any item id."""
    return sha256(f"{item}\n{take}".encode()).hexdigest()[:20]


def samples_until(frames: int, frame_rate: float) -> int:
    """Number of sound samples from a take's first frame to a frame."""
    return round(frames * SAMPLE_RATE / frame_rate)


def take_samples(
    info: ChunkInfo,
    pictures: Iterable[tuple[U8, U8]],
    arrays: Arrays,
    sound: npt.NDArray[np.int16],
    clip: Arrays,
    quality: int,
) -> Iterator[Sample]:
    """Divide a take into samples.

    info: of the take; first, frames and texts are set for each chunk (texts only in the first).
    pictures: crop (N, N, 3) and mask (N, N) of each of the T frames. arrays: (T, ...) each. sound: samples from
    the first frame's time on. clip: any shape. quality: of the JPEG crops, 1 to 100.
    """
    pending: list[tuple[U8, U8]] = []
    first = 0
    for picture in pictures:
        pending.append(picture)
        if len(pending) == CHUNK_FRAMES or first + len(pending) == info.total:
            end = first + len(pending)
            rows = {name: values[first:end] for name, values in arrays.items()}
            begin, stop = (samples_until(frame, info.frame_rate) for frame in (first, end))
            rows["sound"] = sound[begin:stop]
            values = asdict(info) | {"first": first, "frames": len(pending)}
            if first:
                values["texts"] = {}
            yield _sample(ChunkInfo(**values), pending, rows, clip if first == 0 else {}, quality)
            first, pending = end, []


def decode_sample(sample: Mapping[str, Any]) -> Chunk:
    """Read a sample's members.

    Raises ValueError when one is missing or damaged.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        described = json.loads(sample["json"])
        checks = described.pop("crc32")
        info = ChunkInfo(**{entry.name: described[entry.name] for entry in fields(ChunkInfo)})
        for name, check in checks.items():
            if zlib.crc32(sample[name]) != check:
                raise ValueError(f"member {sample['__key__']}.{name} has changed")
        return Chunk(
            info=info,
            images=[sample[f"{frame:03d}.jpg"] for frame in range(info.frames)],
            masks=[sample[f"{frame:03d}.png"] for frame in range(info.frames)],
            arrays=load(sample["safetensors"]),
            clip=load(sample["clip.safetensors"]) if "clip.safetensors" in sample else {},
        )
    except KeyError as error:
        raise ValueError(f"member {sample.get('__key__')}.{error.args[0]} is missing") from None
    except SafetensorError as error:
        raise ValueError(str(error)) from None


def decode_picture(data: bytes) -> U8:
    """Decode a crop -> (N, N, 3) RGB, or a mask -> (N, N).

    Raises ValueError when it is damaged.
    """
    import cv2

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise ValueError("a picture is damaged")
    return np.asarray(picture[..., ::-1] if picture.ndim == 3 else picture, np.uint8)


def _sample(
    info: ChunkInfo, pictures: list[tuple[U8, U8]], arrays: Arrays, clip: Arrays, quality: int
) -> Sample:
    import cv2
    from safetensors.numpy import save

    members: dict[str, bytes] = {}
    for frame, (image, mask) in enumerate(pictures):
        members[f"{frame:03d}.jpg"] = cv2.imencode(
            ".jpg", np.ascontiguousarray(image[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )[1].tobytes()
        members[f"{frame:03d}.png"] = cv2.imencode(".png", mask)[1].tobytes()
    members["safetensors"] = save(_savable(arrays))
    if clip:
        members["clip.safetensors"] = save(_savable(clip))
    described = asdict(info) | {"crc32": {name: zlib.crc32(data) for name, data in sorted(members.items())}}
    members["json"] = json.dumps(described, sort_keys=True).encode()
    return {"__key__": f"{take_key(info.id, info.take)}-{info.first // CHUNK_FRAMES:05d}", **members}


def _savable(arrays: Arrays) -> Arrays:
    """Contiguous and little-endian, as safetensors requires."""
    return {
        name: np.ascontiguousarray(values, values.dtype.newbyteorder("<")).reshape(values.shape)
        for name, values in arrays.items()
    }
