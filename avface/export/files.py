"""Files that appear whole or not at all."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from avface.errors import AvfaceError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path in the folder of `path`, with its suffix; the block writes there.

    The file takes the name `path` when the block ends well, and is removed when it doesn't.

    Raises:
        AvfaceError: if the folder is missing or the file can't be written.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        with suppress(OSError):
            temporary.unlink()


@contextmanager
def filling(path: Path) -> Iterator[Path]:
    """Give an empty temporary folder in the folder of `path`; the block writes any number of files there.

    They move up into the folder of `path`, over files of the same names, when the block ends well, and are
    removed when it doesn't.

    Raises:
        AvfaceError: if the folder is missing or a file can't be written.
    """
    temporary = path.with_name(f".{path.stem}.{secrets.token_hex(4)}")
    try:
        temporary.mkdir()
        yield temporary
        for written in sorted(temporary.iterdir()):
            written.replace(path.parent / written.name)
    except OSError as error:
        raise _unwritable(path, error) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _unwritable(path: Path, error: OSError) -> AvfaceError:
    if not path.parent.is_dir():
        return AvfaceError(f"{path}: the folder {path.parent} doesn't exist; make it or choose another")
    return AvfaceError(f"{path}: can't be written ({error.strerror}); choose another folder or name")
