"""Videos of real people, which aren't part of the repository: where tests look for them.

They lie in the folder that AVFACE_CLIPS names, by default ../shared/clips beside the repository. A test whose clip is
missing is skipped; the end of the run says how many were (tests/conftest.py).
"""

import os
from pathlib import Path

import pytest

MISSING = "no real clip"
"""How the reason of these skips begins."""


def clips_folder() -> Path:
    """The folder of real clips, which may be missing."""
    return Path(os.environ.get("AVFACE_CLIPS", Path(__file__).resolve().parents[2] / "shared" / "clips"))


def real_clip(name: str) -> Path:
    """A real clip by its file name; the test that asks is skipped if it is missing."""
    path = clips_folder() / name
    if not path.is_file():
        pytest.skip(f"{MISSING} {path}; set AVFACE_CLIPS")
    return path


def summary(skips: list) -> str | None:
    """The line that a run ends with if tests on real clips were among the skipped ones (reports of pytest)."""
    count = sum(MISSING in str(report.longrepr) for report in skips)
    if not count:
        return None
    return f"NOT TESTED on real clips: {count} test{'s' if count > 1 else ''}; set AVFACE_CLIPS"
