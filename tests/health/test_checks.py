"""What a single check makes of real sockets."""

from __future__ import annotations

import asyncio
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from llb_core.demo.network import Network
from llb_core.health.checks import Check, HttpQuestion, Inconclusive, Outcome, Probe, Target
from llb_core.health.poller import Poller
from llb_core.health.sockets import Sockets
from llb_core.health.source_ports import SourcePorts, source_ports
from llb_core.health.state import CheckResult
from llb_core.model import Endpoint
from tests.health.servers import LOOPBACK, answering, refusing, silent
from tests.waiting import until

PORTS = source_ports((1024, 32767))
UNREACHABLE = """
table ip filter {
    chain output {
        type filter hook output priority 0
        ip daddr 127.0.0.9 tcp flags syn reject with icmp host-unreachable
    }
}
"""


@contextmanager
def asking(ports: SourcePorts = PORTS) -> Iterator[Sockets]:
    """What a probe needs."""
    poller = Poller(asyncio.get_running_loop())
    sockets = Sockets(ports, poller)
    yield sockets
    sockets.close()
    poller.close()


async def ask(target: Endpoint, check: Check, ports: SourcePorts = PORTS) -> Outcome:
    loop = asyncio.get_running_loop()
    end: asyncio.Future[Outcome] = loop.create_future()
    with asking(ports) as sockets:
        Probe(sockets, Target(target, check), loop.time(), lambda _, each: end.set_result(each))
        return await asyncio.wait_for(end, check.timeout + 2)


def http(**question: object) -> Check:
    return Check(1.0, HttpQuestion(**question))  # type: ignore[arg-type]


async def test_tcp_check_succeeds_where_somebody_listens() -> None:
    async with answering() as backend:
        assert await ask(backend.endpoint, Check(1.0)) == CheckResult(True)


async def test_the_server_sees_nothing_of_a_tcp_check() -> None:
    """It is undone before its handshake ends; the first that is accepted came after it."""
    with socket.create_server((str(LOOPBACK), 0)) as server:
        target = Endpoint(LOOPBACK, server.getsockname()[1])
        assert await ask(target, Check(1.0)) == CheckResult(True)
        with socket.create_connection(server.getsockname()) as client:
            accepted, peer = server.accept()
            accepted.close()
            assert peer == client.getsockname()


@pytest.mark.parametrize("check", [Check(1.0), http()], ids=["tcp", "http"])
async def test_a_refused_connection_is_said_to_be_one(check: Check) -> None:
    with refusing() as target:
        assert await ask(target, check) == CheckResult(False, "connection refused")


@pytest.mark.root
async def test_what_a_router_says_of_one_host_is_held_against_no_other(tmp_path: Path) -> None:
    """The kernel keeps an ICMP error with the socket, for whoever reads its queue of errors."""
    loop = asyncio.get_running_loop()
    with Network() as network, (host := network.add("host")).entered(), asking() as sockets:
        (tmp_path / "rules").write_text(UNREACHABLE)
        host.run("nft", "-f", tmp_path / "rules")

        async def outcome(address: str) -> Outcome:
            target = Target(Endpoint(ip_address(address), server.getsockname()[1]), Check(1.0))
            end: asyncio.Future[Outcome] = loop.create_future()
            Probe(sockets, target, loop.time(), lambda _, each: end.set_result(each))
            return await end

        with socket.create_server(("127.0.0.1", 0)) as server:
            assert await outcome("127.0.0.1") == CheckResult(True)
            assert await outcome("127.0.0.9") == CheckResult(False, "no route to host")
            assert await outcome("127.0.0.1") == CheckResult(True)


@pytest.mark.root
async def test_a_route_that_is_a_blackhole_is_named() -> None:
    """The kernel's own word for it is "invalid argument"."""
    with Network() as network, (host := network.add("host")).entered():
        host.ip("route add blackhole 192.0.2.7/32")
        outcome = await ask(Endpoint(ip_address("192.0.2.7"), 80), Check(1.0))
    assert outcome == CheckResult(False, "no way there: its route is a blackhole")


