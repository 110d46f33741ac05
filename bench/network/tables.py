"""The figures as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.network.loads import Load, Row
from bench.network.ours import LLB
from bench.network.turns import Results

HEADINGS = {
    "rate": "How much: more is better",
    "latency": "How long a request takes, one at a time: less is better",
    "cpu": "CPU time of the whole machine: less is better",
}
NONE = "—"


def tables(results: Results, loads: Sequence[Load]) -> str:
    """Medians (and least to most) of each kind of row, what LLB is to the others, and remarks."""
    rows = [row for load in loads for row in load.all_rows]
    parts = []
    for kind, heading in HEADINGS.items():
        of_kind = [row for row in rows if row.kind == kind]
        if of_kind:
            parts += [f"{heading}.", _figures(results, of_kind)]
    if LLB in results.kinds and len(results.kinds) > 1:
        parts += ["LLB as a multiple of each other way, by the medians.", _ratios(results, rows)]
    parts.append("\n".join(f"- {remark}" for remark in results.remarks))
    return "\n\n".join(parts)


def _figures(results: Results, rows: Sequence[Row]) -> str:
    def line(row: Row) -> Iterator[str]:
        yield from (row.title, row.unit)
        for kind in results.kinds:
            figures = results.figures.get((row, kind.name))
            middle = results.median(row, kind.name)
            if figures and middle is not None:
                yield f"{_short(middle)} ({_short(min(figures))}–{_short(max(figures))})"
            else:
                yield NONE

    return _markdown(["", "unit", *(kind.title for kind in results.kinds)], map(line, rows))


def _ratios(results: Results, rows: Sequence[Row]) -> str:
    others = [kind for kind in results.kinds if kind is not LLB]

    def line(row: Row) -> Iterator[str]:
        yield from (row.title, "CPU" if row.kind == "cpu" else row.kind)
        own = results.median(row, LLB.name)
        for kind in others:
            other = results.median(row, kind.name)
            yield NONE if own is None or not other else f"{own / other:.2f}"

    return _markdown(["", "of", *(f"÷ {kind.title}" for kind in others)], map(line, rows))


def _short(figure: float) -> str:
    return f"{figure:.0f}" if figure >= 100 else f"{figure:.1f}"


def _markdown(heads: Sequence[str], lines: Iterator[Iterator[str]]) -> str:
    rows = [heads, ["---", "---", *["---:"] * (len(heads) - 2)], *map(list, lines)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
