"""Runs that couldn't test on real clips say so at their end."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import real_clips

TESTS = """
import pytest
import real_clips

@pytest.fixture(scope="module")
def clip():
    return real_clips.real_clip("talk.mp4")

def test_one(clip):
    pass

def test_two(clip):
    pass

def test_three():
    pytest.skip("for another reason")
"""


def last_lines(folder, clips, *options):
    (folder / "test_clips.py").write_text(TESTS)
    here = Path(__file__).parent
    (folder / "conftest.py").write_text((here / "conftest.py").read_text())
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {**os.environ, "AVFACE_CLIPS": str(clips), "PYTHONPATH": str(here)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "two processes"])
def test_tests_that_miss_a_real_clip_are_counted_in_one_line(tmp_path, options):
    printed = last_lines(tmp_path, tmp_path / "none", *options)
    lines = [line for line in printed.splitlines() if "NOT TESTED" in line]
    assert len(lines) == 1 and "NOT TESTED on real clips: 2 tests; set AVFACE_CLIPS" in lines[0]


def test_nothing_is_said_where_the_clips_are_there(tmp_path):
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "talk.mp4").write_bytes(b"")
    assert "NOT TESTED" not in last_lines(tmp_path, tmp_path / "clips")


def test_clips_are_looked_for_beside_the_repository_unless_the_environment_says_otherwise(monkeypatch):
    monkeypatch.delenv("AVFACE_CLIPS", raising=False)
    assert real_clips.clips_folder() == Path(__file__).resolve().parents[2] / "shared" / "clips"
    monkeypatch.setenv("AVFACE_CLIPS", "elsewhere")
    assert real_clips.clips_folder() == Path("elsewhere")
