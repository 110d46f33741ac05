"""Timers by the hundred: each is called once, in time, or not at all."""

from __future__ import annotations

import asyncio

import pytest

from llb_core.health.timing import Deadlines, Grid
from tests.waiting import until


class Probe:
    def __init__(self, expired: list[str], name: str = "") -> None:
        self.is_over = False
        self.name = name
        self._expired = expired

    def expire(self, late: float) -> None:
        assert late + 1e-3 >= 0
        self.is_over = True
        self._expired.append(self.name)


def deadlines_of(loop: asyncio.AbstractEventLoop, seconds: float) -> Deadlines[Probe]:
    return Deadlines(
        loop,
        seconds,
        is_over=lambda probe: probe.is_over,
        expire=lambda probe, late: probe.expire(late),
    )


@pytest.fixture
async def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


async def test_what_is_over_does_not_expire_and_the_rest_does_in_order(
    loop: asyncio.AbstractEventLoop,
) -> None:
    expired: list[str] = []
    deadlines = deadlines_of(loop, 0.02)
    probes = [Probe(expired, name) for name in "abcd"]
    for probe in probes:
        deadlines.add(loop.time(), probe)
    probes[0].is_over = probes[2].is_over = True
    await until(lambda: len(expired) == 2)
    assert expired == ["b", "d"]
    deadlines.add(loop.time(), Probe(expired, "e"))
    await until(lambda: expired[-1] == "e")


async def test_nothing_expires_before_its_time(loop: asyncio.AbstractEventLoop) -> None:
    expired: list[str] = []
    deadlines = deadlines_of(loop, 0.05)
    began = loop.time()
    deadlines.add(began, Probe(expired, "a"))
    await until(lambda: expired)
    assert loop.time() - began >= 0.049


async def test_deadlines_that_are_closed_keep_quiet(loop: asyncio.AbstractEventLoop) -> None:
    expired: list[str] = []
    deadlines, others = deadlines_of(loop, 0.01), deadlines_of(loop, 0.02)
    deadlines.add(loop.time(), Probe(expired, "a"))
    deadlines.close()
    others.add(loop.time(), Probe(expired, "b"))
    await until(lambda: expired)
    assert expired == ["b"]


async def test_the_grid_calls_on_its_multiples_and_no_later_than_asked(
    loop: asyncio.AbstractEventLoop,
) -> None:
    grid = Grid(loop, 0.02)
    called: list[float] = []
    when = loop.time() + 0.05
    tick = grid.call("a", when, called.append)
    await until(lambda: called)
    assert tick * 0.02 <= when + 1e-5
    assert called[0] >= tick * 0.02 - 1e-3


@pytest.mark.parametrize("offset", range(6))
async def test_of_the_multiples_only_some_count(
    loop: asyncio.AbstractEventLoop, offset: int
) -> None:
    grid = Grid(loop, 0.01)
    called: list[float] = []
    when = loop.time() + 0.06
    tick = grid.call("a", when, called.append, every=6, offset=offset)
    assert tick % 6 == offset
    assert when - 0.06 - 1e-5 <= tick * 0.01 <= when + 1e-5
    await until(lambda: called)
    again = grid.call("a", called[0] + 0.06, called.append, every=6, offset=offset)
    assert (again - tick) % 6 == 0
    assert again > tick
    grid.close()


async def test_calls_of_one_time_come_together_and_an_earlier_one_before_them(
    loop: asyncio.AbstractEventLoop,
) -> None:
    grid = Grid(loop, 0.01)
    called: list[str] = []
    start = loop.time()
    for name in "abc":
        grid.call(name, start + 0.055, lambda _, name=name: called.append(name))
    grid.call("first", start + 0.02, lambda _: called.append("first"))
    await until(lambda: len(called) == 4)
    assert called == ["first", "a", "b", "c"]


async def test_a_cancelled_call_does_not_come(loop: asyncio.AbstractEventLoop) -> None:
    grid = Grid(loop, 0.01)
    called: list[str] = []
    start = loop.time()
    tick = grid.call("a", start + 0.03, lambda _: called.append("a"))
    grid.cancel("a", tick)
    grid.cancel("a", tick)
    grid.cancel("never there", tick + 5)
    grid.call("b", start + 0.05, lambda _: called.append("b"))
    await until(lambda: called)
    assert called == ["b"]


async def test_a_call_may_cancel_another_of_the_same_time(loop: asyncio.AbstractEventLoop) -> None:
    grid = Grid(loop, 0.01)
    called: list[str] = []
    when = loop.time() + 0.02

    def call(_: float) -> None:
        called.append("a")
        grid.cancel("b", tick)

    tick = grid.call("a", when, call)
    assert grid.call("b", when, lambda _: called.append("b")) == tick
    grid.call("c", when + 0.02, lambda _: called.append("c"))
    await until(lambda: "c" in called)
    assert called == ["a", "c"]


async def test_a_call_may_ask_for_the_next_and_for_one_that_is_late(
    loop: asyncio.AbstractEventLoop,
) -> None:
    grid = Grid(loop, 0.01)
    called: list[int] = []

    def call(_: float) -> None:
        called.append(len(called))
        if len(called) < 5:
            late = 1.0 if len(called) == 3 else -0.01
            grid.call("a", loop.time() - late, call)

    grid.call("a", loop.time(), call)
    await until(lambda: len(called) == 5)
    grid.close()


async def test_many_calls_of_one_time_let_others_have_their_turn(
    loop: asyncio.AbstractEventLoop,
) -> None:
    grid = Grid(loop, 0.01)
    called: list[float] = []
    others: list[int] = []
    when = loop.time() + 0.02

    def call(now: float) -> None:
        if not called:
            loop.call_soon(lambda: others.append(len(called)))
        called.append(now)

    for number in range(300):
        grid.call(number, when, call)
    await until(lambda: len(called) == 300)
    assert len(others) == 1
    assert others[0] < 300
    assert called == sorted(called)
