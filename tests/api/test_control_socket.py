"""Both ends of the control socket, on a real one."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import pwd
import socket
import stat
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, UnixConnector
from aiohttp.test_utils import TestClient, TestServer

from llb_core.api import client
from llb_core.api.client import Client
from llb_core.api.page.live import Look
from llb_core.api.routes import WRITES, View
from llb_core.api.server import BODY_BYTES, application, serving
from llb_core.ending import Ended
from llb_core.errors import (
    ConfigurationError,
    DaemonUnreachable,
    HostError,
    LLBError,
    MapError,
    NotCarriedOut,
)
from llb_core.model import Endpoint, Order, OrderKind, ServiceBackend
from llb_core.orders import Selection, parse_endpoint

WEB = ("web", Endpoint(Selection.parse("10.0.0.2").address, 8080))
ME = pwd.getpwuid(os.getuid()).pw_name


class Daemon:
    """Answers as the daemon does, and remembers the orders."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.given: list[Order] = []
        self.reloads: list[bool] = []
        self.killed: list[object] = []

    async def status(self) -> View:
        if self.failure:
            raise self.failure
        return {"name": "llb"}

    async def backends(self) -> View:
        return {"backends": []}

    async def metrics(self) -> bytes:
        return b"llb_connections 3\n" * 1000

    async def page(self, look: Look) -> bytes:
        return str(look).encode()

    async def plan(self) -> View:
        return {"changes": []}

    async def order(self, selection: Selection, order: Order) -> frozenset[ServiceBackend]:
        self.given.append(order)
        return selection.of({WEB})

    async def take_back(
        self, selection: Selection, kind: OrderKind, by: str, why: str
    ) -> frozenset[ServiceBackend]:
        self.given.append(Order(kind, by, why=why))
        return selection.of({WEB})

    async def kill_of_client(
        self, client: Endpoint, vip: Endpoint | None, by: str, why: str
    ) -> Ended:
        self.killed.append((client, vip, by, why))
        return Ended()

    async def kill_of_backend(self, selection: Selection, by: str, why: str) -> Ended:
        self.killed.append((selection, by, why))
        return Ended()

    async def reload(self, *, dry_run: bool) -> View:
        self.reloads.append(dry_run)
        of: dict[str, list[str]] = {"settings": [], "changes": [], "complaints": []}
        return {"source": "daemon", "is_applied": not dry_run, **of}


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


async def raw(path: Path, resource: str, body: bytes) -> tuple[int, Any]:
    """Send a body as it stands, and return status and answer."""
    async with (
        ClientSession(connector=UnixConnector(str(path))) as session,
        session.post(f"http://llb{resource}", data=body) as answer,
    ):
        return answer.status, await answer.json()


async def test_answers_what_is_asked(daemon: Daemon, path: Path) -> None:
    client = Client(path)
    assert await ask(client.get, "/status") == {"name": "llb"}
    assert await ask(client.get, "/backends") == {"backends": []}
    assert await ask(client.get, "/plan") == {"changes": []}


@pytest.mark.parametrize(
    ("word", "arguments", "kind"),
    [
        ("drain", {}, OrderKind.DRAIN),
        ("undrain", {}, OrderKind.DRAIN),
        ("disable", {}, OrderKind.DISABLE),
        ("enable", {}, OrderKind.DISABLE),
        ("weight", {"weight": 7}, OrderKind.WEIGHT),
        ("weight", {"weight": None}, OrderKind.WEIGHT),
    ],
)
async def test_carries_an_order_with_who_and_why(
    daemon: Daemon, path: Path, word: str, arguments: dict[str, object], kind: OrderKind
) -> None:
    answer = await ask(
        Client(path).post, f"/{word}", backend="10.0.0.2", service="web", why="rack 7", **arguments
    )
    assert answer == {
        "order": word,
        "backends": [{"service": "web", "backend": "10.0.0.2:8080"}],
    }
    (order,) = daemon.given
    assert (order.kind, order.by, order.why) == (kind, ME, "rack 7")
    assert order.weight == arguments.get("weight")


async def test_notes_when_and_until_when(daemon: Daemon, path: Path) -> None:
    before = time.time()
    await ask(Client(path).post, "/drain", backend="10.0.0.2", deadline=300)
    (order,) = daemon.given
    assert order.at is not None
    assert before <= order.at <= time.time()
    assert order.deadline == pytest.approx(order.at + 300)


async def test_root_may_name_whom_it_acts_for(daemon: Daemon, path: Path) -> None:
    await ask(Client(path).post, "/drain", backend="10.0.0.2", sudo_user="alice")
    assert daemon.given[0].by == (f"{ME} for alice" if os.getuid() == 0 else ME)