async def test_what_a_host_says_before_it_is_asked_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    end: asyncio.Future[Outcome] = loop.create_future()

    def say(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            has_said.set()
            is_done.wait(30)

    has_said, is_done = threading.Event(), threading.Event()
    with asking() as sockets, socket.create_server((str(LOOPBACK), 0)) as server:
        at_once = sockets.poller.ask

        def late(call: Callable[[Any], Any], argument: Any, then: Callable[[Any], None]) -> None:
            """The answer is there when the connection is seen to have come about."""
            at_once(lambda each: (call(each), has_said.wait(30))[0], argument, then)

        monkeypatch.setattr(sockets.poller, "ask", late)
        talker = threading.Thread(target=say, args=(server,))
        talker.start()
        target = Target(Endpoint(LOOPBACK, server.getsockname()[1]), Check(20, HttpQuestion()))
        Probe(sockets, target, loop.time(), lambda _, each: end.set_result(each))
        assert await end == CheckResult(True)
        is_done.set()
        talker.join()


@pytest.mark.parametrize("question", [None, HttpQuestion()], ids=["tcp", "http"])
async def test_a_silent_host_fails_at_the_timeout(question: HttpQuestion | None) -> None:
    with silent() as target:
        started = time.monotonic()
        outcome = await ask(target, Check(0.2, question))
    assert outcome == CheckResult(False, "no answer within 200 ms")
    assert time.monotonic() - started < 30


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", CheckResult(True)),
        (b"HTTP/1.0 302 Found\r\n\r\n", CheckResult(True)),
        (b"HTTP/1.1 204\r\n\r\n", CheckResult(True)),
        (b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\n", CheckResult(True)),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(200_000), CheckResult(True)),
        (b"HTTP/1.1 503 No\r\n\r\n", CheckResult(False, "status 503, not 200-399")),
        (b"SSH-2.0-x\r\n", CheckResult(False, "not an HTTP answer: 'SSH-2.0-x'")),
        (b"HTTP/1.1 2000 OK\r\n", CheckResult(False, "not an HTTP answer: 'HTTP/1.1 2000 OK'")),
        (b"HTTP/1.1 200 OK\r\n\r\n" + bytes(8192 - 19), CheckResult(True)),
        (b"", CheckResult(False, "closed without an HTTP answer")),
        (b"HTTP/1.1", CheckResult(False, "closed without an HTTP answer, after 'HTTP/1.1'")),
    ],
    ids=[
        "200",
        "302",
        "no phrase",
        "interim",
        "long",
        "503",
        "not HTTP",
        "no status",
        "as much as is read at once",
        "none",
        "cut",
    ],
)
async def test_http_check_judges_by_the_status(answer: bytes, expected: CheckResult) -> None:
    async with answering(answer) as backend:
        assert await ask(backend.endpoint, http()) == expected


async def test_http_check_asks_for_path_and_host() -> None:
    async with answering() as backend:
        await ask(backend.endpoint, http(path="/healthz?full=1", host="web.example"))
        (request,) = backend.requests
    assert request.startswith(b"GET /healthz?full=1 HTTP/1.1\r\nHost: web.example\r\n")


async def test_http_check_takes_the_statuses_that_it_is_told() -> None:
    async with answering(b"HTTP/1.1 401 Unauthorized\r\n\r\n") as backend:
        outcomes = [
            await ask(backend.endpoint, http(statuses=statuses))
            for statuses in (((200, 299), (401, 401)), ((200, 299), (404, 404)))
        ]
    assert outcomes == [CheckResult(True), CheckResult(False, "status 401, not 200-299, 404")]


async def test_a_trickling_answer_is_bound_by_the_timeout() -> None:
    async def trickle(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(40):
            writer.write(b"H")
            await asyncio.sleep(0.05)
        writer.close()

    async with await asyncio.start_server(trickle, "127.0.0.1", 0) as server:
        target = Endpoint(LOOPBACK, server.sockets[0].getsockname()[1])
        assert await ask(target, Check(0.2, HttpQuestion())) == CheckResult(
            False, "no answer within 200 ms"
        )


async def test_probes_keep_clear_of_the_snat_ports() -> None:
    ports = source_ports((30000, 60000))
    low, high = ports.ports
    async with answering() as backend:
        for _ in range(20):
            await ask(backend.endpoint, http(), ports)
        assert all(low <= port <= high for port in backend.ports)
        assert not any(30000 <= port <= 60000 for port in backend.ports)


async def test_says_nothing_of_a_backend_when_this_host_has_no_sockets_left() -> None:
    loop = asyncio.get_running_loop()
    outcomes: list[Outcome] = []
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with refusing() as target, asking() as sockets:
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        try:
            Probe(
                sockets,
                Target(target, Check(1.0)),
                loop.time(),
                lambda _, each: outcomes.append(each),
            )
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        await until(lambda: outcomes)
    assert outcomes == [Inconclusive("too many open files")]


async def test_says_nothing_of_a_backend_when_this_process_stood_still() -> None:
    with silent() as target:
        loop = asyncio.get_running_loop()
        loop.call_later(0.01, time.sleep, 0.5)  # As SIGSTOP, or a host without a free processor.
        outcome = await ask(target, Check(0.2))
    assert isinstance(outcome, Inconclusive)


async def test_a_cancelled_probe_stays_quiet() -> None:
    outcomes: list[Outcome] = []
    loop = asyncio.get_running_loop()
    with refusing() as target, asking() as sockets:
        probe = Probe(
            sockets,
            Target(target, Check(0.05)),
            loop.time(),
            lambda _, outcome: outcomes.append(outcome),
        )
        probe.cancel()
        await ask(target, Check(0.2))
    assert outcomes == []
