"""The ports that the host uses itself, from real sockets and sysctls."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from ipaddress import ip_address

import pytest

from llb_core.datapath import host_ports, rtnetlink
from llb_core.datapath.host_ports import ports_in_use

OURS = [ip_address("127.0.0.2"), ip_address("::1")]
_TCP, _UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


@contextmanager
def bound(address: str, kind: socket.SocketKind) -> Iterator[int]:
    """Bind a socket to a free port of an address; one over TCP listens."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as opened:
        opened.bind((address, 0))
        if kind is _TCP:
            opened.listen()
        yield opened.getsockname()[1]


@pytest.fixture(autouse=True)
def _no_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave sysctls out: free ports are taken from the very range that they name."""
    values = {host_ports.EPHEMERAL_PORTS: "1\t1", host_ports.RESERVED_PORTS: ""}
    monkeypatch.setattr(host_ports, "read_sysctl", values.__getitem__)


@pytest.fixture(params=["sock_diag", "proc"], autouse=True)
def _where_from(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every test read by sock_diag, and again as where the kernel lacks it."""
    if request.param == "proc":
        monkeypatch.setattr(rtnetlink, "SOCK_DIAG", 31)  # No such protocol.


def test_the_kernel_tells_of_its_listeners_at_once() -> None:
    with bound("127.0.0.2", _TCP) as port, bound("::1", _TCP) as port_6:
        there = {*host_ports._bound("tcp"), *host_ports._bound("tcp6")}
        assert {(ip_address("127.0.0.2"), port), (ip_address("::1"), port_6)} <= there
        assert {each for each in there if each[1] in (port, port_6)} == {
            each for each in host_ports._listening() if each[1] in (port, port_6)
        }


@pytest.mark.parametrize("kind", [_TCP, _UDP], ids=["tcp", "udp"])
@pytest.mark.parametrize("address", ["127.0.0.2", "0.0.0.0", "::1", "::"])
def test_port_with_a_socket_on_our_address_or_on_all_is_in_use(
    address: str, kind: socket.SocketKind
) -> None:
    with bound(address, kind) as port:
        assert port in ports_in_use(OURS)
    assert port not in ports_in_use(OURS)


@pytest.mark.parametrize("kind", [_TCP, _UDP], ids=["tcp", "udp"])
def test_port_with_a_socket_on_another_address_is_not(kind: socket.SocketKind) -> None:
    with bound("127.0.0.3", kind) as port:
        assert port not in ports_in_use(OURS)


def test_port_of_a_connection_is_not_in_use_by_a_listener() -> None:
    with ExitStack() as stack:
        port = stack.enter_context(bound("127.0.0.3", _TCP))
        caller = stack.enter_context(socket.socket())
        caller.bind(("127.0.0.2", 0))
        caller.connect(("127.0.0.3", port))
        assert caller.getsockname()[1] not in ports_in_use(OURS)


def test_ports_of_the_sysctls_are_in_use(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {
        host_ports.EPHEMERAL_PORTS: "32768\t60999",
        host_ports.RESERVED_PORTS: "8080,9000-9002",
    }
    monkeypatch.setattr(host_ports, "read_sysctl", values.__getitem__)

    found = ports_in_use(OURS)

    assert {8080, 9000, 9001, 9002, 32768, 60999} <= found
