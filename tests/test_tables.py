"""Tables that are remembered, and large ones that are filled beside the loop."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
import pytest

from llb_core import tables
from llb_core.balancer import LoadBalancer
from llb_core.model import Backend, Endpoint, Scheduler, Service, ServiceKey, Transport
from llb_core.planning.changes import Plan, PutTable, WriteTable
from llb_core.planning.maglev import Owners, build_table
from llb_core.tables import Tables
from llb_core.testing import MemoryMaps

LARGE, SMALL = 262_139, 16_381
FIRST = ipaddress.IPv4Address("10.0.0.1")
ENDPOINTS = [Endpoint(FIRST + number, 80) for number in range(200)]
VIP = ipaddress.IPv4Address("203.0.113.10")
KEYS = [ServiceKey(Endpoint(VIP, port), Transport.TCP) for port in (80, 81)]


class Aside(Executor):
    """Does what it was given when it is told to, as a worker thread would some time later."""

    def __init__(self) -> None:
        self.given: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, work: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.given.append((future, lambda: work(*args, **kwargs)))
        return future

    def work(self) -> None:
        """Do what was given."""
        given, self.given = self.given, []
        for future, work in given:
            try:
                future.set_result(work())
            except RuntimeError as error:
                future.set_exception(error)


def ask(some: Tables, *wanted: tuple[int, int]) -> list[Owners | None]:
    """Ask for tables of so many backends and places, as one turn."""
    with some.turn() as build:
        return [
            build(key, [(each, 1) for each in ENDPOINTS[:count]], size, Scheduler.MAGLEV)
            for key, (count, size) in zip(KEYS, wanted, strict=False)
        ]


def test_a_large_table_is_filled_aside() -> None:
    aside, filled = Aside(), list[bool]()
    some = Tables(aside, on_filled=lambda: filled.append(True))

    assert ask(some, (3, LARGE)) == [None]
    assert some.missing == {KEYS[0]}
    aside.work()

    assert filled == [True]
    (table,) = ask(some, (3, LARGE))
    assert not some.missing
    expected = build_table([(each, 1) for each in ENDPOINTS[:3]], LARGE)
    assert table is not None
    assert np.array_equal(table, expected)


def test_a_large_table_holds_up_no_small_one() -> None:
    some = Tables(Aside())
    large, small = ask(some, (3, LARGE), (3, SMALL))
    assert large is None
    assert small is not None


def test_one_is_filled_at_a_time_and_what_is_wanted_no_longer_is_not() -> None:
    aside = Aside()
    some = Tables(aside)
    ask(some, (3, LARGE), (4, LARGE))
    ask(some, (4, LARGE), (5, LARGE))
    assert len(aside.given) == 1
    aside.work()
    ask(some, (4, LARGE), (5, LARGE))
    aside.work()
    assert [table is None for table in ask(some, (4, LARGE), (5, LARGE))] == [False, True]


def test_what_goes_wrong_aside_is_told_and_tried_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> Owners:
        raise RuntimeError("no memory")

    aside = Aside()
    some = Tables(aside)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "fill_table", fail)
        ask(some, (3, LARGE))
        aside.work()
    assert ask(some, (3, LARGE)) == [None]
    assert "a table of 262139 places can't be filled" in caplog.text
    aside.work()
    (table,) = ask(some, (3, LARGE))
    assert table is not None


def test_by_itself_it_fills_whatever_is_asked_for() -> None:
    (table,) = ask(Tables(), (3, LARGE))
    assert table is not None


def test_a_change_of_a_large_service_is_in_at_once_and_consistent_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tables, "LARGEST_AT_ONCE", SMALL)
    aside, maps = Aside(), MemoryMaps()
    web = Service("web", (KEYS[0],), is_checked=False)
    llb = LoadBalancer({4: maps}, [web], tables=Tables(aside))

    def turn(count: int) -> Plan:
        for each in ENDPOINTS[:count]:
            llb.register_backend("web", Backend(each))
        return llb.commit().plan

    def served() -> set[Endpoint]:
        installed = maps.installed()
        slots = np.unique(installed.services[1].table).tolist()
        return {installed.backends[slot].endpoint for slot in slots}

    turn(200)
    assert served() == set(ENDPOINTS)
    turn(199)
    assert served() == set(ENDPOINTS[:199])
    aside.work()
    turn(199)  # The table of 200 is wanted no longer; that of 199 is begun.
    aside.work()
    (written,) = turn(199)
    assert isinstance(written, WriteTable | PutTable)
    assert not turn(199)

    fresh = MemoryMaps()
    other = LoadBalancer({4: fresh}, [web])
    for each in ENDPOINTS[:199]:
        other.register_backend("web", Backend(each))
    other.commit()
    assert np.array_equal(maps.installed().services[1].table, fresh.installed().services[1].table)
