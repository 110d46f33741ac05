"""The SNAT ports: connections whose own ports collide, and what else arrives at these ports."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import wait_until
from tests.netns.conftest import Balance

pytestmark = pytest.mark.netns

NUMBER = 3_400


@pytest.mark.parametrize("first", [20_000, 40_000], ids=["own ports serve", "own ports don't"])
def test_ten_thousand_connections_with_the_same_source_ports_stay_apart(
    balance: Balance, first: int
) -> None:
    hosts = balance(clients=3).lab
    script = Path(__file__).with_name("many.py")
    runs = [
        client.start(
            *(sys.executable, "-I", "-S", script, lab.VIP, str(lab.PORT)),
            *(f"client{number}", str(first), str(NUMBER)),
            stdin=subprocess.PIPE,
            stderr=None,
        )
        for number, client in enumerate(hosts.clients)
    ]
    for run in runs:  # all are open before the first is asked
        assert run.stdout is not None
        assert run.stdout.readline() == "open\n"
    total: Counter[str] = Counter()
    for run in runs:
        assert run.stdin is not None
        run.stdin.write("\n")
        run.stdin.flush()
    for run in runs:
        assert run.stdout is not None
        result = json.loads(run.stdout.readline())
        assert result["errors"] == {}
        total.update(result["backends"])
    assert total.total() == 3 * NUMBER
    shares = [total[name] / (3 * NUMBER) for name in ("b1", "b2", "b3")]
    assert all(0.3 < share < 0.37 for share in shares)


def test_two_clients_with_the_same_port_reach_the_same_backend_apart(balance: Balance) -> None:
    hosts = balance(clients=2, backends=1).lab
    said = []
    with hosts.clients[0].socket() as one, hosts.clients[1].socket() as other:
        for sock in (one, other):
            sock.bind(("0.0.0.0", 30_000))
            sock.connect((lab.VIP, lab.PORT))
        for word, sock in (("one", one), ("other", other), ("one again", one)):
            sock.send(f"GET /say/{word.replace(' ', '-')} HTTP/1.1\r\n\r\n".encode())
            said.append(sock.recv(1000).rsplit(b"\r\n", 1)[1].decode())
    assert said == ["one", "other", "one-again"]


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_what_backends_send_to_a_snat_port_of_nobody_is_dropped_and_counted(
    balance: Balance, kind: socket.SocketKind
) -> None:
    balancer = balance()
    before = dropped(balancer)
    with balancer.lab.backends[0].host.socket(kind) as sock:
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):  # not refused: nobody answers
            call(sock, ("10.0.0.1", 20_000))
    after = dropped(balancer)
    risen = {name for name, number in after.items() if number > before.get(name, 0)}
    assert risen == {"drop_unknown_answer"}


def call(sock: socket.socket, address: tuple[str, int]) -> bytes:
    sock.connect(address)
    sock.send(b"?")
    return sock.recv(1)


def test_the_hosts_own_sockets_among_the_snat_ports_keep_working(balance: Balance) -> None:
    hosts = balance().lab
    backend = hosts.backends[0]
    with hosts.lb.socket() as listener, backend.host.socket() as caller:
        listener.bind(("10.0.0.1", 9100))  # as a node exporter would
        listener.listen()
        caller.connect(("10.0.0.1", 9100))
        served, _ = listener.accept()
        with served:
            caller.send(b"scrape")
            assert served.recv(10) == b"scrape"
    with (
        hosts.lb.socket(socket.SOCK_DGRAM) as server,
        backend.host.socket(socket.SOCK_DGRAM) as one,
    ):
        server.bind(("10.0.0.1", 8125))
        one.sendto(b"count", ("10.0.0.1", 8125))
        payload, sender = server.recvfrom(10)
        server.sendto(payload, sender)
        assert one.recv(10) == b"count"
    with hosts.lb.socket() as outgoing:  # from a port among them
        outgoing.bind(("10.0.0.1", 25_000))
        outgoing.connect((backend.address, lab.BACKEND_PORT))
        outgoing.send(b"GET /say/own HTTP/1.1\r\n\r\n")
        assert outgoing.recv(1000).endswith(b"own")


def test_connections_that_have_ended_leave_the_tables(balance: Balance) -> None:
    balancer = balance(service="timeouts = { closed = '1s', closing = '1s' }")
    client = balancer.lab.client
    client.run("curl", "-sSf", *[f"http://{lab.VIP}/"] * 5, "-H", "Connection: close")
    wait_until(
        lambda: balancer.control.get("/status")["connections"] == 0, 10, "the tables are empty"
    )


def dropped(balancer: lab.Balancer) -> dict[str, int]:
    """The packets dropped so far, by the name of the reason."""
    verdicts: dict[str, int] = balancer.control.get("/status")["verdicts"]
    return {name: number for name, number in verdicts.items() if "drop" in name.lower()}
