"""Files and folders that appear whole or not at all: written under a temporary name beside their own, then renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from avface.errors import AvfaceError

if TYPE_CHECKING:
    from torch import Tensor

LONGEST_NAME = 255
"""Bytes of a file's name on common file systems."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""System errors of a full disk."""


def write_error(path: Path, error: OSError) -> AvfaceError:
    """The error about a file or folder that can't be written."""
    if not path.parent.is_dir():
        return AvfaceError(
            f"{path}: can't be written, the folder {path.parent} doesn't exist; make it or choose another"
        )
    cure = (
        "free some space or choose another folder" if error.errno in FULL else "choose another folder or name"
    )
    return AvfaceError(f"{path}: can't be written ({error.strerror or error}); {cure}")


def _beside(path: Path, suffix: str = "") -> Path:
    """A new path beside `path` whose name begins with a dot and as much of its name as the system leaves room for.

    Raises:
        AvfaceError: if no file can have the name.
    """
    if "\0" in str(path):
        raise AvfaceError(f"{str(path)!r}: no file can have this name")
    kept = os.fsencode(path.name)[: LONGEST_NAME - len(os.fsencode(suffix)) - 10]
    name = os.fsdecode(kept) if len(kept) < len(os.fsencode(path.name)) else path.name
    return path.with_name(f".{name}.{secrets.token_hex(4)}{suffix}")


@contextmanager
def replacing(path: Path, unwritable: Callable[[Path, OSError], AvfaceError] = write_error) -> Iterator[Path]:
    """A temporary path in the folder of `path`, with its suffix, for the block to write to.

    The file is renamed to `path` if the block succeeds, else removed. Its name begins with a dot and the name of
    `path`.

    Raises:
        AvfaceError: if the folder is missing or the file can't be written, from `unwritable`.
    """
    temporary = _beside(path, path.suffix)
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """An empty temporary folder beside the folder `path`, for the block to write files to.

    It is renamed to `path`, replacing a folder of that name, if the block succeeds, else removed. Its name begins with
    a dot and the name of `path`. Parent folders are created.

    Raises:
        AvfaceError: if a file can't be written.
    """
    temporary = _beside(path)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        shutil.rmtree(path, ignore_errors=True)
        temporary.replace(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def filling(path: Path) -> Iterator[Path]:
    """An empty temporary folder in the folder of `path`, for the block to write files to.

    They are moved into the folder of `path`, replacing files of the same names, if the block succeeds, else removed.

    Raises:
        AvfaceError: if the folder is missing or a file can't be written.
    """
    temporary = _beside(path)
    try:
        temporary.mkdir()
        yield temporary
        for written in sorted(temporary.iterdir()):
            written.replace(path.parent / written.name)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors as safetensors.

    Raises:
        AvfaceError: if the file can't be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    with replacing(path) as temporary:
        mode = temporary.stat().st_mode
        try:
            # clones: tensors of one state may share memory, which safetensors refuses
            save_file(
                {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
                temporary,
                dict(metadata),
            )
        except SafetensorError as error:
            raise OSError(str(error)) from None
        temporary.chmod(mode)  # safetensors renames as well, a file that only its owner may read
