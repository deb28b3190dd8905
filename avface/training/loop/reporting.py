"""Progress bars, report lines and TensorBoard logs of training runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from torch import Tensor

from avface.errors import AvfaceError


class Reporter:
    """Progress bars on stderr, one line a report where it is no terminal, and nothing if quiet."""

    def __init__(self, quiet: bool = False, console: Console | None = None) -> None:
        self._quiet = quiet
        self._console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
            disable=quiet or not self._console.is_terminal,
        )

    def __enter__(self) -> Reporter:
        self._bars.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._bars.stop()

    def task(self, name: str, total: float | None, done: int = 0) -> TaskID:
        """Begin a bar."""
        return self._bars.add_task(name, total=total, completed=done, note="")

    def update(self, task: TaskID, done: float, total: float | None = None, note: str | None = None) -> None:
        """So much of a task is done."""
        more: dict[str, Any] = {} if note is None else {"note": note}
        if total is not None:
            more["total"] = total
        self._bars.update(task, completed=done, **more)

    def remove(self, task: TaskID) -> None:
        """End a bar."""
        self._bars.remove_task(task)

    def line(self, text: str) -> None:
        """Print a line that stays."""
        if not self._quiet:
            self._console.print(text, soft_wrap=True, markup=False, highlight=False)

    def report(self, task: TaskID, step: int, seconds: float, note: str) -> None:
        """Show a report beside the bar, or as a line where there is none."""
        self.update(task, step, note=note)
        if not self._console.is_terminal:
            self.line(f"step {step}, {seconds:.0f} s: {note}")


class TensorBoard:
    """TensorBoard logs, or nothing without a folder."""

    def __init__(self, folder: Path | None) -> None:
        self._writer: Any = None
        if folder is None:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise AvfaceError(
                "--log needs tensorboard; install it with: pip install 'avface[train]'"
            ) from None
        self._writer = SummaryWriter(str(folder))

    def __bool__(self) -> bool:
        return self._writer is not None

    def numbers(self, group: str, values: Mapping[str, float], step: int) -> None:
        """Log numbers."""
        if self._writer is not None:
            for name, value in values.items():
                self._writer.add_scalar(f"{group}/{name}", value, step)

    def pictures(self, name: str, pictures: Tensor, step: int) -> None:
        """Log pictures (N, 3, H, W) from 0 to 1."""
        if self._writer is not None:
            self._writer.add_images(name, pictures, step)

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
