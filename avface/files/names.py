"""Names of files within text: they may hold bytes that aren't UTF-8, which no text file can."""

from __future__ import annotations

import os


def readable(name: str) -> str:
    """A file's name as text that can be encoded.

    Python holds bytes of a name that it can't decode as lone surrogates: all bytes of other scripts where the system's
    encoding is ASCII, otherwise those that aren't UTF-8. The first are decoded here, the others replaced by U+FFFD.
    """
    try:
        raw = name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # surrogates of Windows, which stand for no bytes
        raw = name.encode("utf-8", "replace")
    return raw.decode("utf-8", "replace")


def on_disk(text: str) -> str:
    """The name by which a file is opened whose name in UTF-8 is `text`, whatever the system's encoding."""
    return text if os.name == "nt" else os.fsdecode(text.encode("utf-8"))
