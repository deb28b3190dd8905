"""What people see: progress bars, warnings, tables."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avface.errors import AvfaceWarning

if TYPE_CHECKING:
    from rich.progress import Progress


STAGES = {
    "track": "tracking",
    "solve": "solving",
    "lips": "listening to the lips",
    "detail": "looking at the skin",
    "reference": "reference",
    "mediapipe": "MediaPipe alone",
}
"""What the stages of the rooms are called on the screen."""


def printable(text: str) -> str:
    """One line for a terminal: file names may hold line ends, escape codes and bytes that are no text."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


@contextlib.contextmanager
def warnings_told(hushed: bool) -> Iterator[list[str]]:
    """Collect avface's warnings and print them at the end, one line each. Those of libraries are dropped."""
    import logging

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # says on its first run that it looks for fonts
    told: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AvfaceWarning)
        try:
            yield told
        finally:
            told += [str(warning.message) for warning in caught]
            if not hushed:
                for text in told:
                    print(f"avface: warning: {printable(text)}", file=sys.stderr)


class Bars:
    """Progress bars on the terminal, one a stage, with the time left; none where stderr is no terminal."""

    def __init__(self, shown: bool) -> None:
        self._progress: Progress | None = None
        self._stages: dict[str, Any] = {}
        if not shown or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        # a descriptor of its own: the tracker holds back what arrives at 2 while MediaPipe starts
        terminal = os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding=sys.stderr.encoding, errors="replace")
        self._terminal = terminal
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(file=terminal),
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def __enter__(self) -> Bars:
        if self._progress is not None:
            self._progress.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._terminal.close()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """A stage has done so many of its frames or pieces; total None if nobody knows."""
        if self._progress is None:
            return
        if stage not in self._stages:
            for earlier in self._stages.values():  # totals may have been estimates
                self._progress.update(earlier, visible=False)
            self._stages[stage] = self._progress.add_task(printable(STAGES.get(stage, stage)), total=total)
        self._progress.update(self._stages[stage], completed=done, total=total)

    def each(self, stage: str, total: int | None) -> Callable[[], None]:
        """Begin a stage; the function returned counts one more piece done."""
        done = 0
        self(stage, done, total)

        def one_more() -> None:
            nonlocal done
            done += 1
            self(stage, done, total)

        return one_more


def table(facts: dict[str, Any]) -> str:
    """Facts as aligned lines."""
    import textwrap

    width = max(map(len, facts)) + 2
    lines = []
    for name, value in facts.items():
        text = textwrap.wrap(_said(value), 100 - width, break_long_words=False) or [""]
        lines.append(name.replace("_", " ").ljust(width) + text[0])
        lines += [" " * width + more for more in text[1:]]
    return "\n".join(lines)


def _said(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        if any(isinstance(each, str) for each in value.values()):
            return "; ".join(f"{key}: {each}" for key, each in value.items())
        return ", ".join(f"{key.replace('_', ' ')} {_said(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ("; " if value and isinstance(value[0], dict) else ", ").join(map(_said, value))
    return str(value)


def share(part: int, whole: int) -> str:
    """How much of a whole, in words."""
    return f"all {whole}" if part == whole else f"{part} of {whole} ({part / whole:.0%})"


def sizes(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Paths of files and their sizes in bytes."""
    return [{"path": str(path), "bytes": path.stat().st_size} for path in paths]


def listing(paths: Sequence[Path]) -> str:
    """One line a file with its size; of a long sequence the first and last."""
    if len(paths) > 12:
        total = sum(path.stat().st_size for path in paths)
        return f"{_size(total):>8}  {paths[0]} to {paths[-1].name}, {len(paths)} files"
    return "\n".join(f"{_size(path.stat().st_size):>8}  {path}" for path in paths)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
