"""Checks of output paths before the work."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from avface.errors import AvfaceError
from avface.files.temporary import fall_back_to

RESULTS = {
    ".glb": "an animated head (glTF), which Blender and browsers show",
    ".gltf": "a scene (glTF), which Blender and browsers show",
    ".usdc": "an animated head (USD), which Blender and usdview show",
    ".usda": "an animated head (USD), which Blender and usdview show",
    ".csv": "a table of curves, which Live Link Face's importers and spreadsheets read",
    ".ply": "a mesh",
    ".obj": "a mesh",
    ".html": "a page, which a browser shows",
}
"""What files of these suffixes are that avface writes."""


def refuse_results(path: Path) -> None:
    """Refuse a file that avface writes but can't read, where a capture or a video is needed.

    Raises:
        AvfaceError: if it is one.
    """
    kind = RESULTS.get(path.suffix.lower())
    if kind is not None and path.is_file():
        raise AvfaceError(
            f"{path}: is {kind}, not a capture or a video; give the capture.npz that it was made from"
        )


def check_folder(folder: Path, names: Sequence[str] = ()) -> None:
    """Check that files of these names can be written into a folder, which need not exist yet; temporary files go
    there, too, where the system's folder for them can't be used.

    Raises:
        AvfaceError: if they can't.
    """
    try:
        existing = next(place for place in (folder, *folder.parents) if place.exists() or place.is_symlink())
        if not existing.exists():
            raise AvfaceError(
                f"{existing}: is a link to {existing.readlink()}, which doesn't exist; make it or choose another folder"
            )
        if not existing.is_dir():
            raise AvfaceError(f"{existing}: is a file, but the results need a folder; choose another")
        with tempfile.TemporaryDirectory(prefix=".avface-", dir=existing):
            pass
        fall_back_to(existing)
        for name in names:
            if (folder / name).is_dir():
                raise AvfaceError(
                    f"{folder / name}: is a folder, but a file is to be written; choose another name"
                )
    except OSError as error:
        raise AvfaceError(f"{folder}: can't be written ({error.strerror}); choose another folder") from None


def check_file(path: Path) -> None:
    """Check that a file can be written; its folder must exist.

    Raises:
        AvfaceError: if it can't.
    """
    if not path.parent.exists():
        raise AvfaceError(f"{path}: the folder {path.parent} doesn't exist; make it or choose another")
    check_folder(path.parent, [path.name])


def refuse_overwriting(video: Path, path: Path) -> None:
    """Refuse a result whose path is that of the captured video.

    Raises:
        AvfaceError: if it is.
    """
    if path.is_file() and video.is_file() and path.samefile(video):
        raise AvfaceError(
            f"{path}: is the captured video, which would be lost; choose another name or folder"
        )
