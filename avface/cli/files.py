"""Checks of output paths before the work, and a folder whose files are written all or none."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from avface.errors import AvfaceError


def check_folder(folder: Path, names: Sequence[str] = ()) -> None:
    """Check that files of these names can be written into a folder, which need not exist yet.

    Raises:
        AvfaceError: if they can't.
    """
    try:
        existing = next(place for place in (folder, *folder.parents) if place.exists())
        if not existing.is_dir():
            raise AvfaceError(f"{existing}: is a file, but the results need a folder; choose another")
        with tempfile.TemporaryDirectory(prefix=".avface-", dir=existing):
            pass
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


@contextlib.contextmanager
def atomic_results(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder, whose files move to `folder` when the block ends without an exception.

    After an exception neither the files nor folders created here remain.

    Raises:
        AvfaceError: if `folder` can't be written.
    """
    from avface.files import filling

    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filling(folder / "capture.npz") as fresh:
            try:
                yield fresh
            except AvfaceError as error:  # exporters name the temporary paths
                raise AvfaceError(str(error).replace(str(fresh), str(folder))) from None
    except BaseException as error:
        for place in missing:
            with contextlib.suppress(OSError):
                place.rmdir()
        if isinstance(error, OSError):
            raise AvfaceError(f"{folder}: can't be written ({error.strerror})") from None
        raise
