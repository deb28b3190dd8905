"""Temporary files: in the system's folder for them or, where that can't be used, in the folder of the results."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TypeVar

from avface.errors import AvfaceError

T = TypeVar("T")

_results_folder: ContextVar[Path | None] = ContextVar("results_folder", default=None)


def fall_back_to(folder: Path | None) -> None:
    """Use a folder for temporary files where the system's can't be used; None for none.

    Holds for the current thread (its `contextvars` context). The folder must exist and be writable.
    """
    _results_folder.set(folder)


def unusable(error: OSError) -> AvfaceError:
    """The error of temporary files that can't be made or written."""
    cure = "set TMPDIR to a folder on a disk with some space"
    try:
        place = tempfile.gettempdir()
    except OSError:
        return AvfaceError(f"no folder for temporary files can be used; {cure}")
    return AvfaceError(
        f"{place}: can't hold temporary files ({error.strerror or error}); {cure}, or make some there"
    )


def temporary_file(*, elsewhere: bool = False) -> io.FileIO:
    """A file without a name, unbuffered, open for reading and writing; it is gone when it is closed, or with the
    process however it ends.

    elsewhere: not in the system's folder for temporary files, because that is full.

    Raises:
        AvfaceError: if there is no folder to make it in.
    """

    def make(folder: str) -> io.FileIO:
        file = tempfile.TemporaryFile(prefix="avface-", dir=folder, buffering=0)  # noqa: SIM115 - the caller closes it
        assert isinstance(file, io.FileIO)
        return file

    return _first_that_works(make, elsewhere)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """An empty folder that is removed with all that is in it when the block ends.

    Raises:
        AvfaceError: if there is no folder to make it in.
    """
    folder = _first_that_works(
        lambda folder: tempfile.TemporaryDirectory(prefix="avface-", dir=folder, ignore_cleanup_errors=True)
    )
    with folder as path:
        yield Path(path)


def lasting_temporary_folder() -> Path:
    """An empty folder that stays until the system or the user removes it.

    Raises:
        AvfaceError: if there is no folder to make it in.
    """
    return Path(_first_that_works(lambda folder: tempfile.mkdtemp(prefix="avface-", dir=folder)))


def _first_that_works(make: Callable[[str], T], elsewhere: bool = False) -> T:
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    try:
        if not elsewhere:
            return make(tempfile.gettempdir())
    except OSError as problem:
        error = problem
    other = _results_folder.get()
    try:
        if other is not None:
            return make(str(other))
    except OSError as problem:
        error = problem
    raise unusable(error) from None
