"""Real programs through the VIP: curl, iperf3 with the default offloads, datagrams."""

from __future__ import annotations

import json
import random
import socket
import subprocess
import threading
from collections import Counter
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Process, wait_until
from tests.netns.conftest import Balance

pytestmark = pytest.mark.netns

URL = f"http://{lab.VIP}/"
TWO_AND_ONE_ARM = pytest.mark.parametrize("one_arm", [False, True], ids=["two-arm", "one-arm"])
IPERF = """
[services.iperf]
address = "203.0.113.10"
port = 5201
provider = { name = "static", path = "iperf.toml" }
health = { type = "none" }
"""


@TWO_AND_ONE_ARM
def test_curl_reaches_every_backend_through_the_vip(balance: Balance, one_arm: bool) -> None:
    hosts = balance(one_arm=one_arm).lab
    answers: Counter[str] = Counter()
    new_each = ("curl", "-sSf", "-H", "Connection: close")
    answers.update(hosts.client.run(*new_each, *[URL] * 100).stdout.split())
    assert answers.total() == 100
    assert set(answers) == {"b1", "b2", "b3"}


@TWO_AND_ONE_ARM
def test_a_large_answer_arrives_whole(balance: Balance, one_arm: bool) -> None:
    hosts = balance(one_arm=one_arm).lab
    size = 50_000_000
    done = hosts.client.run("curl", "-sSf", "-o", "/dev/null", "-w", "%{size_download}",
                            f"{URL}bytes/{size}")  # fmt: skip
    assert int(done.stdout) == size


@TWO_AND_ONE_ARM
@pytest.mark.parametrize("direction", ["to the backend", "to the client"])
def test_iperf3_goes_through_with_the_default_offloads(
    balance: Balance, tmp_path: Path, one_arm: bool, direction: str
) -> None:
    (tmp_path / "iperf.toml").write_text('[[backends]]\naddress = "10.0.0.11"\nport = 5201\n')
    hosts = balance(one_arm=one_arm, extra=IPERF).lab
    start_iperf(hosts)
    size = 200 * 1024 * 1024
    command = ["iperf3", "--client", lab.VIP, "--bytes", str(size), "--json"]
    if direction == "to the client":
        command.append("--reverse")
    end = json.loads(hosts.client.run(*command).stdout)["end"]
    assert end["sum_sent"]["bytes"] >= size
    # The receiver stops counting when it hears that the sender has ended, at full speed.
    assert end["sum_received"]["bytes"] >= 0.9 * size


@TWO_AND_ONE_ARM
@pytest.mark.parametrize("direction", ["to the backend", "to the client"])
def test_every_byte_arrives_as_it_was_sent(
    balance: Balance, tmp_path: Path, one_arm: bool, direction: str
) -> None:
    (tmp_path / "iperf.toml").write_text('[[backends]]\naddress = "10.0.0.11"\nport = 5201\n')
    hosts = balance(one_arm=one_arm, extra=IPERF).lab
    payload = random.Random(1).randbytes(30_000_001)
    with hosts.backends[0].host.socket() as listener, hosts.client.socket() as client:
        listener.bind(("10.0.0.11", 5201))
        listener.listen()
        client.connect((lab.VIP, 5201))
        server, (address, _) = listener.accept()
        with server:
            ends = (client, server) if direction == "to the backend" else (server, client)
            received = transfer(*ends, payload)
    assert address == "10.0.0.1"  # full NAT: the backend sees the load balancer
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
    wait_until(lambda: ":5201 " in host.run("ss", "-ltn").stdout, 5, "iperf3 listens")
    return server


@TWO_AND_ONE_ARM
def test_datagrams_of_a_flow_stay_with_one_backend_and_flows_are_shared_out(
    balance: Balance, one_arm: bool
) -> None:
    client = balance(one_arm=one_arm).lab.client
    chosen: Counter[str] = Counter()
    for _ in range(60):
        with client.socket(socket.SOCK_DGRAM) as sock:
            sock.connect((lab.VIP, lab.UDP_PORT))
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


def test_the_vip_answers_pings_and_refuses_where_no_service_is(balance: Balance) -> None:
    client = balance().lab.client
    client.run("ping", "-c1", "-W2", lab.VIP)
    refused = client.run("curl", "-sS", f"http://{lab.VIP}:81/", check=False)
    assert refused.returncode == 7  # could not connect: at once, not by a time-out
