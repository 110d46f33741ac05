"""Real traffic of both families over wires that lose, repeat and overtake frames."""

from __future__ import annotations

import json
import os
import socket
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until
from tests.netns import tables
from tests.netns.conftest import balancing, compiled
from tests.netns.exchange import exchange, serving
from tests.netns.faults import Faults, put_in, send_whole_frames
from tests.netns.test_flood import greet

pytestmark = pytest.mark.netns

SEED = int(os.environ.get("LLB_FAULTS_SEED", "1"))
BOTH = (4, 6)
SINK_PORT = 5201
SINK = f"""
[services.sink]
address = {json.dumps([each.vip for each in lab.ADDRESSES.values()])}
port = {SINK_PORT}
provider = {{ name = "static", path = "sink.toml" }}
health = {{ type = "none" }}
timeouts = {{ %s }}
"""
SHORT = "opening = '1s', closing = '1s', closed = '1s', udp = '1s'"
TRANSFERS, SIZE = 4, 2 << 20
GREETINGS = 100
FLOWS, DATAGRAMS = 50, 8
SIZES = (1, 100, 1400, 4000)
"""Of datagrams; the last goes in fragments."""


def test_what_arrives_over_faulty_wires_is_right_and_ends(network: Network, tmp_path: Path) -> None:
    """First in merged segments, of which each fault hits many, then packet by packet.

    Health checks would lose packets, too, so there are none for TCP.
    """
    program = compiled("faulty_wire", tmp_path)
    write_backends(tmp_path / "sink.toml", SINK_PORT)
    with balancing(network, tmp_path, families=BOTH, **settings()) as balancer:
        hosts = balancer.lab
        wires = [
            put_in(network, switch, program, SEED + number, Faults())
            for number, switch in enumerate(("public", "private"))
        ]
        with ThreadPoolExecutor(64) as pool, ExitStack() as stack:
            for family in BOTH:
                stack.enter_context(serving(hosts.of(family), SINK_PORT, SIZE))
            send_everything(hosts, pool)
            ends = [(each, "eth0") for each in (*hosts.clients, *(b.host for b in hosts.backends))]
            for host, interface in (*ends, (hosts.lb, "eth0"), (hosts.lb, "eth1")):
                send_whole_frames(host, interface)
            send_everything(hosts, pool)
        for family in BOTH:
            known = tables.pairs_at_rest(balancer, family)
            # Twice as many, but for ports that the client's kernel has given out again.
            assert len(known) > TRANSFERS + FLOWS + GREETINGS

        balancer.write_config(families=BOTH, **settings(SHORT))
        balancer.reload()
        wait_until(lambda: tables.are_empty(balancer), lab.LIMIT, "the tables are empty")

        for wire in wires:
            counts = wire.end()
            print(counts)
            assert all(counts[each] > 0 for each in ("lost", "repeated", "overtaken"))


def settings(times: str = "") -> dict[str, str]:
    """The configuration's services, with these times."""
    return {
        "service": f"timeouts = {{ {times} }}",
        "health": 'type = "none"',
        "extra": "\n".join(["[services.echo.timeouts]", *times.split(", "), SINK % times]),
    }


def write_backends(path: Path, port: int) -> None:
    """Write a file of all backends of both families."""
    lines = [
        f'[[backends]]\naddress = "{lab.ADDRESSES[family].backend(number)}"\nport = {port}\n'
        for family in BOTH
        for number in (11, 12, 13)
    ]
    path.write_text("".join(lines))


def send_everything(hosts: lab.Lab, pool: ThreadPoolExecutor) -> None:
    """Have transfers, short requests and datagrams of both families at once, and all of them end
    as they should."""
    runs: list[Future[None]] = []
    for family in BOTH:
        spoken = hosts.of(family)
        runs += [pool.submit(transfer, spoken, number) for number in range(TRANSFERS)]
        runs += [pool.submit(talk, spoken, number) for number in range(FLOWS)]
        runs += [pool.submit(greet, spoken.client, spoken.vip, family) for _ in range(GREETINGS)]
    for run in runs:
        run.result()


def transfer(hosts: lab.Lab, number: int) -> None:
    """Exchange some MiB through the VIP."""
    with hosts.client.socket(family=hosts.family) as sock:
        sock.settimeout(60)
        sock.connect((hosts.vip, SINK_PORT))
        exchange(sock, number, SIZE)


def talk(hosts: lab.Lab, flow: int) -> None:
    """Send datagrams of one flow: what comes back was sent, and comes from one backend."""
    sent = {f"{flow}-{n} ".encode() * (SIZES[n % len(SIZES)] // 4 + 1) for n in range(DATAGRAMS)}
    heard, names = set(), set()
    with hosts.client.socket(socket.SOCK_DGRAM, hosts.family) as sock:
        sock.connect((hosts.vip, lab.UDP_PORT))
        sock.settimeout(0.5)
        for _ in range(20):
            for datagram in sent - heard:
                sock.send(datagram)
            try:
                while heard < sent:
                    name, _, echo = sock.recv(65536).partition(b" ")
                    assert echo in sent, f"{flow}: {name!r} says {echo[:40]!r}"
                    heard.add(echo)
                    names.add(name)
            except TimeoutError:
                continue
            break
    assert heard == sent, f"{flow}: {len(sent - heard)} datagrams got no answer in 20 tries"
    assert len(names) == 1
