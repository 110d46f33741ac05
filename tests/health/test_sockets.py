"""A socket asks one backend after another, and nothing of the one before is left."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from llb_core.health.poller import Poller
from llb_core.health.sockets import Sockets
from llb_core.health.source_ports import PortRange, SourcePorts
from tests.health.servers import refusing
from tests.waiting import until

PORTS: PortRange = (40_000, 40_999)
IPV4 = socket.AF_INET


@pytest.fixture
async def poller() -> AsyncIterator[Poller]:
    poller = Poller(asyncio.get_running_loop())
    yield poller
    poller.close()


@pytest.fixture
def sockets(poller: Poller) -> Sockets:
    return Sockets(SourcePorts(PORTS, chosen_by_kernel=True), poller)


async def connected(sockets: Sockets, sock: socket.SocketType, port: int) -> int:
    """Connect; return the error it came to."""
    happened: list[int] = []
    sock.connect_ex(("127.0.0.1", port))
    sockets.poller.wait(sock.fileno(), happened.append)
    await until(lambda: happened)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


def give_back(sockets: Sockets, sock: socket.SocketType) -> None:
    sockets.give_back(sock, IPV4)
    sockets.poller.look()


async def test_the_same_socket_asks_again_and_the_connection_before_was_reset(
    sockets: Sockets,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ports = []
        for _ in range(3):
            sock = sockets.take(IPV4)
            assert await connected(sockets, sock, server.getsockname()[1]) == 0
            sock.send(b"hello")
            accepted, (_, port) = server.accept()
            assert accepted.recv(5) == b"hello"
            give_back(sockets, sock)
            with accepted, pytest.raises(ConnectionResetError):
                accepted.recv(1)
            assert sockets.take(IPV4) is sock
            give_back(sockets, sock)
            ports.append(port)
    low, high = PORTS
    assert all(low <= port <= high for port in ports)
    with socket.socket() as other:
        other.bind(("127.0.0.1", ports[-1]))  # It holds no port while it is idle.


async def test_one_that_did_not_connect_is_not_kept(sockets: Sockets) -> None:
    sock = sockets.take(IPV4)
    with refusing() as target:
        assert await connected(sockets, sock, target.port) != 0
    sockets.drop(sock)
    assert sock.fileno() == -1
    assert sockets.take(IPV4) is not sock


async def test_an_idle_socket_wakes_nobody(sockets: Sockets) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        sock = sockets.take(IPV4)
        assert await connected(sockets, sock, server.getsockname()[1]) == 0
        happened: list[int] = []
        sockets.poller.wait(sock.fileno(), happened.append)
        give_back(sockets, sock)
        with pytest.raises(AssertionError):
            await until(lambda: happened, limit=0.1)


async def test_a_socket_that_is_bound_to_a_port_is_not_kept(poller: Poller) -> None:
    sockets = Sockets(SourcePorts(PORTS, chosen_by_kernel=False), poller)
    sock = sockets.take(IPV4)
    give_back(sockets, sock)
    assert sock.fileno() == -1


async def test_closed_it_keeps_none(sockets: Sockets) -> None:
    idle, in_use = sockets.take(IPV4), sockets.take(IPV4)
    give_back(sockets, idle)
    sockets.close()
    give_back(sockets, in_use)
    assert (idle.fileno(), in_use.fileno()) == (-1, -1)
