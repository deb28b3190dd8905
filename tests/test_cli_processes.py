"""The command line as a process: standard streams that are closed, full or no longer read, and early Ctrl-C."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import avface

COMMAND = [sys.executable, "-m", "avface"]
CLIP = Path(avface.__file__).parent / "synthetic" / "assets" / "demo.mp4"
FULL = "/dev/full"
"""A file that no byte fits into; Linux has it."""

needs_dev_full = pytest.mark.skipif(not os.path.exists(FULL), reason="this system has no /dev/full")
posix_only = pytest.mark.skipif(os.name != "posix", reason="descriptors are closed by the shell")


def shell(words):
    """Run a command with the redirections of a shell; returns what it wrote and its exit code."""
    command = f"{sys.executable} -m avface {words}"
    return subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)


@needs_dev_full
@pytest.mark.parametrize("words", ["--version", "--help"])
def test_a_full_standard_output_is_an_error_in_one_line(words):
    done = shell(f"{words} >{FULL}")
    assert done.returncode == 2
    assert done.stderr == (
        "avface: error: standard output: can't be written (No space left on device); direct it elsewhere\n"
    )


@posix_only
def test_a_closed_standard_output_is_an_error_in_one_line():
    done = shell("--version >&-")
    assert done.returncode == 2
    assert done.stderr == (
        "avface: error: standard output: can't be written (Bad file descriptor); direct it elsewhere\n"
    )


@posix_only
@pytest.mark.parametrize("words", ["--version", "--help", f"info {CLIP}"])
def test_a_reader_that_has_ended_ends_the_command_in_silence(words):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, *words.split()], stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + 13, "")


@posix_only
@pytest.mark.parametrize("where", ["2>&-", pytest.param(f"2>{FULL}", marks=needs_dev_full), "2>&- <&-"])
def test_a_closed_or_full_stderr_changes_nothing_else(where):
    done = shell(f"--version {where}")
    assert (done.returncode, done.stdout) == (0, f"avface {avface.__version__}\n")
    done = shell(f"info none.mp4 {where}")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", ""), (
        "errors don't go to standard output instead"
    )


@posix_only
def test_no_file_gets_the_descriptor_of_a_closed_stream(tmp_path):
    # MediaPipe logs to descriptor 2, whatever file that is
    code = (
        "import os, sys; from avface.cli import main; main(['--version']);"
        f"number = os.open({str(tmp_path / 'file')!r}, os.O_CREAT | os.O_WRONLY); sys.exit(number)"
    )
    done = subprocess.run(["sh", "-c", f'{sys.executable} -c "{code}" <&- >&- 2>&-'], timeout=60)
    assert done.returncode > 2


INTERRUPTED = """
import signal, sys
import avface.__main__

class DuringAnImport:
    def find_spec(self, name, path=None, target=None):
        if name == {module!r}:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt as error:
                raise {error}

sys.meta_path.insert(0, DuringAnImport())
sys.argv[1:] = ["info", "none.mp4"]
sys.exit(avface.__main__.run())
"""


@pytest.mark.parametrize("module", ["tyro", "avface.cli.heads", "avface.media", "numpy"])
@pytest.mark.parametrize("error", ["error", "ImportError('initialization failed')"])
def test_ctrl_c_while_libraries_are_imported_is_one_line(module, error):
    # compiled libraries turn the interrupt into an ImportError of their own
    code = INTERRUPTED.format(module=module, error=error)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "avface: error: interrupted\n")
