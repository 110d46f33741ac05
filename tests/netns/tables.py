"""The tables of a balancer that runs, read as its pins have them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from llb_core.datapath import pins
from llb_core.datapath.bpf_map import MapReader
from llb_core.datapath.layout import records
from llb_core.demo import lab
from tests.bpf.harness.tables import Flow, Half, NatTable, pairs_of

PATIENCE = 30


@contextmanager
def pinned(balancer: lab.Balancer, family: int) -> Iterator[dict[str, MapReader]]:
    """The maps of an address family, as long as the context lasts."""
    capacity = pins.pinned_capacity(balancer.name, family)
    assert capacity is not None
    maps = pins.open_maps(balancer.name, family, capacity, create_missing=False)
    try:
        yield maps
    finally:
        for each in maps.values():
            each.close()


def pairs_at_rest(balancer: lab.Balancer, family: int) -> dict[Flow, tuple[Half, Half]]:
    """Return both halves of each connection by the client's tuple, once they are pairs.

    The tables are read one after the other, while packets and collection go on: so what looks wrong
    is looked at again, and is wrong if it stays.
    """
    deadline = time.monotonic() + PATIENCE
    with pinned(balancer, family) as maps:
        tables = [NatTable(maps[name], records(family)) for name in ("dnat_table", "snat_table")]
        while True:
            try:
                return pairs_of(*tables)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)


def are_empty(balancer: lab.Balancer) -> bool:
    """Say whether no table of either family holds anything."""
    for family in pins.pinned_families(balancer.name):
        with pinned(balancer, family) as maps:
            if any(len(maps[name].read_all()[0]) for name in ("dnat_table", "snat_table")):
                return False
    return True
