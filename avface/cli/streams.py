"""Standard streams that are closed, full, or read by a program that has ended: as Unix tools treat them."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from avface.errors import AvfaceError

BROKEN_PIPE = 141
"""Exit code when the reader of standard output has ended, as `head` does: 128 + SIGPIPE as in shells."""


class ReaderEnded(Exception):
    """The reader of standard output has ended and wants nothing more."""


def open_standard_streams() -> None:
    """Put /dev/null where a standard stream is closed, so that no other file gets its descriptor and what is written
    to the stream. Writing to a closed standard output remains an error."""
    for number, mode in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            with contextlib.suppress(OSError):
                os.open(os.devnull, mode)  # gets the lowest free descriptor, which is this one
    if sys.stdout is None:
        sys.stdout = _text_stream(1)
    if sys.stderr is None:
        sys.stderr = _text_stream(2)


def _text_stream(descriptor: int) -> TextIO:
    try:
        return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    except OSError:  # a windowed program, without descriptors
        return open(os.devnull, "w", encoding="utf-8")


def complain(text: str) -> None:
    """Write one line to stderr; a stream that takes nothing doesn't end the run."""
    with contextlib.suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def written_out() -> Iterator[None]:
    """Write what the block prints to standard output at its end.

    Raises:
        AvfaceError: if standard output can't be written.
        ReaderEnded: if its reader has ended.
    """
    try:
        yield
        sys.stdout.flush()
    except OSError as error:
        # what is left in the buffer would be written again, and fail again, when Python ends
        with contextlib.suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        if isinstance(error, BrokenPipeError):
            raise ReaderEnded from None
        raise AvfaceError(
            f"standard output: can't be written ({error.strerror or error}); direct it elsewhere"
        ) from None
