"""Real programs through the VIP: curl, iperf3 with the default offloads, datagrams."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Network, Process, stop, wait_until
from tests.netns.conftest import BOTH_FAMILIES, balancing

pytestmark = [pytest.mark.netns, BOTH_FAMILIES]

IPERF_PORT = 5201
IPERF = f"""
[services.iperf]
address = {json.dumps([each.vip for each in lab.ADDRESSES.values()])}
port = {IPERF_PORT}
provider = {{ name = "static", path = "iperf.toml" }}
health = {{ type = "none" }}
"""


@pytest.fixture(scope="module", params=[False, True], ids=["two-arm", "one-arm"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[lab.Lab]:
    """A lab that is served by services with an address of each family."""
    folder = tmp_path_factory.mktemp("traffic")
    lines = [
        f'[[backends]]\naddress = "{each.backend(11)}"\nport = {IPERF_PORT}\n'
        for each in lab.ADDRESSES.values()
    ]
    (folder / "iperf.toml").write_text("".join(lines))
    with (
        Network() as network,
        balancing(network, folder, one_arm=request.param, families=(4, 6), extra=IPERF) as made,
    ):
        yield made.lab


@pytest.fixture
def hosts(served: lab.Lab, family: int) -> lab.Lab:
    """The same, spoken of in the test's family."""
    return served.of(family)


def test_curl_reaches_every_backend_through_the_vip(hosts: lab.Lab) -> None:
    answers: Counter[str] = Counter()
    new_each = ("curl", "-sSf", "-H", "Connection: close")
    answers.update(hosts.client.run(*new_each, *[hosts.url] * 100).stdout.split())
    assert answers.total() == 100
    assert set(answers) == {"b1", "b2", "b3"}


def test_a_large_answer_arrives_whole(hosts: lab.Lab) -> None:
    size = 50_000_000
    done = hosts.client.run("curl", "-sSf", "-o", "/dev/null", "-w", "%{size_download}",
                            f"{hosts.url}bytes/{size}")  # fmt: skip
    assert int(done.stdout) == size


@pytest.mark.parametrize("direction", ["to the backend", "to the client"])
def test_iperf3_goes_through_with_the_default_offloads(hosts: lab.Lab, direction: str) -> None:
    server = start_iperf(hosts)
    size = 200 * 1024 * 1024
    command = ["iperf3", "--client", hosts.vip, "--bytes", str(size), "--json"]
    if direction == "to the client":
        command.append("--reverse")
    end = json.loads(hosts.client.run(*command).stdout)["end"]
    assert end["sum_sent"]["bytes"] >= size
    # The receiver stops counting when it hears that the sender has ended, at full speed.
    assert end["sum_received"]["bytes"] >= 0.9 * size
    stop(server)


@pytest.mark.parametrize("direction", ["to the backend", "to the client"])
def test_every_byte_arrives_as_it_was_sent(hosts: lab.Lab, direction: str) -> None:
    backend, family = hosts.backends[0], hosts.family
    payload = random.Random(1).randbytes(30_000_001)
    with (
        backend.host.socket(family=family) as listener,
        hosts.client.socket(family=family) as client,
    ):
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((backend.address, IPERF_PORT))
        listener.listen()
        client.connect((hosts.vip, IPERF_PORT))
        server, (address, *_) = listener.accept()
        with server:
            ends = (client, server) if direction == "to the backend" else (server, client)
            received = transfer(*ends, payload)
    assert address == hosts.addresses.backend(1)  # full NAT: the backend sees the load balancer
    assert received == payload


def transfer(sender: socket.socket, receiver: socket.socket, payload: bytes) -> bytes:
    """Send the payload and close; give what arrived at the other end."""

    def send() -> None:
        sender.sendall(payload)
        sender.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    received = bytearray()
    while chunk := receiver.recv(1 << 20):
        received += chunk
    thread.join()
    return bytes(received)


def start_iperf(hosts: lab.Lab) -> Process:
    host = hosts.backends[0].host
    server = host.start("iperf3", "--server", stdout=subprocess.DEVNULL)
    wait_until(lambda: ":5201 " in host.run("ss", "-ltn").stdout, lab.LIMIT, "iperf3 listens")
    return server


def test_datagrams_of_a_flow_stay_with_one_backend_and_flows_are_shared_out(
    hosts: lab.Lab,
) -> None:
    chosen: Counter[str] = Counter()
    for _ in range(60):
        with hosts.client.socket(socket.SOCK_DGRAM, hosts.family) as sock:
            sock.connect((hosts.vip, lab.UDP_PORT))
            answers = set()
            for number in range(5):
                payload = b"x" * 100 * number + b"!"
                sock.send(payload)
                name, _, echo = sock.recv(2000).partition(b" ")
                assert echo == payload
                answers.add(name.decode())
            assert len(answers) == 1
            chosen.update(answers)
    assert set(chosen) == {"b1", "b2", "b3"}


def test_the_vip_answers_pings_and_refuses_where_no_service_is(hosts: lab.Lab) -> None:
    hosts.client.run("ping", "-c1", "-W2", hosts.vip)
    url = f"http://{lab.endpoint(hosts.vip, 81)}/"
    refused = hosts.client.run("curl", "-sS", url, check=False)
    assert refused.returncode == 7  # could not connect: at once, not by a time-out


def test_a_backend_that_is_a_client_of_a_vip_is_balanced(hosts: lab.Lab) -> None:
    backend = hosts.backends[0].host
    names = {backend.run("curl", "-sSf", hosts.url).stdout.strip() for _ in range(30)}
    assert names == {"b1", "b2", "b3"}
