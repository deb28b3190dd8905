"""Terminal output: progress bars, warnings, tables."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avface.cli.streams import complain
from avface.errors import AvfaceWarning

if TYPE_CHECKING:
    from rich.progress import Progress


STAGES = {
    "track": "tracking",
    "solve": "solving",
    "lips": "refining lips",
    "detail": "estimating detail",
    "reference": "reference",
    "mediapipe": "MediaPipe alone",
}
"""Labels of progress bars by the names that `reconstruct` and the evaluations report."""


def printable(text: str) -> str:
    """Text with line ends, control codes and undecodable bytes escaped, as file names may contain them."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


@contextlib.contextmanager
def collected_warnings(printed: bool) -> Iterator[list[str]]:
    """Collect avface's warnings; they are in the list, and printed if wanted, when the block ends, one line each.

    Warnings of libraries are dropped.
    """
    import logging

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # logs a search for fonts on its first run
    messages: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", AvfaceWarning)
        try:
            yield messages
        finally:
            messages += dict.fromkeys(str(warning.message) for warning in caught)  # each once
            if printed:
                for text in messages:
                    complain(f"avface: warning: {printable(text)}")


class Bars:
    """Progress bars, one per stage, with the remaining time; none where stderr is not a terminal."""

    def __init__(self, enabled: bool) -> None:
        self._progress: Progress | None = None
        self._stages: dict[str, Any] = {}
        if not enabled or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        # a duplicate descriptor: the tracker redirects descriptor 2 while MediaPipe starts
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
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._terminal.close()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        """Update the bar of a stage: items done of a total, None if it is unknown."""
        if self._progress is None:
            return
        self._progress.start()  # not before: a training has bars of its own
        if stage not in self._stages:
            for earlier in self._stages.values():  # even if its estimated total wasn't reached
                self._progress.update(earlier, visible=False)
            self._stages[stage] = self._progress.add_task(printable(STAGES.get(stage, stage)), total=total)
        self._progress.update(self._stages[stage], completed=done, total=total)

    def restart(self) -> None:
        """Erase all bars, before text is printed or the same stages come again."""
        if self._progress is None:
            return
        self._progress.stop()
        for task in self._progress.task_ids:
            self._progress.remove_task(task)
        self._stages.clear()

    def each(self, stage: str, total: int | None) -> Callable[[], None]:
        """Start a stage; each call of the returned function counts one more item."""
        done = 0
        self(stage, done, total)

        def advance() -> None:
            nonlocal done
            done += 1
            self(stage, done, total)

        return advance


def table(facts: dict[str, Any]) -> str:
    """Facts as lines of two aligned columns."""
    import textwrap

    width = max(map(len, facts)) + 2
    lines = []
    for name, value in facts.items():
        text = textwrap.wrap(_formatted(value), 100 - width, break_long_words=False) or [""]
        lines.append(name.replace("_", " ").ljust(width) + text[0])
        lines += [" " * width + more for more in text[1:]]
    return "\n".join(lines)


def _formatted(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        if any(isinstance(each, str) for each in value.values()):
            return "; ".join(f"{key}: {each}" for key, each in value.items())
        return ", ".join(f"{key.replace('_', ' ')} {_formatted(each)}" for key, each in value.items())
    if isinstance(value, list):
        return ("; " if value and isinstance(value[0], dict) else ", ").join(map(_formatted, value)) or "none"
    return str(value)


def share(part: int, whole: int) -> str:
    """Text of a share, such as "12 of 40 (30%)"."""
    return f"all {whole}" if part == whole else f"{part} of {whole} ({part / whole:.0%})"


def sizes(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Paths of files and their sizes in bytes."""
    return [{"path": str(path), "bytes": path.stat().st_size} for path in paths]


def listing(paths: Sequence[Path]) -> str:
    """One line per file with its size; for a long sequence its first and last name and total size."""
    if len(paths) > 12:
        total = sum(path.stat().st_size for path in paths)
        return f"{_size(total):>8}  {paths[0]} to {paths[-1].name}, {len(paths)} files"
    return "\n".join(f"{_size(path.stat().st_size):>8}  {path}" for path in paths)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"
