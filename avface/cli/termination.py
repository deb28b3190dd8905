"""Requests of the system to end, as an exception, so that temporary files are removed on the way out."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Terminated(BaseException):
    """The process was asked to end by a signal; not an `Exception`, so that nothing takes it for a failure."""

    def __init__(self, number: int) -> None:
        """number: of the signal."""
        super().__init__(number)
        self.number = number


@contextlib.contextmanager
def termination_raises() -> Iterator[None]:
    """Raise `Terminated` in the main thread at SIGTERM and, where there is one, SIGHUP (a closed terminal).

    Signals that the process ignores or handles already stay so (`nohup` ignores SIGHUP). Further ones during the
    clean-up are ignored. Forked children keep the system's default. In other threads than the main one, which alone
    can handle signals, nothing changes.
    """
    signals = [signal.SIGTERM]
    if hasattr(signal, "SIGHUP"):
        signals.append(signal.SIGHUP)
    if threading.current_thread() is not threading.main_thread():
        signals.clear()
    ours = [number for number in signals if signal.getsignal(number) == signal.SIG_DFL]

    process = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        for each in ours:
            signal.signal(each, signal.SIG_IGN)
        raise Terminated(number)

    for number in ours:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)