@pytest.mark.root
async def test_nobody_but_root_may_name_whom_it_acts_for(daemon: Daemon, path: Path) -> None:
    """The kernel says who asks: what an ordinary user claims counts for nothing."""
    await ask(os.chmod, path, 0o666)
    for folder in (path.parent, *path.parent.parents):
        if folder.stat().st_uid == os.getuid() and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o011)
    body = json.dumps({"backend": "10.0.0.2", "sudo_user": "root"})
    url = ("--unix-socket", str(path), "http://llb/drain", "--data", body)
    nobody = ("setpriv", "--reuid=65534", "--clear-groups")
    done = await asyncio.create_subprocess_exec(*nobody, "curl", "-sS", "--fail", *url)
    assert await done.wait() == 0
    assert daemon.given[0].by == pwd.getpwuid(65534).pw_name


async def test_kills_by_client_or_by_backend(daemon: Daemon, path: Path) -> None:
    client, vip = "198.51.100.7:40000", "203.0.113.10:80"
    answer = await ask(Client(path).post, "/kill", client=client, vip=vip, why="rack 7")
    assert answer == {"ended": 0, "reset": 0, "connections": []}
    await ask(Client(path).post, "/kill", client="[2001:db8::7]:40000")
    await ask(Client(path).post, "/kill", backend="10.0.0.2", service="web")
    assert daemon.killed == [
        (parse_endpoint(client), parse_endpoint(vip), ME, "rack 7"),
        (parse_endpoint("[2001:db8::7]:40000"), None, ME, ""),
        (Selection.parse("10.0.0.2", "web"), ME, ""),
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "name a client or a backend, one of them"),
        ({"client": "1.2.3.4:5", "backend": "10.0.0.2"}, "one of them"),
        ({"client": "1.2.3.4"}, '"1.2.3.4" is not an address and port'),
        ({"client": "x:5"}, '"x:5" is not an address and port'),
        ({"client": "1.2.3.4:5", "service": "web"}, "service: goes with a backend"),
        ({"backend": "10.0.0.2", "vip": "1.2.3.4:5"}, "vip: goes with a client"),
    ],
    ids=["none", "both", "no port", "no address", "service", "vip"],
)
async def test_refuses_to_kill_what_is_not_named(
    daemon: Daemon, path: Path, arguments: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        await ask(Client(path).post, "/kill", **arguments)
    assert not daemon.killed


async def test_reloads_or_shows_what_that_would_change(daemon: Daemon, path: Path) -> None:
    assert (await ask(Client(path).post, "/reload"))["is_applied"] is True
    assert (await ask(Client(path).post, "/reload", dry_run=True))["is_applied"] is False
    assert daemon.reloads == [False, True]


async def test_an_order_for_a_backend_that_nobody_knows_is_the_callers_fault(
    daemon: Daemon, path: Path
) -> None:
    with pytest.raises(ConfigurationError, match=r"no service has a backend 10\.0\.0\.9:80"):
        await ask(Client(path).post, "/drain", backend="10.0.0.9:80")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "^backend: is missing$"),
        ({"backend": 7}, "^backend: 7 is not a string$"),
        ({"backend": "10.0.0.2:99999"}, '"10.0.0.2:99999" is not a backend'),
        ({"backend": "10.0.0.2", "service": 7}, "^service: 7 is not a string$"),
        ({"backend": "10.0.0.2", "path": "/etc/shadow"}, "^path: unknown key"),
        ({"backend": "10.0.0.2", "why": "a\nb"}, "not one line"),
        ({"backend": "10.0.0.2", "deadline": 0}, "deadline: 0 is not more than 0"),
        ({"backend": "10.0.0.2", "sudo_user": "a b"}, "sudo_user"),
    ],
    ids=[
        "none",
        "not text",
        "no endpoint",
        "service not text",
        "unknown key",
        "two lines",
        "no time",
        "no user",
    ],
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


async def test_what_stands_and_is_not_carried_out_yet_is_told_apart_from_what_failed(
    daemon: Daemon, path: Path
) -> None:
    daemon.failure = NotCarriedOut("the order stands: it is tried again")
    with pytest.raises(NotCarriedOut, match=r"^the order stands: it is tried again$"):
        await ask(Client(path).get, "/status")


async def test_an_unforeseen_failure_is_told_too(daemon: Daemon, path: Path) -> None:
    daemon.failure = ZeroDivisionError("oh")
    with pytest.raises(LLBError, match=r"ZeroDivisionError\('oh'\): see the log"):
        await ask(Client(path).get, "/status")


async def test_says_so_where_there_is_no_such_resource(daemon: Daemon, path: Path) -> None:
    with pytest.raises(ConfigurationError, match="GET /nothing: Not Found"):
        await ask(Client(path).get, "/nothing")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"backend": NaN}', b"[" * 10000], ids=repr
)
async def test_a_body_that_is_no_request_is_refused(
    daemon: Daemon, path: Path, body: bytes
) -> None:
    status, answer = await raw(path, "/drain", body)
    assert status == 400
    assert set(answer) == {"error"}
    assert not daemon.given


