"""Training data in memory: tracked takes of synthetic clips, and performances for simulated landmarks.

Both are concatenated frames, without images: 400 clips of four seconds take 0.3 GB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from avface.data.crops import OCCLUDED
from avface.data.items import Split
from avface.data.samples import TRUTH, Chunk, decode_picture, decode_sample
from avface.data.shards import damaged, read_index, read_samples
from avface.errors import AvfaceError
from avface.files import write_tensors
from avface.geometry.rotations import rotvec_to_rotmat

FRAME_TRUTH = ("expression", "joints", "rotation", "translation", "landmarks")
CLIP_TRUTH = ("shape", "focal_length", "principal_point")


@dataclass(frozen=True, eq=False)
class TrackedTakes:
    """C takes of N frames in all, tracked in rendered images, with the ground truth.

    Shapes: first and count (C,) int: a take's first row, and how many; tracked (N, 478, 2) pixels of the video, with
            confidence (N,), 0 where no face was found; visible (N, 478) bool, False behind an occluder; box (N, 3)
            crops as in `FaceCrop`; speech (N, 16, D) float16; expression (N, E), joints (N, J, 3), rotation
            (N, 3, 3), translation (N, 3), shape (C, S), focal (C,), centre (C, 2).
    """

    first: Tensor
    count: Tensor
    tracked: Tensor
    confidence: Tensor
    visible: Tensor
    box: Tensor
    speech: Tensor
    expression: Tensor
    joints: Tensor
    rotation: Tensor
    translation: Tensor
    shape: Tensor
    focal: Tensor
    centre: Tensor
    frame_rate: float
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of takes."""
        return len(self.first)


def read_tracked_takes(
    folder: str | Path,
    split: Split,
    *,
    shortest: int = 16,
    rank: int = 0,
    world_size: int = 1,
    on_take: Callable[[], None] = lambda: None,
) -> TrackedTakes:
    """Read the takes of a split with `shortest` frames or more; each process reads every world_size-th shard.

    Raises:
        AvfaceError: if the folder holds no dataset, the split is empty, a shard is damaged, or clips have no truth
            about the head or no speech features.
    """
    folder = Path(folder)
    index = read_index(folder)
    entries = index["shards"][split]
    if not entries:
        raise AvfaceError(
            f"{folder}: its {split} split is empty; prepare it with a larger share, or with more identities"
        )
    mine = entries[rank::world_size] or entries  # fewer shards than processes: everyone reads all
    size = float(index["config"]["size"])
    rows: list[dict[str, npt.NDArray[Any]]] = []
    clips: list[dict[str, npt.NDArray[Any]]] = []
    names: list[str] = []
    rate = float(index["config"]["frame_rate"])
    for entry in mine:
        for take in _takes(folder / entry["shard"]):
            if take[0].info.total < shortest:
                continue
            frames, clip = _rows(folder / entry["shard"], take, size)
            rows.append(frames)
            clips.append(clip)
            names.append(take[0].info.id)
            on_take()
    if not rows:
        raise AvfaceError(f"{folder}: no take of its {split} split has {shortest} frames")
    count = torch.tensor([len(frames["confidence"]) for frames in rows])

    def joined(name: str) -> Tensor:
        return torch.from_numpy(np.concatenate([frames[name] for frames in rows]))

    def stacked(name: str) -> Tensor:
        return torch.from_numpy(np.stack([clip[name] for clip in clips]).astype(np.float32))

    return TrackedTakes(
        first=count.cumsum(0) - count,
        count=count,
        **{
            name: joined(name)
            for name in ("tracked", "confidence", "visible", "box", "speech", "expression", "joints")
        },
        rotation=rotvec_to_rotmat(joined("rotation").double()).float(),
        translation=joined("translation"),
        shape=stacked("shape"),
        focal=stacked("focal_length"),
        centre=stacked("principal_point"),
        frame_rate=rate,
        names=tuple(names),
    )


