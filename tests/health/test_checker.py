"""Who is asked, how often, and how soon a dead backend is out."""

from __future__ import annotations

import asyncio
import ipaddress
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import pytest

from llb_core.health import checker
from llb_core.health.checker import HealthChecker, Schedule, Transition
from llb_core.health.checks import Check, HttpQuestion
from llb_core.health.source_ports import source_ports
from llb_core.health.state import Health
from llb_core.health.timing import Grid
from llb_core.model import Endpoint
from tests.health.servers import answering, refusing, silent
from tests.waiting import until

HTTP = HttpQuestion()  # A server sees it; one by TCP it does not.
DEFAULT = Schedule(Check(0.5, HTTP), interval=0.5, rise=2, fall=3)
QUICK = Schedule(Check(0.1, HTTP), interval=0.05, rise=2, fall=3)
PORTS = source_ports((1024, 32767))


class Watch:
    """A checker and what it told."""

    def __init__(self) -> None:
        self.told: list[Transition] = []
        self.checker = HealthChecker(PORTS, self.told.append, chance=random.Random(1).random)

    def status(self, service: str, endpoint: Endpoint) -> Health:
        return self.checker.states[service][endpoint].status


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    watch = Watch()
    yield watch
    watch.checker.close()


@contextmanager
def paused_backend(endpoint: Endpoint, how: str) -> Iterator[None]:
    """Take the place of a backend that has just gone."""
    if how == "refuses":
        yield
    else:
        with silent(endpoint.port):
            yield


async def test_a_new_backend_is_known_after_one_check(watch: Watch) -> None:
    async with answering() as backend:
        once = replace(DEFAULT, interval=3600.0)
        watch.checker.watch({"web": (once, [backend.endpoint])})
        assert watch.status("web", backend.endpoint) is Health.UNKNOWN
        await until(lambda: watch.told)
        assert len(backend.ports) <= 1  # It may not have noticed yet.
    assert watch.told[0].before is Health.UNKNOWN
    assert watch.told[0].backends == {("web", backend.endpoint)}
    assert watch.told[0].state.status is Health.HEALTHY


@pytest.mark.parametrize("how", ["refuses", "is silent"])
async def test_a_dead_backend_is_out_within_a_second_and_a_half(watch: Watch, how: str) -> None:
    async with answering() as backend:
        watch.checker.watch({"web": (DEFAULT, [backend.endpoint])})
        await until(lambda: watch.told)
        asked = len(backend.ports)
        await until(lambda: len(backend.ports) > asked)  # The worst case: it dies just after.
    with paused_backend(backend.endpoint, how):
        await until(lambda: len(watch.told) == 2)
    assert watch.status("web", backend.endpoint) is Health.UNHEALTHY


async def test_a_backend_that_comes_back_is_noticed(watch: Watch) -> None:
    with refusing() as target:
        watch.checker.watch({"web": (QUICK, [target])})
        await until(lambda: watch.told)
    async with answering(port=target.port):
        await until(lambda: watch.status("web", target) is Health.HEALTHY)
    assert [t.state.status for t in watch.told] == [Health.UNHEALTHY, Health.HEALTHY]


async def test_a_lost_probe_says_nothing_once_a_later_one_has_succeeded(watch: Watch) -> None:
    served = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        served += 1
        await reader.readline()
        if served != 2:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            writer.close()

    schedule = Schedule(Check(0.1, HttpQuestion()), interval=0.05, rise=2, fall=1)
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        target = Endpoint(ipaddress.ip_address("127.0.0.1"), server.sockets[0].getsockname()[1])
        watch.checker.watch({"web": (schedule, [target])})
        await until(lambda: served > 8)
    assert [t.state.status for t in watch.told] == [Health.HEALTHY]


