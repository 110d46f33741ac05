"""Sockets are waited for, and never taken for each other."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator

import pytest

from llb_core.health.poller import Poller
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

        def told(_: int) -> None:
            if not happened:
                happened.append("written")
                poller.ask(ours.send, b"ping", lambda sent: happened.append(f"sent {sent}"))
            else:
                poller.ask(ours.recv, 10, lambda data: happened.append(f"{data!r}"))

        poller.add(ours.fileno())
        poller.wait(ours.fileno(), told)
        await until(lambda: len(happened) > 1)
        assert theirs.recv(10) == b"ping"
        theirs.send(b"pong")
        await until(lambda: len(happened) > 2)
        assert happened == ["written", "sent 4", "b'pong'"]


async def test_a_forgotten_socket_is_not_called_though_a_child_holds_it(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    called: list[str] = []
    with theirs, ours.dup():  # As a child that was just forked does.
        poller.add(ours.fileno())
        poller.wait(ours.fileno(), lambda _: called.append("ours"))
        poller.remove(ours.fileno())
        number = ours.fileno()
        ours.close()
        reading, writing = os.pipe()  # To which nothing happens.
        try:
            assert reading == number
            poller.add(number)
            poller.wait(number, lambda _: called.append("other"))
            poller.look()
            assert called == []
            poller.remove(number)
        finally:
            os.close(reading)
            os.close(writing)


async def test_tells_of_a_change_once_and_not_where_it_was_forgotten(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    called: list[str] = []
    with ours, theirs:
        for each, name in ((ours, "ours"), (theirs, "theirs")):
            poller.add(each.fileno())
            poller.wait(each.fileno(), lambda _, name=name: called.append(name))
        poller.forget(theirs.fileno())
        for _ in range(2):
            poller.look()
            assert called == ["ours"]
        theirs.send(b"more")
        poller.look()
        assert called == ["ours", "ours"]


async def test_one_call_that_fails_keeps_no_other_from_being_made(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        came_to: list[object] = []

        def fail(result: object) -> None:
            came_to.append(result)
            raise AssertionError("what it came to can't be taken up")

        theirs.close()
        poller.ask(ours.send, b"nobody hears it", fail)
        poller.ask(ours.recv, 10, came_to.append)
        poller.look()
    assert isinstance(came_to[0], BrokenPipeError)
    assert came_to[1] == b""


async def test_what_was_asked_is_done_before_the_end(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.ask(ours.send, b"bye", lambda _: None)
        poller.close()
        assert theirs.recv(10) == b"bye"


async def test_letting_go_after_the_end_is_harmless(poller: Poller) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        poller.add(ours.fileno())
        poller.wait(ours.fileno(), lambda _: None)
        poller.close()
        poller.forget(ours.fileno())
        poller.remove(ours.fileno())
