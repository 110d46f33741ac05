"""How values are written for people."""

from __future__ import annotations

import pytest

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
