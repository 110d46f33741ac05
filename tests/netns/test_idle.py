"""Connections that are idle beyond their time, on real sockets."""

from __future__ import annotations

import socket

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Namespace, wait_until
from tests.netns.conftest import Balance, shown

pytestmark = pytest.mark.netns

SERVICE = "reset_idle = true\n[services.web.timeouts]\nestablished = '{idle}'\n"


def ask(sock: socket.socket, word: str) -> str:
    """Have the backend say a word back, and keep the connection."""
    sock.sendall(f"GET /say/{word} HTTP/1.1\r\nHost: idle\r\n\r\n".encode())
    return sock.recv(1000).rsplit(b"\r\n", 1)[1].decode()


def established(backend: Namespace) -> int:
    """Count the connections of clients that the backend has open: from a SNAT port."""
    listed = backend.run(
        "ss", "-Htn", "state", "established",
        "sport", "=", f":{lab.BACKEND_PORT}", "and", "dport", "<", ":32768",
    )  # fmt: skip
    return len(listed.stdout.splitlines())


@pytest.mark.parametrize("family", [4, 6])
def test_idle_connection_is_reset_on_both_sides_where_the_service_says_so(
    balance: Balance, family: int
) -> None:
    balancer = balance(backends=1, family=family, service=SERVICE.format(idle="1h"))
    backend = balancer.lab.backends[0].host
    with balancer.lab.clients[0].socket(family=family) as sock:
        sock.settimeout(lab.LIMIT)
        sock.connect((balancer.lab.vip, lab.PORT))
        assert ask(sock, "first") == "first"
        assert established(backend) == 1
        balancer.write_config(service=SERVICE.format(idle="1s"))
        shown(balancer, "reload")

        with pytest.raises(ConnectionResetError):
            sock.recv(1)

        wait_until(lambda: established(backend) == 0, lab.LIMIT, "the backend has none open")


@pytest.mark.parametrize("family", [4, 6])
def test_connection_in_use_is_not_reset(balance: Balance, family: int) -> None:
    # Longer than any machine keeps a process from its turn.
    balancer = balance(backends=1, family=family, service=SERVICE.format(idle="4s"))
    client = balancer.lab.clients[0]
    with client.socket(family=family) as busy, client.socket(family=family) as idle:
        for sock in (busy, idle):
            sock.settimeout(lab.LIMIT)
            sock.connect((balancer.lab.vip, lab.PORT))
        idle.setblocking(False)

        def idle_is_reset() -> bool:
            assert ask(busy, "again") == "again"
            try:
                return idle.recv(1) == b""
            except BlockingIOError:
                return False
            except ConnectionResetError:
                return True

        wait_until(idle_is_reset, lab.LIMIT, "the other one is reset")
        assert ask(busy, "still") == "still"
