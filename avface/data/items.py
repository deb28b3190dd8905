"""Items of a corpus, found by its layout on disk, and their splits."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal, get_args

from avface.errors import AvfaceError
from avface.media import VIDEO_SUFFIXES

Layout = Literal["auto", "voxceleb2", "multiface", "synthetic", "videos"]
"""Layout of a corpus on disk; "auto" is the first of the others, in this order, that matches."""
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
"""All splits, in the order of preparation."""


@dataclass(frozen=True)
class Item:
    """One recording of one person."""

    id: str
    """Its path relative to the corpus's folder; unique in the corpus."""
    identity: str
    """Id of the person; no person is in two splits."""
    layout: Layout
    """Layout of the corpus."""
    video: Path
    """Video file; in Multiface the folder of one camera's pictures."""
    sound: Path | None = None
    """File with the sound, if it is separate from the video."""
    truth: Path | None = None
    """Ground truth: truth.npz, in Multiface the folder of tracked meshes."""
    official: Literal["dev", "test"] | None = None
    """Official part of the corpus."""


def find_items(folder: str | Path, layout: Layout = "auto") -> list[Item]:
    """List the items of a corpus, sorted by id. No file is opened.

    * voxceleb2: `{dev,test}/mp4/<identity>/<video>/<utterance>.mp4`, sound in `{dev,test}/aac/...m4a` if present.
    * multiface: `m--<date>--<time>--<identity>--GHS/images/<expression>/<camera>/<frame>.png` and its further files,
      see `avface.data.multiface`. The folder may be the corpus or one person's.
    * synthetic: `<clip>/clip.mp4` with `<clip>/truth.npz`, written by `avface synthesize`.
    * videos: all videos in a folder and its subfolders; the identity is the top-level folder, or else the file.

    Files and folders whose names start with a dot are ignored.
    Raises AvfaceError when the folder is missing or unreadable or holds nothing in that layout, ValueError for an
    unknown layout.
    """
    folder = Path(folder)
    if layout not in get_args(Layout):
        raise ValueError(f"layout={layout!r} must be one of {', '.join(get_args(Layout))}")
    if not folder.is_dir():
        raise AvfaceError(f"{folder}: no such folder; give the folder of a corpus or of videos")
    try:
        for name, find in _FINDERS.items():
            if layout in (name, "auto") and (items := sorted(find(folder), key=lambda item: item.id)):
                return items
    except OSError as error:
        raise AvfaceError(f"{error.filename or folder}: cannot be listed ({error.strerror})") from None
    wanted = "no videos in it" if layout in ("auto", "videos") else f"nothing in the layout of {layout}"
    raise AvfaceError(f"{folder}: {wanted}; give the folder of a corpus or of videos")


def split_of(item: Item, validation: float, test: float) -> Split:
    """The split of an item, by a hash of its identity: independent of the other items.

    validation, test: shares of the identities. The official test part of a corpus, if there is one, is its test split.
    """
    if item.official == "test":
        return "test"
    place = int.from_bytes(sha256(item.identity.encode()).digest()[:8], "big") / 2**64
    if item.official is None and place < test:
        return "test"
    # from the other end, so that a change of one share doesn't affect the other split
    return "validation" if place >= 1 - validation else "train"


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, in any order."""

    def refuse(error: OSError) -> None:
        raise error

    for place, folders, names in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in names if not name.startswith("."))


def _folders(folder: Path) -> list[Path]:
    """The subfolders of a folder; none if it doesn't exist."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _voxceleb2(folder: Path) -> Iterator[Item]:
    parts: tuple[Literal["dev", "test"], ...] = ("dev", "test")
    for part in parts:
        videos = folder / part / "mp4"
        if not videos.is_dir():
            continue
        for video in _files(videos):
            name = video.relative_to(videos).with_suffix("")
            if video.suffix != ".mp4" or len(name.parts) != 3:
                continue
            sound = (folder / part / "aac" / name).with_name(f"{name.name}.m4a")
            yield Item(
                id=f"{part}/{name.as_posix()}",
                identity=name.parts[0],
                layout="voxceleb2",
                video=video,
                sound=sound if sound.is_file() else None,
                official=part,
            )


def _multiface(folder: Path) -> Iterator[Item]:
    people = [folder] if _is_multiface_person(folder) else _folders(folder)
    for person in filter(_is_multiface_person, people):
        for expression in _folders(person / "images"):
            sound = person / "audio" / f"{expression.name}.wav"
            meshes = person / "tracked_mesh" / expression.name
            for camera in _folders(expression):
                yield Item(
                    id=f"{person.name}/{expression.name}/{camera.name}",
                    identity=person.name.split("--")[3],
                    layout="multiface",
                    video=camera,
                    sound=sound if sound.is_file() else None,
                    truth=meshes if meshes.is_dir() else None,
                )


def _is_multiface_person(folder: Path) -> bool:
    name = folder.resolve().name
    return name.startswith("m--") and len(name.split("--")) == 5 and (folder / "images").is_dir()


def _synthetic(folder: Path) -> Iterator[Item]:
    for clip in _folders(folder):
        video, truth = clip / "clip.mp4", clip / "truth.npz"
        if video.is_file() and truth.is_file():
            yield Item(id=clip.name, identity=clip.name, layout="synthetic", video=video, truth=truth)


def _videos(folder: Path) -> Iterator[Item]:
    for video in _files(folder):
        name = video.relative_to(folder)
        if video.suffix.lower() in VIDEO_SUFFIXES:
            identity = name.parts[0] if len(name.parts) > 1 else name.stem
            yield Item(id=name.as_posix(), identity=identity, layout="videos", video=video)


_FINDERS = {"voxceleb2": _voxceleb2, "multiface": _multiface, "synthetic": _synthetic, "videos": _videos}
