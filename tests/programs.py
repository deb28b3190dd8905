"""Other programs that open exported files: where tests look for them.

Blender is the package `bpy` in an environment of its own, whose interpreter AVFACE_BLENDER names; three.js and
Khronos' validator are the npm packages three and gltf-validator in the folder that AVFACE_NODE_MODULES names. By
default they are where .ci/run installs them, in .programs. A test whose program is missing is skipped; the end of the
run says how many were (tests/conftest.py).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from chromium import find_chromium

MISSING = "no program to open exported files"
"""How the reason of these skips begins."""
FOLDER = Path(__file__).resolve().parents[1] / ".programs"


def blender() -> str:
    """An interpreter with `bpy`; the test that asks is skipped if there is none."""
    program = os.environ.get("AVFACE_BLENDER", str(FOLDER / "blender" / "bin" / "python"))
    if not Path(program).is_file():
        pytest.skip(f"{MISSING}: {program} (Python with bpy); set AVFACE_BLENDER")
    return program


def node_package(name: str) -> Path:
    """The folder of an npm package; the test that asks is skipped if it is missing."""
    folder = Path(os.environ.get("AVFACE_NODE_MODULES", FOLDER / "node_modules")) / name
    if not folder.is_dir():
        pytest.skip(f"{MISSING}: {folder}; npm install {name}, set AVFACE_NODE_MODULES")
    return folder


def node() -> str:
    """Node.js; the test that asks is skipped if it is missing."""
    program = shutil.which("node")
    if program is None:
        pytest.skip(f"{MISSING}: Node.js")
    return program


def chromium() -> str:
    """The browser; the test that asks is skipped if it is missing."""
    program = find_chromium()
    if program is None:
        pytest.skip(f"{MISSING}: Chromium; set AVFACE_CHROMIUM")
    return program


def summary(skips: list) -> str | None:
    """The line that a run ends with if tests in other programs were among the skipped ones (reports of pytest)."""
    count = sum(MISSING in str(report.longrepr) for report in skips)
    if not count:
        return None
    return f"NOT TESTED in other programs: {count} test{'s' if count > 1 else ''}; see CONTRIBUTING.md"
