"""The tables of the comparison: medians, ratios, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from bench.network.kernel_ways import PLAIN
from bench.network.loads import Load, Outcome, Row
from bench.network.ours import LLB
from bench.network.proxies import HAPROXY
from bench.network.tables import tables
from bench.network.turns import Results, take
from bench.network.way import Way
from llb_core.errors import HostError

RATE = Row("requests", "thousand/s", "rate")


class Bare(Way):
    """A way by name alone: what measures it here doesn't look at its hosts."""

    def __init__(self, name: str) -> None:
        self.name = name


def load(figures: Sequence[float | None], pieces: float = 1000) -> Load:
    """A load that gives these figures one after the other, and an error in place of None."""
    left = iter(figures)

    def measure(way: Way, seconds: float) -> Outcome:
        figure = next(left)
        if figure is None:
            raise HostError(f"{way.name}: 3 errors")
        return Outcome((figure,), pieces)

    return Load("requests", (RATE,), measure, piece="request")


def taken(**figures: Sequence[float | None]) -> Results:
    results = Results([kind for kind in (PLAIN, HAPROXY, LLB) if kind.name in figures])
    for name, of_way in figures.items():
        source = load(of_way)
        for _ in of_way:
            take(results, source, Bare(name), 1)
    return results


def test_shows_medians_spread_and_what_llb_is_to_the_others() -> None:
    text = tables(taken(plain=[10, 30, 20], haproxy=[4, 5, 6], llb=[9, 10, 200]), [load([])])
    assert "|  | unit | plain forwarding | HAProxy | LLB |" in text
    assert "| requests | thousand/s | 20.0 (10.0–30.0) | 5.0 (4.0–6.0) | 10.0 (9.0–200) |" in text
    assert "| requests | rate | 0.50 | 2.00 |" in text


def test_counts_cpu_time_by_the_piece_of_work() -> None:
    results = taken(llb=[10])
    cpu = load([]).all_rows[-1]
    assert (cpu.unit, cpu.kind) == ("µs a request", "cpu")
    assert results.figures[cpu, "llb"][0] >= 0


@pytest.mark.parametrize(
    ("figures", "shown"), [([10, None, 30], "20.0 (10.0–30.0)"), ([None, None], "—")]
)
def test_a_failed_measurement_gives_no_figure_and_is_told(
    figures: Sequence[float | None], shown: str
) -> None:
    text = tables(taken(plain=[10], llb=figures), [load([])])
    assert f"| requests | thousand/s | 10.0 (10.0–10.0) | {shown} |" in text
    assert "- requests: a repetition is left out: llb: 3 errors." in text


def test_a_measurement_without_any_work_is_a_failed_one() -> None:
    results = Results([LLB])
    said = take(results, load([10], pieces=0), Bare("llb"), 1)
    assert "not one request came through" in said
    assert results.median(RATE, "llb") is None