@pytest.mark.parametrize(
    "request_",
    [
        b"POST /drain HTTP/1.1\r\nHost: l\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\n{",
        b"POST /drain HTTP/1.1\r\nHost: llb\r\nContent-Length: -1\r\n\r\n",
        b"GET /status HTTP/9.9\r\n\r\n",
        b"GET /status HTTP/1.1\r\n" + b"X: y\r\n" * 500 + b"\r\n",
    ],
    ids=["not compressed", "length", "version", "headers"],
)
async def test_a_request_that_cant_be_read_is_refused_and_fills_no_log(
    daemon: Daemon, path: Path, request_: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(request_)
    status = await asyncio.wait_for(reader.readline(), 5)
    assert status.split()[1] == b"400"
    writer.close()
    assert await ask(Client(path).get, "/status")
    assert not caplog.records
    assert not daemon.given


async def test_a_body_that_is_too_large_is_refused(daemon: Daemon, path: Path) -> None:
    status, answer = await raw(path, "/drain", b'{"backend": "' + b"1" * BODY_BYTES + b'"}')
    assert (status, list(answer)) == (413, ["error"])
    assert not daemon.given


async def test_a_body_that_never_comes_is_not_waited_for(path: Path) -> None:
    daemon = Daemon()
    async with serving(path, daemon, body_seconds=0.05):
        reader, writer = await asyncio.open_unix_connection(path)
        writer.write(b"POST /drain HTTP/1.1\r\nHost: llb\r\nContent-Length: 100\r\n\r\n{")
        status = await asyncio.wait_for(reader.readline(), 5)
        assert status.startswith(b"HTTP/1.1 408 ")
        assert await asyncio.wait_for(reader.read(), 5), "and the connection ends"
        writer.close()
    assert not daemon.given


async def test_what_changes_something_is_not_there_for_those_who_may_only_read(
    tmp_path: Path,
) -> None:
    """What is served over TCP is this: there is no way to a resource that writes."""
    daemon = Daemon()
    async with TestClient(TestServer(application(daemon, may_write=False))) as client:
        assert (await client.get("/status")).status == 200
        for route in WRITES:
            for method in ("GET", "POST", "PUT", "PATCH", "DELETE"):
                for target in (route.path, route.path + "/", f"//{route.path}", f"/.{route.path}"):
                    answer = await client.request(method, target, json={"backend": "10.0.0.2"})
                    assert answer.status in (404, 405), (method, target)
    assert not daemon.given
    assert not daemon.reloads


@pytest.mark.root
async def test_the_socket_belongs_to_whom_the_configuration_names(path: Path) -> None:
    async with serving(path, Daemon(), owner="nobody", group="daemon"):
        found = await ask(path.stat)
        assert found.st_uid == pwd.getpwnam("nobody").pw_uid
        assert found.st_gid == grp.getgrnam("daemon").gr_gid
        assert stat.S_IMODE(found.st_mode) == 0o660


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"owner": "no-such-user"}, 'api.socket_owner: this host has no user "no-such-user"'),
        ({"group": "no-such-group"}, 'api.socket_group: this host has no group "no-such-group"'),
    ],
    ids=["owner", "group"],
)
async def test_an_owner_that_the_host_does_not_know_is_named(
    path: Path, names: dict[str, str], message: str
) -> None:
    with pytest.raises(HostError, match=message):
        async with serving(path, Daemon(), **names):
            pass


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


def test_waits_its_turn_where_many_ask(path: Path) -> None:
    """The queue is full: that is no sign that no daemon is there."""
    with socket.socket(socket.AF_UNIX) as busy, socket.socket(socket.AF_UNIX) as first:
        busy.bind(str(path))
        busy.listen(0)
        first.connect(str(path))
        with pytest.raises(DaemonUnreachable, match=r"did not answer within 0\.1 s"):
            Client(path, timeout=0.1).get("/status")


def test_tells_whoever_waits_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.01)
    told: list[str] = []
    with socket.socket(socket.AF_UNIX) as deaf:
        deaf.bind(str(path))
        deaf.listen()
        asking = Client(path, timeout=0.1, remark=told.append)
        for _ in range(2):
            with pytest.raises(DaemonUnreachable, match=r"did not answer within 0\.1 s"):
                asking.get("/status")
    assert told == ["the daemon has not answered yet: waiting up to 0.1 s"]


def test_an_answer_that_takes_long_comes_all_the_same(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PATIENCE", 0.01)
    with socket.socket(socket.AF_UNIX) as slow:
        slow.bind(str(path))
        slow.listen()

        def answer(_: str) -> None:
            """Answer once whoever asks has been told that it takes long."""
            with slow.accept()[0] as asked:
                asked.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        assert Client(path, timeout=30, remark=answer).get("/status") == {}
