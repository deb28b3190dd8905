"""`python -m avface`, and the script `avface`: the command line."""

from __future__ import annotations

import os
import signal
import sys

INTERRUPTED = 130
"""Exit code of Ctrl-C, 128 + SIGINT as in shells."""

_interrupted = False


def _interrupt(number: int, frame: object) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


def run() -> int:
    """Run the command line of the process; returns the exit code.

    Its modules are imported here, since Ctrl-C may come before they are complete; then `avface.cli.main` isn't there
    to catch it. An import that is interrupted may also fail with an exception of its own.
    """
    try:
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, _interrupt)
        from avface.cli import main

        return main()
    except BaseException:
        if not _interrupted:
            raise
    try:
        sys.stderr.write("avface: error: interrupted\n")
        sys.stderr.flush()
    finally:
        os._exit(INTERRUPTED)  # half-imported libraries may fail again when Python ends


if __name__ == "__main__":
    sys.exit(run())
