"""State of the whole process that single computations change: thread counts of numerical libraries, file descriptor 2;
and the refusal to compute in forked processes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any, TypeVar

from avface.errors import AvfaceError

T = TypeVar("T")


class _Shared:
    """A change of the process's state that several threads need at once: the first one makes it, the last undoes it.

    With a saved state for each thread, a thread that begins within another one's block would save the changed state,
    and make it permanent when it ends as the last.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.holders = 0

    @contextmanager
    def __call__(self, begin: Callable[[], None], leave: Callable[[bool], None]) -> Iterator[None]:
        """Hold the change during the block; `begin` runs before it, `leave(last)` after it, one holder at a time."""
        with self.lock:
            begin()
            self.holders += 1
        try:
            yield
        finally:
            with self.lock:
                self.holders -= 1
                leave(not self.holders)


_one_thread = _Shared()
_limiters: list[Any] = []
_torch_threads = 1
_quiet = _Shared()
_held: IO[bytes] | None = None
_stderr = -1


@contextmanager
def one_thread() -> Iterator[None]:
    """Limit PyTorch and the BLAS of NumPy and SciPy to one thread: with small matrices more threads cost more in
    synchronisation than they gain, and their sums differ in the last bit.

    Blocks may overlap in several threads: the counts are those from before the first one again when the last one ends.

    Raises:
        AvfaceError: in a process that was forked from one that had computed (`refuse_after_fork`).
    """
    import torch
    from threadpoolctl import threadpool_info, threadpool_limits

    before = 1

    def begin() -> None:
        nonlocal before
        global _torch_threads
        own = torch.get_num_threads()
        if not _one_thread.holders:
            _torch_threads = _in_new_thread(torch.get_num_threads)
        # a thread that began to compute in another one's block inherited its count of 1
        before = own if own > 1 else _torch_threads
        torch.set_num_threads(1)
        if not _one_thread.holders or any(  # SciPy's BLAS may have been loaded since
            pool["user_api"] == "blas" and pool["num_threads"] > 1 for pool in threadpool_info()
        ):
            _limiters.append(threadpool_limits(1, "blas"))

    def leave(last: bool) -> None:
        while last and _limiters:
            _limiters.pop().restore_original_limits()  # of OpenMP, too, so that PyTorch's follow
        # the call sets the count of this thread, and the one of MKL and of threads that begin to compute later
        torch.set_num_threads(before)
        rest = _torch_threads if last else 1
        if rest != before:
            _in_new_thread(lambda: torch.set_num_threads(rest))

    refuse_after_fork()
    with _one_thread(begin, leave):
        yield


def _in_new_thread(call: Callable[[], T]) -> T:
    """What a call returns in a thread of its own, whose thread count is the process's."""
    results: list[T] = []
    thread = threading.Thread(target=lambda: results.append(call()))
    thread.start()
    thread.join()
    return results[0]


@contextmanager
def held_stderr(unwanted: Callable[[bytes], bool]) -> Iterator[None]:
    """Hold back what is written to file descriptor 2 in the block, then pass on all lines but the unwanted ones.

    For libraries that log from C++ past Python's `sys.stderr`. Blocks may overlap in several threads: lines are passed
    on when the last one ends. Without a usable descriptor 2 (a windowed program) or a place for the lines, nothing is
    held back.
    """
    import tempfile

    def begin() -> None:
        global _held, _stderr
        if _quiet.holders or sys.stderr is None:
            return
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
            # in memory where the system can, since there may be no folder for temporary files
            if hasattr(os, "memfd_create"):
                held: IO[bytes] = os.fdopen(os.memfd_create("avface-stderr"), "w+b", buffering=0)
            else:
                held = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - closed by `leave`
            try:
                _stderr = os.dup(2)
                os.dup2(held.fileno(), 2)
            except OSError:
                held.close()
                raise
            _held = held

    def leave(last: bool) -> None:
        global _held, _stderr
        if not last or _held is None:
            return
        with suppress(OSError, ValueError, AttributeError):
            sys.stderr.flush()
        os.dup2(_stderr, 2)
        os.close(_stderr)
        held, _held, _stderr = _held, None, -1
        with held, suppress(OSError):  # nobody may be reading any more
            held.seek(0)
            for line in held:
                if not unwanted(line):
                    os.write(2, line)

    with _quiet(begin, leave):
        yield


_used = False
_forked = False


def refuse_after_fork() -> None:
    """Note that this process computes; called by whatever starts threads of PyTorch, OpenMP or MediaPipe.

    Raises:
        AvfaceError: if the process was forked from one that had computed. Their threads exist in the parent alone, and
            the child would crash or wait for them for ever.
    """
    global _used
    if _forked:
        raise AvfaceError(
            f"process {os.getpid()}: was forked from a process that had used avface, whose threads don't exist here; "
            "start processes by spawn: multiprocessing.get_context('spawn')"
        )
    _used = True


def _after_fork() -> None:
    """In the child: remember what the parent did, and free the locks that its threads held."""
    global _forked
    _forked = _used
    _one_thread.lock, _quiet.lock = threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_after_fork)
