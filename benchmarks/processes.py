"""Time and memory of whole processes as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

_MEDIAPIPE_ALONE = """
import sys
from pathlib import Path
from avface.evaluation.mediapipe_alone import run_mediapipe
run_mediapipe(Path(sys.argv[1]))
"""


@dataclass(frozen=True)
class Process:
    """Time and memory of a process."""

    seconds: float
    """Wall-clock time."""
    cpu_seconds: float
    """CPU time of all threads, which depends less on the load of the machine."""
    peak_mb: float
    """Peak resident memory in 10^6 bytes, with mapped files. On Linux it is at least that of the parent process at the
    start, so the parent must be small."""


def reconstruct_process(video: Path, folder: Path, stages: str | None = None) -> Process:
    """`avface reconstruct VIDEO -o FOLDER`, with `--stages STAGES` if they are given: from the file to capture.npz,
    head.glb and the curves."""
    command = [sys.executable, "-m", "avface", "reconstruct", str(video), "-o", str(folder), "--quiet"]
    return _run(command if stages is None else [*command, "--stages", stages])


def mediapipe_process(video: Path) -> Process:
    """MediaPipe alone, decoding and its own face mesh, as a baseline."""
    return _run([sys.executable, "-c", _MEDIAPIPE_ALONE, str(video)])


def _run(command: list[str]) -> Process:
    """Run a command; not on Windows, which has no `os.wait4`.

    Raises:
        subprocess.CalledProcessError: if it fails; its output is that of this process.
    """
    start = time.perf_counter()
    with subprocess.Popen(command) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.perf_counter() - start
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes on macOS, kibibytes elsewhere
    return Process(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * unit / 1e6)
