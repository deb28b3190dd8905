"""Occluders in a video file, with the ground truth about them."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from avface.arrays import U8
from avface.errors import AvfaceError
from avface.files import replacing
from avface.media import Clip, EncodingConfig, VideoWriter
from avface.synthetic.occlusion.compositing import occlude
from avface.synthetic.occlusion.occluders.sampling import OCCLUDER_KINDS, check_kinds
from avface.synthetic.occlusion.plan import OcclusionConfig, OcclusionEvent

if TYPE_CHECKING:
    from avface.tracking import FaceTrack

TRUTH_VERSION = 2


_VIDEO_NAMES = ("occluded.mp4", "clean.mp4", "mask.mp4")


@dataclass(frozen=True)
class OcclusionFiles:
    """The files that `occlude_video` has written. All three videos have the same size and times."""

    occluded: Path
    """The video with occluders."""
    clean: Path
    """The video without them, encoded with the same settings."""
    mask: Path
    """Lossless H.264 in grey: white is occluded; at or above `compositing.OCCLUDED` counts as occluded. No audio."""
    truth: Path
    """Numbers; see `occlude_video`."""
    frames: int
    """Number of frames."""
    face_visibility: float
    """Mean share of the face that is visible, over the frames with a face."""
    mouth_visibility: float
    """Mean share of the mouth."""


def occlusion_rng(seed: int) -> np.random.Generator:
    """The random generator of `occlude_video`."""
    return np.random.default_rng([seed, 0x0CC1])


def occlude_video(
    video: str | os.PathLike[str],
    out_dir: str | os.PathLike[str],
    seed: int = 0,
    kinds: Sequence[str] = OCCLUDER_KINDS,
    *,
    config: OcclusionConfig | None = None,
    events: Sequence[OcclusionEvent] | None = None,
    face_track: FaceTrack | None = None,
    on_frame: Callable[[str, int], None] = lambda stage, done: None,
) -> OcclusionFiles:
    """Hide part of the most prominent face in a video, real or synthetic, and write the ground truth.

    Args:
        video: the input file; it isn't changed.
        out_dir: folder for occluded.mp4, clean.mp4, mask.mp4 and truth.npz; made if missing, files in it are replaced.
        seed: the same seed gives the same pictures.
        kinds: kinds of occluder, from `OCCLUDER_KINDS`.
        config: frequency, duration and motion; its kinds and frame rate are replaced.
        events: the plan, in order and without overlap; random by default.
        face_track: the face in the video, if it is known; tracked by default.
        on_frame: called with "tracking" or "occluding" and the number of frames done.

    truth.npz holds, for T frames: `version`, `seed`, `source` (the video's name), `times (T,)` in seconds,
    `landmarks (T, 478, 2)` of the tracker on the clean video in pixels (nan without a face), `confidence (T,)`,
    `kind (T,)` ("" for nothing), `face_visibility (T,)` and `mouth_visibility (T,)` (visible
    shares, nan without a face), `landmark_occluded (T, 60)` uint8 (`np.unpackbits(..., axis=1)[:, :478]`),
    `rotation (T, 3)` and `shift (T, 3)` of the occluder (see `OccludedFrame`).

    Raises:
        AvfaceError: if a kind is unknown, the video can't be read or has no face, or the folder can't be written.
    """
    check_kinds(kinds)
    source, folder = Path(video), Path(out_dir)
    clip = Clip.open(source)
    config = replace(config or OcclusionConfig(), kinds=tuple(kinds), frame_rate=clip.info.frame_rate)
    if folder.is_dir() and source.resolve().parent == folder.resolve() and source.name in _VIDEO_NAMES:
        raise AvfaceError(f"{source}: would be overwritten; choose another folder than {folder}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AvfaceError(
            f"{folder}: can't be made ({error.strerror}); choose another folder to write to"
        ) from None
    if not os.access(folder, os.W_OK):
        raise AvfaceError(f"{folder}: can't be written to; choose another folder")
    from avface.tracking import track

    try:
        found = face_track or track(clip.frames(), on_frame=lambda done: on_frame("tracking", done))
    except AvfaceError as error:
        raise AvfaceError(f"{source}: {error}") from None
    rng = occlusion_rng(seed)
    rows: list[tuple[Any, ...]] = []
    packed: list[U8] = []
    occluded, clean, mask = (folder / name for name in _VIDEO_NAMES)
    times: list[float] = []

    def images() -> Iterator[U8]:
        for frame in clip.frames():
            times.append(frame.time)
            latest.append(frame.image)
            yield frame.image

    latest: list[U8] = []
    with (
        VideoWriter(occluded, sound_from=source) as occluded_writer,
        VideoWriter(clean, sound_from=source) as clean_writer,
        VideoWriter(mask, encoding=EncodingConfig(crf=0, preset="ultrafast")) as mask_writer,
    ):
        for done, frame in enumerate(occlude(images(), found.landmarks, rng, config, events), start=1):
            time = times[-1]
            clean_writer.write(latest.pop(), time)
            occluded_writer.write(frame.image, time)
            mask_writer.write(np.repeat(frame.mask[..., None], 3, 2), time)
            rows.append(
                (frame.kind, frame.face_visibility, frame.mouth_visibility, frame.rotation, frame.shift)
            )
            packed.append(np.packbits(frame.landmark_occluded))
            on_frame("occluding", done)
    kind, face_visibility, mouth_visibility, rotation, shift = (
        list(column) for column in zip(*rows, strict=True)
    )
    truth = folder / "truth.npz"
    _write_truth(
        truth,
        {
            "version": np.array(TRUTH_VERSION),
            "seed": np.array(seed),
            "source": np.array(source.name),
            "times": np.array(times),
            "confidence": np.asarray(found.confidence[: len(rows)]),
            "kind": np.array(kind),
            "face_visibility": np.array(face_visibility, np.float32),
            "mouth_visibility": np.array(mouth_visibility, np.float32),
            "landmark_occluded": np.array(packed),
            "rotation": np.array(rotation, np.float32),
            "shift": np.array(shift, np.float32),
        },
        found.landmarks,
        len(rows),
    )
    seen = np.isfinite(np.array(face_visibility))
    return OcclusionFiles(
        occluded,
        clean,
        mask,
        truth,
        len(rows),
        float(np.mean(np.array(face_visibility)[seen])) if seen.any() else float("nan"),
        float(np.mean(np.array(mouth_visibility)[seen])) if seen.any() else float("nan"),
    )


def _write_truth(
    path: Path, arrays: dict[str, npt.NDArray[Any]], landmarks: Any, frames: int, block: int = 512
) -> None:
    """Write an .npz; landmarks (frames, 478, 2) are copied block by block and never are in memory as a whole."""

    def entry(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
        return archive.open(f"{name}.npy", "w", force_zip64=True)

    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, values in arrays.items():
            with entry(archive, name) as file:
                np.lib.format.write_array(file, values, allow_pickle=False)
        with entry(archive, "landmarks") as file:
            header = {"descr": "<f4", "fortran_order": False, "shape": (frames, 478, 2)}
            np.lib.format.write_array_header_2_0(file, header)
            for start in range(0, frames, block):
                rows = np.asarray(landmarks[start : min(start + block, frames)], "<f4")
                file.write(np.ascontiguousarray(rows).tobytes())
