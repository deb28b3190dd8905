"""Frames, sound and ground truth of an item of any layout."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from avface.arrays import F32, U8
from avface.data.items import Item
from avface.data.multiface import Pictures, read_cameras, read_truth
from avface.errors import AvfaceError
from avface.media import Clip, Frame
from avface.speech.spectrum import SAMPLE_RATE

CLIP_WIDE = frozenset(
    [
        *("shape", "albedo", "relief", "light_harmonics", "light_directions", "light_colours"),
        *("image_size", "principal_point", "intrinsics", "distortion"),
        *("phoneme_symbols", "phoneme_starts", "expression_names", "joint_names"),
    ]
)
"""Ground truth of a clip as a whole, even if the length of its first axis equals the number of frames."""

PACKED_OCCLUSION = "occlusion"
"""Ground truth (T, H, ceil(W / 8)) uint8: packed bits (`numpy.packbits`) of the occlusion mask."""


@dataclass(frozen=True, eq=False)
class Truth:
    """Ground truth of a recording of T frames."""

    frames: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Arrays (T, ...) with one row per frame."""
    clip: dict[str, npt.NDArray[Any]] = field(default_factory=dict)
    """Arrays of any shape for the whole clip."""
    texts: dict[str, Any] = field(default_factory=dict)
    """Strings, and lists of strings, for the whole clip."""
    occlusion: U8 | None = None
    """(T, H, ceil(W / 8)); see PACKED_OCCLUSION."""

    def occluded(self, frame: int, width: int) -> U8 | None:
        """(H, W) uint8, 1 where something hides the face in a frame; None when nothing is known of that."""
        if self.occlusion is None:
            return None
        return np.unpackbits(self.occlusion[frame], axis=-1)[:, :width]


class Recording:
    """Frames, sound and ground truth of an item, read on demand."""

    def __init__(self, item: Item):
        """Open an item.

        Raises AvfaceError when its video can't be opened.
        """
        self._item = item
        self._clip = None if item.layout == "multiface" else Clip.open(item.video)
        self._pictures = Pictures(item.video)

    def frames(self) -> Iterator[Frame]:
        """Decode from the start, with true times in seconds.

        Raises AvfaceError at the end of a damaged video.
        """
        if self._clip is None:
            yield from self._pictures.frames()
            return
        yield from self._clip.frames()
        damage = self._clip.damage
        if damage is not None and damage.message is not None:
            raise AvfaceError(damage.message)

    def sound(self) -> F32 | None:
        """(N,) mono at SAMPLE_RATE, sample 0 at time 0.0; None without sound.

        Raises AvfaceError when it can't be read.
        """
        if self._item.sound is not None:
            from avface.media.container import first_frame_time
            from avface.media.sound import aligned_sound

            start = first_frame_time(self._item.sound)
            blocks = list(aligned_sound(self._item.sound, 0, start, SAMPLE_RATE, "mono"))
            return np.concatenate(blocks, axis=1)[0] if blocks else None
        return None if self._clip is None else self._clip.audio(SAMPLE_RATE)

    def truth(self, frames: int) -> Truth:
        """Ground truth for `frames` source frames; empty if there is none.

        Raises AvfaceError when its file is damaged or belongs to another number of frames.
        """
        item = self._item
        if item.truth is None:
            return Truth()
        if item.layout == "multiface":
            krt = item.video.parents[2] / "KRT"
            camera = read_cameras(krt).get(item.video.name)
            if camera is None:
                raise AvfaceError(f"{krt}: has no camera {item.video.name}")
            return _sorted_truth(read_truth(item.truth, camera, self._pictures.numbers), frames)
        truth = _sorted_truth(_arrays(item.truth), frames)
        if "times" in truth.clip:
            raise AvfaceError(
                f"{item.truth}: has {len(truth.clip['times'])} frames, but the video has {frames}; make it again"
            )
        return truth


def _arrays(path: Path) -> dict[str, npt.NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in sorted(archive.files)}
    except Exception as error:  # zipfile and zlib raise various errors for damaged archives
        raise AvfaceError(f"{path}: not a readable file of arrays ({error}); make it again") from None


def _sorted_truth(arrays: dict[str, npt.NDArray[Any]], frames: int) -> Truth:
    truth = Truth()
    occlusion = arrays.pop(PACKED_OCCLUSION, None)
    for name, values in arrays.items():
        if values.dtype.kind in "US":
            truth.texts[name] = values.tolist()
        elif values.dtype.kind not in "biuf":
            continue
        elif values.ndim and len(values) == frames and name not in CLIP_WIDE:
            truth.frames[name] = values
        else:
            truth.clip[name] = values
    if occlusion is None or len(occlusion) != frames:  # clips without an occluder have none
        return truth
    return Truth(truth.frames, truth.clip, truth.texts, occlusion.astype(np.uint8, copy=False))
