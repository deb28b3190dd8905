"""Whole processes as a user starts them: how long they take, and how much memory."""

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
    """What a process took."""

    seconds: float
    """From its start to its end."""
    cpu_seconds: float
    """What its threads computed, together: other work on the machine changes it less."""
    peak_mb: float
    """Its largest resident memory, files mapped into it included, in 10^6 bytes. Linux never gives less than
    the process that started it had, so it must be started from a small one."""


def reconstruct_process(video: Path, folder: Path, stages: str = "coarse") -> Process:
    """`avface reconstruct VIDEO -o FOLDER --stages STAGES`: from the file to capture.npz, head.glb and arkit.csv."""
    command = [sys.executable, "-m", "avface", "reconstruct", str(video), "-o", str(folder), "--quiet"]
    return _run([*command, "--stages", stages])


def mediapipe_process(video: Path) -> Process:
    """MediaPipe alone, decoding and its own face mesh, as a measure."""
    return _run([sys.executable, "-c", _MEDIAPIPE_ALONE, str(video)])


def _run(command: list[str]) -> Process:
    """Run a command; not on Windows, which has no account of a process that ended.

    Raises:
        subprocess.CalledProcessError: if it fails; what it prints goes where our own output goes.
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
