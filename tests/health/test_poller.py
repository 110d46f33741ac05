"""Sockets are waited for, and never taken for each other."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from functools import partial

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
            poller.wait_instead(ours.fileno(), READABLE, read)

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
        poller.wait(ours.fileno(), WRITABLE, lambda _: called.append("ours"))
        poller.forget(ours.fileno())
        number = ours.fileno()
        ours.close()
        other, peer = socket.socketpair()
        with other, peer:
            assert other.fileno() == number
            poller.wait(number, READABLE, lambda _: called.append("other"))
            with pytest.raises(AssertionError):
                await until(lambda: called, limit=0.1)


async def test_forgetting_twice_and_after_the_end_is_harmless(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.wait(ours.fileno(), READABLE, lambda _: None)
        poller.forget(ours.fileno())
        poller.forget(ours.fileno())
        poller.wait(ours.fileno(), READABLE, lambda _: None)
        poller.close()
        poller.forget(ours.fileno())


async def test_what_happens_after_a_long_silence_is_heard_again_and_again(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        heard: list[bytes] = []
        poller.wait(ours.fileno(), READABLE, lambda _: heard.append(ours.recv(10)))
        for count in (1, 2, 3):
            await until(lambda: poller._is_woken)
            theirs.send(b"word")
            await until(partial(_are, heard, count))


def _are(heard: list[bytes], count: int) -> bool:
    return len(heard) == count


async def test_a_socket_is_heard_beside_one_that_is_silent(poller: Poller) -> None:
    silent, its_peer = socket.socketpair()
    ours, theirs = socket.socketpair()
    with silent, its_peer, ours, theirs:
        heard: list[bytes] = []
        poller.wait(silent.fileno(), READABLE, lambda _: None)
        await until(lambda: poller._is_woken)
        poller.wait(ours.fileno(), READABLE, lambda _: heard.append(ours.recv(10)))
        theirs.send(b"one")
        await until(lambda: heard)
        poller.forget(ours.fileno())
        await until(lambda: poller._is_woken)


async def test_closing_while_something_is_waited_for_ends_the_looks(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.wait(ours.fileno(), WRITABLE, lambda _: poller.close())
        await until(lambda: poller._epoll.closed)
        await asyncio.sleep(0.01)  # A look at a closed epoll would be told as an error.
