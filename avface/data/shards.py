"""Shards: deterministic tar files in WebDataset's layout."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from avface.data.samples import Sample
from avface.errors import AvfaceError
from avface.files import FULL, replacing

VERSION = 1
"""Version of the dataset's layout."""
INDEX = "index.json"
"""The index of a finished dataset, written last."""


class StorageError(AvfaceError):
    """Raised when a file of the dataset can't be written."""


def write_samples(path: Path, samples: Iterable[Sample]) -> None:
    """Write samples to a tar file, atomically.

    In the samples' order, with members sorted by name; owner, mode and time are constant.
    """
    from webdataset.writer import TarWriter

    with replacing(path, unwritable) as temporary, temporary.open("wb") as file:
        with TarWriter(file, user="", group="", mode=0o644, mtime=0, encoder=False) as writer:
            for sample in samples:
                writer.write(sample)
        file.flush()
        os.fsync(file.fileno())


def read_samples(path: Path) -> Iterator[Sample]:
    """Read the samples of a tar file, in order, as bytes.

    Raises AvfaceError, naming the file, when it is missing or damaged. A file truncated between two members isn't
    detected: compare its size.
    """
    from webdataset.tariterators import group_by_keys, tar_file_expander

    try:
        # opened here, because webdataset interprets some names as URLs or commands
        with path.open("rb") as stream:
            yield from group_by_keys(tar_file_expander([{"url": str(path), "stream": stream}]))
    except FileNotFoundError:
        raise AvfaceError(f"{path}: no such file; run the preparation again to make it") from None
    except AvfaceError:
        raise
    except Exception as error:  # tarfile raises various errors for damaged archives
        raise damaged(path, str(error.args[0] if error.args else error)) from None


def damaged(path: Path, reason: str) -> AvfaceError:
    """The error about a shard that can't be read."""
    return AvfaceError(f"{path}: damaged ({reason}); delete it and run the preparation again to rebuild it")


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def read_index(folder: Path) -> dict[str, Any]:
    """Read a dataset's index.

    Raises AvfaceError when the folder holds no finished dataset, or one of another version.
    """
    path = folder / INDEX
    if not path.is_file():
        raise AvfaceError(f"{folder}: holds no {INDEX}; prepare a dataset there, or complete its preparation")
    index = read_json(path)
    if not isinstance(index, dict) or index.get("version") != VERSION or "shards" not in index:
        raise AvfaceError(f"{path}: not the index of a dataset of version {VERSION}; prepare it again")
    return index


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON, atomically and deterministically."""
    with replacing(path, unwritable) as temporary:
        # in ASCII, with escapes for names that aren't UTF-8
        temporary.write_text(json.dumps(value, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises AvfaceError when it is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise AvfaceError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise AvfaceError(
            f"{path}: not readable as JSON ({error}); delete it and run the preparation again"
        ) from None


def unwritable(path: Path, error: OSError) -> StorageError:
    """The error about a file or folder that can't be written."""
    remedy = "free some space" if error.errno in FULL else "choose another folder"
    return StorageError(
        f"{path}: can't be written ({error.strerror}); {remedy} and run the preparation again, finished items are kept"
    )


def is_storage_error(error: Exception) -> bool:
    """Whether an error comes from the storage, so that the next item would fail as well."""
    cause = error.__cause__
    return isinstance(error, StorageError) or (isinstance(cause, OSError) and cause.errno in FULL)
