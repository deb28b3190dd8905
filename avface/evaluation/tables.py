"""Plain text tables."""

from __future__ import annotations

from collections.abc import Collection, Sequence


def aligned(rows: Sequence[Sequence[str]], rules: Collection[int] = (1,)) -> str:
    """Rows of cells as lines of text: the first column left-aligned, the others right-aligned.

    rules: indices of the rows that have a line above.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    rule = "-" * max(map(len, lines))
    drawn: list[str] = []
    for number, line in enumerate(lines):
        drawn += [rule, line] if number in rules else [line]
    return "\n".join(drawn)


def with_spread(values: Sequence[float], style: str = ".2f") -> str:
    """Mean and standard deviation of the values that aren't nan; "-" if there are none."""
    known = [value for value in values if value == value]
    if not known:
        return "-"
    mean = sum(known) / len(known)
    spread = (sum((value - mean) ** 2 for value in known) / len(known)) ** 0.5
    return f"{mean:{style}} ± {spread:{style}}"
