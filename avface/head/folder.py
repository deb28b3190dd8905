"""The folder of imported heads."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HEADS_VARIABLE = "AVFACE_HEADS"
"""Environment variable that overrides the folder."""


def heads_folder() -> Path:
    """The folder of imported heads, which may not exist: AVFACE_HEADS, or one in the user's data folder."""
    if chosen := os.environ.get(HEADS_VARIABLE):
        return Path(chosen)
    if sys.platform == "win32":
        data = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        data = Path.home() / "Library" / "Application Support"
    else:
        data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "avface" / "heads"


def imported_heads() -> list[str]:
    """Names of the heads in that folder, sorted."""
    return sorted(path.stem for path in heads_folder().glob("*.npz") if not path.name.startswith("."))
