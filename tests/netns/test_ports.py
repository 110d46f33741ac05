"""The SNAT ports: connections whose own ports collide, and what else arrives at these ports."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until
from llb_core.health.source_ports import SourcePorts
from tests.netns.conftest import BOTH_FAMILIES, balancing

pytestmark = [pytest.mark.netns, BOTH_FAMILIES]

NUMBER = 3_400
ANY = {4: "0.0.0.0", 6: "::"}
SHORT = "timeouts = { closed = '1s', closing = '1s' }"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[lab.Balancer]:
    """A lab with three clients, that is served by services with an address of each family.

    Backends are not checked: where thousands open connections at once, some answer late.
    """
    folder = tmp_path_factory.mktemp("ports")
    with (
        Network() as network,
        balancing(
            network, folder, clients=3, families=(4, 6), service=SHORT, health='type = "none"'
        ) as made,
    ):
        yield made


@pytest.fixture
def hosts(served: lab.Balancer, family: int) -> lab.Lab:
    """The same, spoken of in the test's family."""
    return served.lab.of(family)


def test_ten_thousand_connections_with_the_same_source_ports_stay_apart(hosts: lab.Lab) -> None:
    """Over IPv4 with ports that could stay what they are on the backends' side, over IPv6 not."""
    first = {4: 20_000, 6: 40_000}[hosts.family]
    script = Path(__file__).with_name("many.py")
    runs = [
        client.start(
            *(sys.executable, "-I", "-S", script, hosts.vip, str(lab.PORT)),
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


def test_clients_with_the_same_port_reach_the_same_backend_apart(hosts: lab.Lab) -> None:
    """Four ports, of three clients each, are more pairs than there are backends."""
    first = 30_000 + 10 * hosts.family  # IPv4's are in TIME_WAIT.
    ports = range(first, first + 4)
    with ExitStack() as stack:
        words = {}
        for number, client in enumerate(hosts.clients):
            for port in ports:
                sock = stack.enter_context(client.socket(family=hosts.family))
                sock.bind((ANY[hosts.family], port))
                sock.connect((hosts.vip, lab.PORT))
                words[sock] = f"{number}-{port}"
        for turn in range(2):
            for sock, word in words.items():
                assert say(sock, f"{word}-{turn}") == f"{word}-{turn}"


@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM], ids=["tcp", "udp"])
def test_what_backends_send_to_a_snat_port_of_nobody_is_dropped_and_counted(
    served: lab.Balancer, hosts: lab.Lab, kind: socket.SocketKind
) -> None:
    before = dropped(served)
    with hosts.backends[0].host.socket(kind, hosts.family) as sock:
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):  # not refused: nobody answers
            call(sock, (hosts.addresses.backend(1), 20_000))
    after = dropped(served)
    risen = {name for name, number in after.items() if number > before.get(name, 0)}
    assert risen == {"drop_unknown_answer"}


def call(sock: socket.socket, address: tuple[str, int]) -> bytes:
    sock.connect(address)
    sock.send(b"?")
    return sock.recv(1)


def test_the_hosts_own_sockets_among_the_snat_ports_keep_working(hosts: lab.Lab) -> None:
    backend, family, own = hosts.backends[0], hosts.family, hosts.addresses.backend(1)
    with (
        hosts.lb.socket(family=family) as listener,
        backend.host.socket(family=family) as caller,
    ):
        listener.bind((own, 9100))  # as a node exporter would
        listener.listen()
        caller.connect((own, 9100))
        served, _ = listener.accept()
        with served:
            caller.send(b"scrape")
            assert served.recv(10) == b"scrape"
    with (
        hosts.lb.socket(socket.SOCK_DGRAM, family) as server,
        backend.host.socket(socket.SOCK_DGRAM, family) as one,
    ):
        server.bind((own, 8125))
        one.sendto(b"count", (own, 8125))
        payload, sender = server.recvfrom(10)
        server.sendto(payload, sender)
        assert one.recv(10) == b"count"
    with hosts.lb.socket(family=family) as outgoing:  # from a port among them
        outgoing.bind((own, 25_000))
        outgoing.connect((backend.address, lab.BACKEND_PORT))
        assert say(outgoing, "own") == "own"


@pytest.mark.parametrize("chosen_by_kernel", [True, False], ids=["by the kernel", "by itself"])
def test_a_health_check_leaves_from_the_ports_that_it_is_given(
    hosts: lab.Lab, chosen_by_kernel: bool
) -> None:
    ports = SourcePorts((40_000, 40_015), chosen_by_kernel=chosen_by_kernel)
    backend = hosts.backends[0]
    for _ in range(10):
        with hosts.lb.socket(family=hosts.family) as probe:
            # Closed by a reset: one in TIME_WAIT would hold its port against the next.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            ports.bind(probe)
            probe.connect((backend.address, lab.BACKEND_PORT))
            assert 40_000 <= probe.getsockname()[1] <= 40_015


def test_connections_that_have_ended_leave_the_tables(served: lab.Balancer, hosts: lab.Lab) -> None:
    hosts.client.run("curl", "-sSf", *[hosts.url] * 5, "-H", "Connection: close")
    own = {each.endpoint for each in hosts.backends}

    def staying() -> int:
        known = served.control.get("/backends")["backends"]
        return sum(each["connections"] for each in known if each["backend"] in own)

    wait_until(lambda: staying() == 0, lab.LIMIT, "the tables are empty")


def say(sock: socket.socket, word: str) -> str:
    """Have the other end say a word."""
    sock.send(f"GET /say/{word} HTTP/1.1\r\n\r\n".encode())
    return sock.recv(1000).rsplit(b"\r\n", 1)[1].decode()


def dropped(balancer: lab.Balancer) -> dict[str, int]:
    """The packets dropped so far, by the name of the reason."""
    verdicts: dict[str, int] = balancer.control.get("/status")["verdicts"]
    return {name: number for name, number in verdicts.items() if "drop" in name.lower()}
