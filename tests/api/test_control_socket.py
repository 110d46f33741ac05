"""Both ends of the control socket, on a real one."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from llb_core.api.client import Client
from llb_core.api.server import View, serving
from llb_core.errors import ConfigurationError, DaemonUnreachable, LLBError, MapError
from llb_core.model import Endpoint
from llb_core.orders import Selection

KNOWN = frozenset({("web", Endpoint(Selection.parse("10.0.0.2").address, 8080))})


class Daemon:
    """Answers as the daemon does."""

    def __init__(self) -> None:
        self.failure: Exception | None = None

    async def status(self) -> View:
        if self.failure:
            raise self.failure
        return {"name": "llb"}

    async def backends(self) -> View:
        return {"backends": []}

    async def metrics(self) -> bytes:
        return b"llb_connections 3\n" * 1000

    async def plan(self) -> View:
        return {"changes": []}

    async def drain(self, selection: Selection) -> View:
        return {"drained": sorted(f"{name} {each}" for name, each in selection.of(KNOWN))}

    async def undrain(self, selection: Selection) -> View:
        return {"undrained": str(selection)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "llb.sock"


@pytest.fixture
async def daemon(path: Path) -> AsyncIterator[Daemon]:
    daemon = Daemon()
    async with serving(path, daemon):
        yield daemon


async def ask(call: Callable[..., Any], *args: object, **kwargs: object) -> Any:
    return await asyncio.to_thread(call, *args, **kwargs)


async def test_answers_what_is_asked(daemon: Daemon, path: Path) -> None:
    client = Client(path)
    assert await ask(client.get, "/status") == {"name": "llb"}
    assert await ask(client.get, "/backends") == {"backends": []}
    assert await ask(client.get, "/plan") == {"changes": []}


async def test_carries_an_order(daemon: Daemon, path: Path) -> None:
    answer = await ask(Client(path).post, "/drain", backend="10.0.0.2", service="web")
    assert answer == {"drained": ["web 10.0.0.2:8080"]}


async def test_an_order_for_a_backend_that_nobody_knows_is_the_callers_fault(
    daemon: Daemon, path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"no service has a backend 10\.0\.0\.9:80"):
        await ask(Client(path).post, "/drain", backend="10.0.0.9:80")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, 'names no "backend"'),
        ({"backend": 7}, 'names no "backend"'),
        ({"backend": "10.0.0.2:99999"}, '"10.0.0.2:99999" is not a backend'),
        ({"backend": "10.0.0.2", "service": 7}, '"service" is not the name'),
    ],
    ids=["none", "not text", "no endpoint", "service not text"],
)
async def test_refuses_an_order_that_is_none(
    daemon: Daemon, path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await ask(Client(path).post, "/drain", **arguments)


async def test_tells_what_failed_in_one_line(daemon: Daemon, path: Path) -> None:
    daemon.failure = MapError("backends: no space")
    with pytest.raises(LLBError, match=r"^backends: no space$"):
        await ask(Client(path).get, "/status")


async def test_an_unforeseen_failure_is_told_too(daemon: Daemon, path: Path) -> None:
    daemon.failure = ZeroDivisionError("oh")
    with pytest.raises(LLBError, match=r"ZeroDivisionError\('oh'\): see the log"):
        await ask(Client(path).get, "/status")


async def test_says_so_where_there_is_no_such_resource(daemon: Daemon, path: Path) -> None:
    with pytest.raises(ConfigurationError, match="GET /nothing: Not Found"):
        await ask(Client(path).get, "/nothing")


async def test_only_root_and_its_group_may_ask(daemon: Daemon, path: Path) -> None:
    assert stat.S_IMODE((await ask(path.stat)).st_mode) == 0o660


async def test_takes_the_place_of_a_socket_that_a_killed_daemon_left(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    async with serving(path, Daemon()):
        assert await ask(Client(path).get, "/status") == {"name": "llb"}


async def test_leaves_no_socket_behind(path: Path) -> None:
    async with serving(path, Daemon()):
        pass
    assert not await ask(path.exists)


@pytest.mark.parametrize("left_behind", [False, True], ids=["no socket", "a dead one"])
def test_says_that_no_daemon_answers(path: Path, left_behind: bool) -> None:
    if left_behind:
        with socket.socket(socket.AF_UNIX) as dead:
            dead.bind(str(path))
    with pytest.raises(DaemonUnreachable, match="no daemon answers: start one with llb run"):
        Client(path).get("/status")


def test_does_not_wait_for_ever(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        with pytest.raises(DaemonUnreachable, match=r"did not answer within 0\.1 s"):
            Client(path, timeout=0.1).get("/status")
