"""Lookup of exporters, which are entry points named by suffix, so that other packages can register theirs."""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from avface.errors import AvfaceError

EXPORTERS = "avface.exporters"
"""Entry point group of exporters."""


def find_exporter(path: Path) -> Callable[..., Path]:
    """The exporter registered for a path's suffix: `(capture, path, **options) -> path`.

    Raises:
        AvfaceError: if none is; the message lists the registered suffixes.
    """
    known = {entry.name: entry for entry in metadata.entry_points(group=EXPORTERS)}
    entry = known.get(path.suffix.lower().lstrip("."))
    if entry is None:
        suffixes = ", ".join(f".{name}" for name in sorted(known))
        raise AvfaceError(
            f"{path}: can't export to {path.suffix or 'a name without suffix'!r}; use {suffixes}"
        )
    exporter: Callable[..., Path] = entry.load()
    return exporter
