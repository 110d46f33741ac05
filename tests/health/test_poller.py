"""Sockets are waited for, and never taken for each other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from llb_core.health.poller import READABLE, WRITABLE, Poller
from tests.waiting import until


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    poller = Poller(asyncio.get_running_loop())
    yield poller
    poller.close()


async def test_calls_back_once_it_can_be_written_then_read(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        happened: list[str] = []

        def read(_: int) -> None:
            happened.append(ours.recv(10).decode())

        def write(_: int) -> None:
            happened.append("written")
            ours.send(b"ping")
            poller.wait(ours.fileno(), READABLE, read)

        poller.add(ours.fileno())
        poller.wait(ours.fileno(), WRITABLE, write)
        await until(lambda: happened)
        assert theirs.recv(10) == b"ping"
        theirs.send(b"pong")
        await until(lambda: len(happened) > 1)
        assert happened == ["written", "pong"]


async def test_a_forgotten_socket_is_not_called_though_a_child_holds_it(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    called: list[str] = []
    with theirs, ours.dup():  # As a child that was just forked does.
        poller.add(ours.fileno())
        poller.wait(ours.fileno(), WRITABLE, lambda _: called.append("ours"))
        poller.remove(ours.fileno())
        number = ours.fileno()
        ours.close()
        other, peer = socket.socketpair()
        with other, peer:
            assert other.fileno() == number
            poller.add(number)
            poller.wait(number, READABLE, lambda _: called.append("other"))
            with pytest.raises(AssertionError):
                await until(lambda: called, limit=0.1)


async def test_calls_once_and_not_where_it_was_forgotten(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    called: list[str] = []
    with ours, theirs:
        for each, name in ((ours, "ours"), (theirs, "theirs")):
            poller.add(each.fileno())
            poller.wait(each.fileno(), WRITABLE, lambda _, name=name: called.append(name))
        poller.forget(theirs.fileno())
        await until(lambda: called)
        with pytest.raises(AssertionError):
            await until(lambda: len(called) > 1, limit=0.1)
        assert called == ["ours"]


async def test_letting_go_after_the_end_is_harmless(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.add(ours.fileno())
        poller.wait(ours.fileno(), READABLE, lambda _: None)
        poller.close()
        poller.forget(ours.fileno())
        poller.remove(ours.fileno())
