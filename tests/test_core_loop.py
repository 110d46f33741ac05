"""The core loop: a turn by itself, and turn after turn beside an event loop."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress

import pytest

from llb_core.balancer import LoadBalancer
from llb_core.core_loop import CoreLoop, turn
from llb_core.errors import MapError, NotReady
from llb_core.model import Backend, BackendMode, Endpoint, Service, ServiceKey, Transport
from llb_core.planning.changes import Plan
from llb_core.report import Report
from llb_core.testing import MemoryMaps
from tests.waiting import until

FIRST = ipaddress.ip_address("10.0.0.1")
WEB = Service(
    "web",
    (ServiceKey(Endpoint(ipaddress.ip_address("203.0.113.10"), 80), Transport.TCP),),
    is_checked=False,
)


class Says:
    """A source that says what it is told to; nothing yet, at first."""

    service = "web"

    def __init__(self, *numbers: int) -> None:
        self.numbers: Sequence[int] | None = numbers or None

    def gather_backends(self) -> list[Backend]:
        if self.numbers is None:
            raise NotReady("web: provider says: it has not answered yet")
        return [Backend(Endpoint(FIRST + number, 80)) for number in self.numbers]


def active(maps: MemoryMaps) -> set[int]:
    return {
        int(each.endpoint.address) - int(FIRST)
        for each in maps.installed().backends.values()
        if each.mode is BackendMode.ACTIVE
    }


def test_a_turn_gathers_registers_and_commits() -> None:
    maps = MemoryMaps()
    source, other = Says(1, 2), Says(2, 3)
    llb = LoadBalancer({4: maps}, [WEB])
    report = turn([source, other], llb)
    assert active(maps) == {1, 2, 3}
    assert report.sentences == ("web: 3 backends",)


def test_unknown_failing_and_empty_are_three_things() -> None:
    maps = MemoryMaps()
    source = Says(1, 2)
    turn([source], LoadBalancer({4: maps}, [WEB]))
    restarted = LoadBalancer({4: maps}, [WEB])
    source.numbers = None
    turn([source], restarted)
    assert active(maps) == {1, 2}, "never answered: what is installed stays"
    source.numbers = ()
    turn([source], restarted)
    assert active(maps) == set(), "answered none: none"


def test_a_service_without_a_source_stays_as_it_is() -> None:
    maps = MemoryMaps()
    llb = LoadBalancer({4: maps}, [WEB])
    turn([Says(1, 2)], llb)
    turn([], llb)
    assert active(maps) == {1, 2}


def test_a_source_whose_service_is_gone_is_passed_over() -> None:
    maps = MemoryMaps()
    turn([Says(1)], LoadBalancer({4: maps}, []))
    silent = Says()
    turn([silent], LoadBalancer({4: maps}, []))
    assert maps.applied == []


@asynccontextmanager
async def running(
    maps: MemoryMaps,
    *sources: Says,
    on_turn: Callable[[Report], None] = lambda _: None,
    interval: float = 60.0,
) -> AsyncIterator[CoreLoop]:
    with ThreadPoolExecutor(1) as executor:
        core = CoreLoop(
            LoadBalancer({4: maps}, [WEB]), sources, executor, on_turn=on_turn, interval=interval
        )
        task = asyncio.create_task(core.run())
        try:
            yield core
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def test_makes_a_turn_at_once_and_on_each_wake() -> None:
    maps, source = MemoryMaps(), Says(1)
    async with running(maps, source) as core:
        await until(lambda: active(maps) == {1})
        source.numbers = (1, 2)
        threading.Thread(target=core.wake).start()
        await until(lambda: active(maps) == {1, 2})


async def test_makes_turns_at_the_interval_without_a_wake() -> None:
    turns: list[Report] = []
    async with running(MemoryMaps(), Says(1), on_turn=turns.append, interval=0.01):
        await until(lambda: len(turns) >= 3)


async def test_a_burst_of_changes_makes_one_turn() -> None:
    turns: list[Report] = []
    async with running(MemoryMaps(), Says(1), on_turn=turns.append) as core:
        await until(lambda: len(turns) == 1)
        for _ in range(100):
            core.wake()
        await until(lambda: len(turns) == 2)
        await core.in_turn(lambda: None)
        await asyncio.sleep(0.05)
        assert len(turns) == 2


async def test_a_wake_during_a_turn_makes_another() -> None:
    maps, source = MemoryMaps(), Says(1)
    inside, go_on = threading.Event(), threading.Event()
    gather = source.gather_backends

    def slow() -> list[Backend]:
        answer = gather()
        inside.set()
        go_on.wait(5)
        return answer

    source.gather_backends = slow  # type: ignore[method-assign]
    async with running(maps, source) as core:
        await until(inside.is_set)
        source.numbers = (7,)
        core.wake()
        go_on.set()
        await until(lambda: active(maps) == {7})


class Stubborn(MemoryMaps):
    """Maps that can't be written for a while."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error: Exception | None = error
        self.tries = 0

    def apply(self, plan: Plan) -> None:
        self.tries += 1
        if self.error:
            raise self.error
        super().apply(plan)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (MapError("map backends: can't write: no memory"), "map backends: can't write: no memory"),
        (ValueError("a fault of ours"), "ValueError: a fault of ours"),
    ],
)
async def test_a_turn_that_fails_is_told_once_and_tried_again(
    caplog: pytest.LogCaptureFixture, error: Exception, text: str
) -> None:
    caplog.set_level(logging.INFO)
    maps = Stubborn(error)
    async with running(maps, Says(1)) as core:
        for count in range(1, 4):
            await until(lambda count=count: maps.tries >= count)  # type: ignore[misc]
            core.wake()
        maps.error = None
        core.wake()
        await until(lambda: active(maps) == {1})
        await until(lambda: len(caplog.messages) == 3)
    assert caplog.messages == [
        f"nothing more is changed for now: {text}",
        "changes are installed again",
        "web: 1 backend",
    ]


async def test_what_touches_the_balancer_runs_between_turns() -> None:
    async with running(MemoryMaps(), Says(1)) as core:
        names = {await core.in_turn(lambda: threading.current_thread().name) for _ in range(2)}
        assert len(names) == 1
        assert threading.current_thread().name not in names


async def test_a_wake_after_the_end_is_harmless() -> None:
    loop = asyncio.new_event_loop()
    async with running(MemoryMaps(), Says(1)) as core:
        core._loop = loop
        loop.close()
        core.wake()