class Holding:
    """An HTTP backend that answers its first question at once, and the others when it is told."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        await reader.readline()
        if self.asked > 1:
            await self.answers.wait()
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        writer.close()


@asynccontextmanager
async def holding() -> AsyncIterator[tuple[Holding, Endpoint]]:
    backend = Holding()
    async with await asyncio.start_server(backend.serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        yield backend, Endpoint(ipaddress.ip_address("127.0.0.1"), port)
        backend.answers.set()


PATIENT = Schedule(Check(30.0, HttpQuestion()), interval=0.1, rise=2, fall=3)


async def test_asks_again_while_an_answer_is_waited_for_and_not_more_often_than_counts(
    watch: Watch,
) -> None:
    async with holding() as (backend, target):
        watch.checker.watch({"web": (PATIENT, [target])})
        await until(lambda: backend.asked == 1 + PATIENT.fall, limit=30)
        with pytest.raises(AssertionError):
            await until(lambda: backend.asked > 1 + PATIENT.fall, limit=0.3)
        backend.answers.set()
        asked = backend.asked
        await until(lambda: backend.asked >= asked + 3, limit=30)
    assert [each.state.status for each in watch.told] == [Health.HEALTHY]


async def test_an_answer_that_is_waited_for_when_a_backend_is_forgotten_has_nobody_asked(
    watch: Watch,
) -> None:
    async with holding() as (backend, target):
        watch.checker.watch({"web": (PATIENT, [target])})
        await until(lambda: backend.asked == 2, limit=30)
        watch.checker.watch({})
        backend.answers.set()
        with pytest.raises(AssertionError):
            await until(lambda: backend.asked > 1 + PATIENT.fall, limit=0.4)


async def test_asks_once_for_all_services_with_the_same_check(watch: Watch) -> None:
    async with answering() as backend:
        watch.checker.watch({n: (DEFAULT, [backend.endpoint]) for n in ("web", "api", "old")})
        await until(lambda: watch.told and backend.ports)
        assert len(backend.ports) <= 1  # It may not have noticed yet.
        assert watch.told[0].backends == {(n, backend.endpoint) for n in ("web", "api", "old")}


async def test_a_backend_that_another_service_keeps_or_takes_over_stays_the_same(
    watch: Watch,
) -> None:
    async with answering() as backend:
        end = backend.endpoint
        watch.checker.watch({"web": (DEFAULT, [end]), "api": (DEFAULT, [end])})
        await until(lambda: watch.told)
        asked = len(backend.ports)
        watch.checker.watch({"web": (DEFAULT, []), "api": (DEFAULT, [end])})
        assert {n: [*of] for n, of in watch.checker.states.items()} == {"web": [], "api": [end]}
        watch.checker.watch({"web": (DEFAULT, [end])})
        assert {n: [*of] for n, of in watch.checker.states.items()} == {"web": [end]}
        assert watch.status("web", end) is Health.HEALTHY
        await until(lambda: len(backend.ports) > asked)
    await until(lambda: len(watch.told) > 1)
    assert watch.told[1].backends == {("web", end)}


async def test_asks_the_port_that_the_schedule_names(watch: Watch) -> None:
    async with answering() as backend:
        schedule = Schedule(Check(0.5), 0.5, 2, 3, port=backend.endpoint.port)
        served = Endpoint(backend.endpoint.address, 9)
        watch.checker.watch({"web": (schedule, [served])})
        await until(lambda: watch.told)
        assert watch.status("web", served) is Health.HEALTHY


async def test_asks_nobody_for_a_service_without_checks(watch: Watch) -> None:
    async with answering() as backend:
        watch.checker.watch({"dns": (None, [backend.endpoint])})
        assert watch.checker.states == {}


async def test_forgets_a_backend_that_is_watched_no_more(watch: Watch) -> None:
    async with answering() as backend:
        watch.checker.watch({"web": (QUICK, [backend.endpoint])})
        await until(lambda: watch.told)
        watch.checker.watch({})
        assert watch.checker.states == {}
        under_way = QUICK.fall
        asked = len(backend.ports)
        with pytest.raises(AssertionError):
            await until(lambda: len(backend.ports) > asked + under_way, limit=0.4)


async def test_a_backend_keeps_its_state_when_its_schedule_changes(watch: Watch) -> None:
    async with answering() as backend:
        watch.checker.watch({"web": (DEFAULT, [backend.endpoint])})
        await until(lambda: watch.told)
        watch.checker.watch({"web": (QUICK, [backend.endpoint])})
        assert watch.status("web", backend.endpoint) is Health.HEALTHY


async def test_a_steady_backend_is_asked_at_the_interval(watch: Watch) -> None:
    async with answering() as backend:
        schedule = Schedule(Check(0.1, HTTP), interval=0.1, rise=2, fall=3)
        watch.checker.watch({"web": (schedule, [backend.endpoint])})
        took = await until(lambda: len(backend.ports) >= 11)
    assert took > 0.8


async def test_those_at_rest_are_asked_in_groups_that_are_filled_in_turn(
    watch: Watch, monkeypatch: pytest.MonkeyPatch
) -> None:
    resting: dict[object, set[int]] = {}
    real = Grid.call

    def call(grid: Grid, key: object, *args: Any, every: int = 1, offset: int = 0) -> int:
        tick = real(grid, key, *args, every=every, offset=offset)
        if every > 1:
            resting.setdefault(key, set()).add(tick)
        return tick

    monkeypatch.setattr(Grid, "call", call)
    monkeypatch.setattr(checker, "_TOGETHER", 3)
    async with answering() as backend:
        schedules = [replace(QUICK, check=Check(0.2 + n / 100, HTTP)) for n in range(9)]
        watch.checker.watch(
            {f"s{n}": (schedule, [backend.endpoint]) for n, schedule in enumerate(schedules)}
        )
        await until(lambda: len(resting) == 9 and all(len(ticks) > 2 for ticks in resting.values()))
    groups = [{tick % 6 for tick in ticks} for ticks in resting.values()]
    assert all(len(group) == 1 for group in groups)
    assert sorted(tick for group in groups for tick in group) == [0] * 3 + [2] * 3 + [4] * 3
