"""Put values on standard output: as JSON for a program, as a table for a person.

Remarks about what is shown go to standard error, so that they never stand among the output.
"""

from __future__ import annotations

import json
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


def as_json(value: Any) -> None:
    """Print a value as JSON: in one line, unless a person looks at it."""
    indent = 2 if sys.stdout.isatty() else None
    sys.stdout.write(json.dumps(value, indent=indent, ensure_ascii=False) + "\n")


def remark(text: str) -> None:
    """Tell the person who called something about what is shown."""
    print(f"llb: {text}", file=sys.stderr)


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table; a column whose name ends in `>` is set to the right."""
    rows = list(rows)
    if len(rows) > _MANY:
        _print_plainly(columns, rows)
        return
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=_WIDE)
    console.print(make_table(columns, rows))


def make_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return such a table, to be shown as a part of something."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        shown.add_column(
            column.rstrip(">"),
            justify="right" if column.endswith(">") else "left",
            overflow="fold",
            no_wrap=column.endswith(">"),
        )
    for row in rows:
        shown.add_row(*(Text(cell, style=_style(cell)) for cell in row))
    return shown


def _print_plainly(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print many rows: a line each, however wide, in a hundredth of the time."""
    names = [column.rstrip(">") for column in columns]
    widths = [max(map(len, cells)) for cells in zip(names, *rows, strict=True)]
    layout = "  ".join(
        f"{{:{'>' if column.endswith('>') else '<'}{width}}}"
        for column, width in zip(columns, widths, strict=True)
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
