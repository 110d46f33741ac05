"""Drains that are followed: when they are done, and when their deadline comes."""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import threading
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llb_core import drains as module
from llb_core import durable
from llb_core.collection import CollectReport
from llb_core.drains import Drains
from llb_core.ending import Ended
from llb_core.model import (
    BackendMode,
    Endpoint,
    Installed,
    InstalledBackend,
    InstalledService,
    Order,
    OrderKind,
    ServiceBackend,
    ServiceKey,
    Timeouts,
    Transport,
)
from llb_core.orders import Orders
from llb_core.running import Running
from tests.waiting import until

ENDPOINT = Endpoint(ipaddress.ip_address("10.0.0.2"), 80)
WEB = ("web", ENDPOINT)
NOON = 1_700_000_000.0


@dataclass
class World:
    """One drained backend, its connections, and two clocks."""

    path: Path
    clock: float = 5000.0
    time_of_day: float = NOON
    mode: BackendMode = BackendMode.DRAINING
    collected: dict[int, CollectReport] = field(default_factory=dict)
    ended: list[ServiceBackend] = field(default_factory=list)
    left: int = 7
    """Connections that are there to be ended."""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin anew, as the next daemon does."""
        key = ServiceKey(Endpoint(ipaddress.ip_address("192.0.2.1"), 80), Transport.TCP)
        self.orders = Orders(self.path)
        self.collected.clear()
        map_sync = SimpleNamespace(
            installed=lambda: Installed(
                services={1: InstalledService(1, "web", key, Timeouts())},
                backends={3: InstalledBackend(3, 1, ENDPOINT, self.mode)},
            )
        )
        running = SimpleNamespace(
            orders=self.orders,
            map_syncs={4: map_sync},
            collected=self.collected,
            core=SimpleNamespace(wake=lambda: None),
        )
        self.drains = Drains(
            cast("Running", running),
            clock=lambda: self.clock,
            time_of_day=lambda: self.time_of_day,
        )

    def drain(self, deadline: float | None = None) -> None:
        until, due = (
            None if deadline is None else clock + deadline
            for clock in (self.time_of_day, self.clock)
        )
        order = Order(OrderKind.DRAIN, at=self.time_of_day, deadline=until, due=due)
        self.orders.give({WEB}, order)

    def pass_over(self, live: int) -> None:
        """Let a second go by, and count the connections."""
        self.sleep(1)
        self.collected[4] = CollectReport(live_by_backend={3: live}, began=self.clock)

    def sleep(self, seconds: float) -> None:
        self.clock += seconds
        self.time_of_day += seconds

    def look(self) -> float | None:
        """Look at the drains, and return when this one was found done."""
        asyncio.run(self.drains.follow())
        traffic = self.orders.standing[WEB].traffic
        assert traffic is not None
        return traffic.done


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path / "llb.orders.json")

    def end(_running: Any, backends: Any) -> Ended:
        world.ended += backends
        count, world.left = world.left, 0
        return Ended(count=count, by_backend=dict.fromkeys(backends, count) if count else {})

    monkeypatch.setattr(module, "end_those_of_backends", end)
    return world


def test_is_done_once_a_count_that_began_later_finds_no_connection(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.pass_over(live=0)
    world.sleep(1)
    world.drain()
    assert world.look() is None, "what was counted before says nothing"
    world.pass_over(live=2)
    assert world.look() is None
    world.pass_over(live=0)
    at = world.time_of_day
    assert world.look() == at
    world.sleep(5)
    assert world.look() == at
    assert caplog.text.count("is drained: it has no connections left") == 1


def test_what_was_counted_late_is_not_done_yet(world: World) -> None:
    world.drain()
    world.look()
    world.pass_over(live=0)
    assert world.look() is not None
    world.pass_over(live=1)
    assert world.look() is None


def test_it_is_not_done_while_the_backend_may_get_connections(world: World) -> None:
    world.drain()
    world.mode = BackendMode.ACTIVE
    world.look()
    world.pass_over(live=0)
    assert world.look() is None


def test_the_next_daemon_knows_that_it_is_done_and_says_nothing(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.drain()
    world.look()
    world.pass_over(live=0)
    at = world.look()
    caplog.set_level(logging.INFO)
    world.restart()
    assert world.look() == at
    world.pass_over(live=0)
    assert world.look() == at
    assert caplog.text == ""


@pytest.mark.parametrize("is_seen", [True, False], ids=["seen before", "just given"])
@pytest.mark.parametrize("jump", [-86_400, 0, 86_400], ids=["back", "not", "forward"])
def test_a_clock_that_is_set_moves_no_deadline_and_hides_no_end(
    world: World, jump: int, is_seen: bool
) -> None:
    world.drain(deadline=10)
    if is_seen:
        world.look()
    world.time_of_day += jump
    for _ in range(9):
        world.pass_over(live=1)
        assert world.look() is None
    assert world.ended == []
    world.pass_over(live=1)
    world.look()
    assert world.ended == [WEB]
    world.pass_over(live=0)
    assert world.look() == world.time_of_day


def test_a_deadline_that_came_while_no_daemon_ran_is_kept_by_the_next(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    world.drain(deadline=10)
    world.look()
    world.sleep(3600)
    world.restart()
    world.look()
    assert world.ended == [], "nothing is known of its connections yet"
    world.pass_over(live=1)
    world.look()
    assert world.ended == [WEB]
    assert "the deadline of its drain has come: 7 connections are ended" in caplog.text
    world.sleep(0.5)
    world.look()
    assert caplog.text.count("the deadline of its drain has come") == 1, "not of the same count"


def test_a_full_disk_hides_no_end(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.drain()
    world.look()
    world.pass_over(live=0)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llb_core.durable.write", full)
    assert world.look() is not None
    assert "that a drain is done can't be kept: No space left on device" in caplog.text


async def test_a_disk_that_takes_its_time_holds_up_no_loop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, begun, goes_on = durable.write, threading.Event(), threading.Event()

    def slow(path: Path, text: str) -> None:
        begun.set()
        assert goes_on.wait(10), "the loop waits for it"
        write(path, text)

    world.drain()
    await world.drains.follow()
    world.pass_over(0)
    monkeypatch.setattr(durable, "write", slow)
    following = asyncio.create_task(world.drains.follow())
    await until(begun.is_set)

    goes_on.set()

    await following
    assert world.orders.under(OrderKind.DRAIN) == {WEB}
    traffic = world.orders.standing[WEB].traffic
    assert traffic is not None
    assert traffic.done == world.time_of_day
