"""Checks before the work, and files that appear when all of them are complete."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from avface.errors import AvfaceError


def check_folder(folder: Path, names: Sequence[str] = ()) -> None:
    """Find out before the work whether files can be written into a folder, which may not exist yet.

    Raises:
        AvfaceError: if they can't.
    """
    try:
        there = next(place for place in (folder, *folder.parents) if place.exists())
        if not there.is_dir():
            raise AvfaceError(f"{there}: is a file, but the results need a folder; choose another")
        with tempfile.TemporaryDirectory(prefix=".avface-", dir=there):
            pass
        for name in names:
            if (folder / name).is_dir():
                raise AvfaceError(
                    f"{folder / name}: is a folder, but a file is to be written; choose another name"
                )
    except OSError as error:
        raise AvfaceError(f"{folder}: can't be written ({error.strerror}); choose another folder") from None


def check_file(path: Path) -> None:
    """Find out before the work whether a file can be written; its folder must be there."""
    if not path.parent.exists():
        raise AvfaceError(f"{path}: the folder {path.parent} doesn't exist; make it or choose another")
    check_folder(path.parent, [path.name])


def spare(video: Path, path: Path) -> None:
    """Refuse to write a result over the captured video."""
    if path.is_file() and video.is_file() and path.samefile(video):
        raise AvfaceError(
            f"{path}: is the captured video, which would be lost; choose another name or folder"
        )


@contextlib.contextmanager
def complete(folder: Path) -> Iterator[Path]:
    """Give an empty folder to write into.

    Its files move to `folder` when the block ends well; else nothing is left of them or of folders made here.
    """
    from avface.files import filling

    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with filling(folder / "capture.npz") as fresh:
            try:
                yield fresh
            except AvfaceError as error:  # the exporters name the files where they write them
                raise AvfaceError(str(error).replace(str(fresh), str(folder))) from None
    except BaseException as error:
        for place in missing:
            with contextlib.suppress(OSError):
                place.rmdir()
        if isinstance(error, OSError):
            raise AvfaceError(f"{folder}: can't be written ({error.strerror})") from None
        raise


def check_device(device: str) -> None:
    """Refuse a device that isn't there before the video is tracked."""
    if device != "cpu":
        import torch

        try:
            torch.zeros(1, device=device)
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise AvfaceError(f"device {device}: can't be used ({reason}); try cpu") from None
