"""The init system's watchdog hears of the daemon for as long as its loop and its turns go on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from llb_core import init_system, upkeep
from llb_core.balancer import LoadBalancer
from llb_core.core_loop import CoreLoop
from llb_core.running import Running
from llb_core.testing import MemoryMaps


@pytest.fixture
def init(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the init system hears, within 0.2 s each time."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(str(tmp_path / "notify"))
    listener.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("WATCHDOG_USEC", "200000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    with listener:
        yield listener


@pytest.fixture
async def core() -> AsyncIterator[CoreLoop]:
    with ThreadPoolExecutor(1) as executor:
        yield CoreLoop(LoadBalancer(MemoryMaps(), ()), (), executor)


@contextlib.asynccontextmanager
async def fed(core: CoreLoop) -> AsyncIterator[None]:
    running = cast("Running", SimpleNamespace(core=core))
    task = asyncio.create_task(upkeep.feed_watchdog(running))
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def heard(init: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(init, 100)


async def test_it_is_told_again_and_again(init: socket.socket, core: CoreLoop) -> None:
    async with fed(core):
        for _ in range(3):
            assert await asyncio.wait_for(heard(init), 30) == b"WATCHDOG=1"
            await core.turn()


async def test_it_is_told_no_more_while_a_turn_hangs(init: socket.socket, core: CoreLoop) -> None:
    go_on = threading.Event()
    hanging = asyncio.create_task(core.in_turn(lambda: go_on.wait(30)))
    try:
        async with fed(core):
            # A few times it is still in time; then it is silent.
            with contextlib.suppress(TimeoutError):
                for _ in range(10):
                    await asyncio.wait_for(heard(init), 1)
                pytest.fail("it is told all the same")
            go_on.set()
            await hanging
            assert await asyncio.wait_for(heard(init), 30) == b"WATCHDOG=1"
    finally:
        go_on.set()


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [
        ("30000000", "", 30.0),
        ("30000000", str(os.getpid()), 30.0),
        ("30000000", "1", None),
        ("0", "", None),
        ("", "", None),
        ("soon", "", None),
    ],
    ids=["all", "this-process", "another-process", "none", "empty", "odd"],
)
def test_knows_whether_a_watchdog_listens(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, seconds: float | None
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", pid)
    assert init_system.watchdog_seconds() == seconds
