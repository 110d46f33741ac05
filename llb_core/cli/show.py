"""Put values on standard output: as JSON for a program, as a table for a person.

Remarks about what is shown go to standard error, so that they never stand among the output.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_MANY = 50
"""Rows beyond which a table is printed without colours, and without folding what is too wide."""
_WIDE = 200
"""Columns where nobody's screen limits them."""
_LEAST = 12
"""Columns that the last cell of a row needs, if it is text: it is folded."""
_GAP = 2
"""Columns between two cells."""


def as_json(value: Any) -> None:
    """Print a value as JSON: in one line, unless a person looks at it."""
    indent = 2 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def give_up_output(error: OSError) -> None:
    """Tell the person that standard output can't be written, and write no more to it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())  # What is left is flushed at the process's end.
    try:
        remark(f"standard output: {error.strerror}: the answer is lost, not what was done")
    except OSError:  # It goes where that went.
        os.dup2(nowhere, sys.stderr.fileno())
    os.close(nowhere)


def remark(text: str) -> None:
    """Tell the person who called something about what is shown."""
    print(f"llb: {text}", file=sys.stderr)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; a column whose name ends in `>` is set to the right. One that the terminal
    has no room for is printed a line each, for the terminal to wrap: nothing is lost or cut."""
    rows = list(rows)
    if len(rows) > _MANY:
        _print_plainly(columns, rows)
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    if console.is_terminal and not _fits(columns, rows, console.width):
        _print_plainly(columns, rows)
        return
    console.print(_make_table(columns, rows))


def live_table(columns: Sequence[str], rows: Iterable[Sequence[str]], width: int) -> Table:
    """Return such a table as a part of what is shown live: without the last columns where there is
    no room for all."""
    rows = list(rows)
    while len(columns) > 1 and not _fits(columns, rows, width):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    return _make_table(columns, rows)


def _fits(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> bool:
    *whole, last = _widths(columns, rows)
    if not columns[-1].endswith(">"):
        last = min(last, _LEAST)
    return sum(whole) + last + _GAP * len(whole) <= width


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    names = [column.rstrip(">") for column in columns]
    return [max(map(len, cells)) for cells in zip(names, *rows, strict=True)]


def _make_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for place, column in enumerate(columns, 1):
        is_number = column.endswith(">")
        shown.add_column(
            column.rstrip(">"),
            justify="right" if is_number else "left",
            overflow="fold",
            no_wrap=is_number or place < len(columns),
        )
    for row in rows:
        shown.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return shown


def _print_plainly(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print many rows: a line each, however wide, in a hundredth of the time."""
    names = [column.rstrip(">") for column in columns]
    layout = (" " * _GAP).join(
        f"{{:{'>' if column.endswith('>') else '<'}{width}}}"
        for column, width in zip(columns, _widths(columns, rows), strict=True)
    )
    lines = [layout.format(*cells).rstrip() for cells in (names, *rows)]
    sys.stdout.write("\n".join(lines) + "\n")


def count(number: float | None) -> str:
    """Write a number shortly: 950, 12.3 k, 4.5 M; `-` where it is not known."""
    if number is None:
        return "-"
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= 10 * factor or (factor > 1e3 and number >= factor):
            return f"{number / factor:.1f}{unit}"
    return f"{number:g}"


def ago(since: float | None, now: float | None = None) -> str:
    """Write how long ago a time was, in its largest unit; `-` where it is not known."""
    if since is None:
        return "-"
    return duration((time.time() if now is None else now) - since)


def weights(said: Iterable[int]) -> str:
    """Write what several providers say of a weight: `3 and 5`."""
    return " and ".join(map(str, said))


def duration(seconds: float) -> str:
    """Write a duration in its largest unit."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def _style(cell: str) -> str:
    word = cell.split(":")[0]
    if word in ("unhealthy", "ending", "failing"):
        return "red"
    if word in ("draining", "waiting", "unknown", "stale", "retired"):
        return "yellow"
    return "green" if word in ("healthy", "active") else ""
