"""How values are written for people."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from llb_core.cli import show


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (None, "-"),
        (0, "0"),
        (9_999, "9999"),
        (12_345, "12.3 k"),
        (1_500_000, "1.5 M"),
        (2_000_000_000, "2.0 G"),
    ],
)
def test_counts(number: int | None, written: str) -> None:
    assert show.count(number) == written


@pytest.mark.parametrize(
    ("seconds", "written"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_durations(seconds: float, written: str) -> None:
    assert show.ago(1000.0, now=1000.0 + seconds) == written


def test_a_time_that_is_not_known() -> None:
    assert show.ago(None) == "-"


def test_a_table_for_a_program_is_not_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    show.table(("NAME", "COUNT>"), [("x" * 60, "1"), ("[red]y", "22")])
    assert capsys.readouterr().out.splitlines()[1:] == [
        "x" * 60 + "      1",
        "[red]y" + " " * 54 + "     22",
    ]


ROWS = [("a-service-with-a-name", "203.0.113.10:80/tcp", "1234567", "static"),
        ("web", "[2001:db8::10]:80/tcp", "12.3 k", "failing: " + "x" * 60)]  # fmt: skip
COLUMNS = ("SERVICE", "ADDRESS", "CONNECTIONS>", "PROVIDER")


@pytest.mark.parametrize("width", [200, 100, 80, 60, 40])
def test_a_terminal_that_is_narrow_cuts_nothing(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("TERM", "dumb")
    show.table(COLUMNS, ROWS)
    shown = capsys.readouterr().out
    for cell in (cell for row in ROWS for cell in row[:3]):
        assert cell in shown
    assert shown.count("x") == 60


@pytest.mark.parametrize(("width", "columns"), [(200, 4), (80, 4), (60, 3), (44, 2), (20, 1)])
def test_what_is_shown_live_leaves_out_the_last_columns(width: int, columns: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(show.live_table(COLUMNS, ROWS, width))
    shown = console.export_text()
    assert [name.rstrip(">") in shown for name in COLUMNS] == [
        place < columns for place in range(len(COLUMNS))
    ]
    for cell in (row[place] for row in ROWS for place in range(min(columns, 3) - 1)):
        assert cell in shown