def _takes(shard: Path) -> Iterator[list[Chunk]]:
    """The chunks of each take of a shard."""
    held: list[Chunk] = []
    for sample in read_samples(shard):
        try:
            chunk = decode_sample(sample)
        except ValueError as error:
            raise damaged(shard, str(error)) from None
        if held and not chunk.info.first:
            yield held
            held = []
        held.append(chunk)
    if held:
        yield held


def _rows(
    shard: Path, take: list[Chunk], size: float
) -> tuple[dict[str, npt.NDArray[Any]], dict[str, npt.NDArray[Any]]]:
    """A take's arrays by frame and by clip."""

    def joined(name: str) -> npt.NDArray[Any]:
        if any(name not in chunk.arrays for chunk in take):
            what = "speech features" if name == "speech" else f"truth about {name.removeprefix(TRUTH)}"
            raise AvfaceError(
                f"{shard}: {take[0].info.id} has no {what}; this recipe needs clips of `avface synthesize`, "
                "prepared with speech features"
            )
        return np.concatenate([chunk.arrays[name] for chunk in take])

    missing = [name for name in CLIP_TRUTH if f"{TRUTH}{name}" not in take[0].clip]
    if missing:
        raise AvfaceError(
            f"{shard}: {take[0].info.id} has no truth about {missing[0]}; this recipe needs clips of "
            "`avface synthesize`"
        )
    frames: dict[str, npt.NDArray[Any]] = {
        name: joined(f"{TRUTH}{name}").astype(np.float32) for name in FRAME_TRUTH
    }
    box = joined("crop").astype(np.float32)
    scale = box[:, None, 2:] / np.float32(size)
    corner = box[:, None, :2] - box[:, None, 2:] / 2
    true = ((frames.pop("landmarks") - corner) / scale - 0.5).round().astype(int).clip(0, int(size) - 1)
    masks = [mask for chunk in take for mask in chunk.masks]
    visible = np.ones(true.shape[:2], bool)
    for frame, data in enumerate(masks):
        try:
            mask = decode_picture(data)
        except ValueError as error:
            raise damaged(shard, str(error)) from None
        visible[frame] = (mask[true[frame, :, 1], true[frame, :, 0]] & OCCLUDED) == 0
    frames |= {
        "tracked": (joined("landmarks") + np.float32(0.5)) * scale + corner,
        "confidence": joined("confidence").astype(np.float32),
        "visible": visible,
        "box": box,
        "speech": joined("speech").astype(np.float16),
    }
    return frames, {name: take[0].clip[f"{TRUTH}{name}"] for name in CLIP_TRUTH}


@dataclass(frozen=True, eq=False)
class Performances:
    """C performances of N frames in all: motion and speech without a person's shape.

    Shapes: first and count (C,) int; expression (N, E), joints (N, J, 3), turn and shift (N, 3) as in
            `avface.synthetic.performance.performance.Performance`; speech (N, 16, D) float16.
    """

    first: Tensor
    count: Tensor
    expression: Tensor
    joints: Tensor
    turn: Tensor
    shift: Tensor
    speech: Tensor
    frame_rate: float

    def __len__(self) -> int:
        """Number of performances."""
        return len(self.first)

    def save(self, path: Path, metadata: dict[str, str]) -> None:
        """Write them as safetensors; the file appears whole.

        Raises:
            AvfaceError: if it can't be written.
        """
        tensors = {
            field.name: getattr(self, field.name) for field in fields(self) if field.name != "frame_rate"
        }
        write_tensors(path, tensors, {**metadata, "frame_rate": repr(self.frame_rate)})

    @classmethod
    def load(cls, path: Path, metadata: dict[str, str]) -> Performances | None:
        """Read them again; None if there is no such file, or its metadata differ.

        Raises:
            AvfaceError: if the file is damaged.
        """
        from safetensors import SafetensorError, safe_open

        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                found = file.metadata() or {}
                if any(found.get(name) != value for name, value in metadata.items()):
                    return None
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
            return cls(frame_rate=float(found["frame_rate"]), **tensors)
        except (SafetensorError, OSError, TypeError, KeyError, ValueError) as error:
            raise AvfaceError(f"{path}: damaged ({error}); delete it to make it again") from None
