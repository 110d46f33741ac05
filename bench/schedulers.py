"""Measure how schedulers share connections out, and how many move when a backend goes.

Worked out on the tables that the classifier goes by, so every run gives the same figures, and no
root is needed. A place of a table is a share of all hashes: what moves are connections in that
proportion. Affinity draws its places of the same tables as Maglev.
"""

from __future__ import annotations

import ipaddress

import numpy as np

from llb_core.model import Endpoint, Scheduler
from llb_core.planning.maglev import Owners, table_size
from llb_core.planning.turns import fill_table

WEIGHTS = {
    "3 of weight 1": [1] * 3,
    "weights 1, 2, 3": [1, 2, 3],
    "weights 1, 10, 100": [1, 10, 100],
    "10 of weight 1": [1] * 10,
    "100 of weight 1": [1] * 100,
    "1,000 of weight 1": [1] * 1000,
}
GOING = 5
"""How many of the backends are taken away, one at a time; the one whose leave moves most counts."""


def tables() -> str:
    """Return a table in Markdown."""
    heads = (
        "backends", "places", "share off its weight", "moves when one goes", "beside what must",
        "turns off their weight",
    )  # fmt: skip
    rows = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    for name, weights in WEIGHTS.items():
        size = table_size(weights)
        table = _fill(weights, size, Scheduler.MAGLEV)
        moved, must = max(_moved(weights, table, gone) for gone in _going(len(weights)))
        rows.append(
            f"| {name} | {size:,} | {_off(table, weights):.2%} | {moved:.2%} | "
            f"{moved - must:.2%} | {_turns_off(weights, size):.1f} |"
        )
    return "\n".join(rows)


def _backends(weights: list[int]) -> list[tuple[Endpoint, int]]:
    first = ipaddress.IPv4Address("10.0.0.1")
    return [(Endpoint(first + place, 8080), weight) for place, weight in enumerate(weights)]


def _fill(weights: list[int], size: int, scheduler: Scheduler) -> Owners:
    return fill_table(_backends(weights), size, scheduler)


def _off(table: Owners, weights: list[int]) -> float:
    """Return by what part of its own share a backend's places are off, at most."""
    wanted = np.array(weights) / sum(weights)
    got = np.bincount(table, minlength=len(weights)) / len(table)
    return float(np.abs(got / wanted - 1).max())


def _going(number: int) -> list[int]:
    return sorted({place * (number - 1) // (GOING - 1) for place in range(GOING)})


def _moved(weights: list[int], table: Owners, gone: int) -> tuple[float, float]:
    """Return the share of places whose backend changes when one goes, and its own share."""
    backends = _backends(weights)
    rest = [each for place, each in enumerate(backends) if place != gone]
    numbers = np.array([place for place in range(len(weights)) if place != gone])
    after = numbers[fill_table(rest, len(table), Scheduler.MAGLEV)]
    return float((after != table).mean()), float((table == gone).mean())


def _turns_off(weights: list[int], size: int) -> float:
    """Return by how many turns a backend is ahead or behind what its weight says, at most, at any
    time of a whole walk over round robin's table."""
    turns = _fill(weights, size, Scheduler.ROUND_ROBIN)
    worst = 0.0
    for place, weight in enumerate(weights[:: max(1, len(weights) // 10)]):
        index = place * max(1, len(weights) // 10)
        taken = np.cumsum(turns == index)
        due = np.arange(1, size + 1) * weight / sum(weights)
        worst = max(worst, float(np.abs(taken - due).max()))
    return worst
