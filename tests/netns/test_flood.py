"""A flood of SYNs from made-up sources, on busy connections and honest new clients.

`LLB_FLOOD_SYNS` says how many SYNs are sent; `make flood` sends millions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llb_core.datapath import pins
from llb_core.datapath.layout import ASSURED, opening_places
from llb_core.datapath.reading import read_counters
from llb_core.demo import lab
from llb_core.demo.network import Namespace, Process
from tests.netns.conftest import Balance, compiled

pytestmark = pytest.mark.netns

SYNS = int(os.environ.get("LLB_FLOOD_SYNS", "60000"))
BUSY = 1_000
MAX_CONNECTIONS = 8_000
SOURCES = {4: "198.18.0.0/15", 6: "2001:db8:bad::/64"}


@pytest.fixture(scope="module")
def syn_flood(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flood's program, compiled."""
    return compiled("syn_flood", tmp_path_factory.mktemp("native"))


@pytest.mark.parametrize(
    ("family", "snat_ports"),
    [
        pytest.param(4, "1024-32767", id="ipv4"),
        pytest.param(6, "1024-32767", id="ipv6"),
        # Three backends have fewer of these than there may be opening connections.
        pytest.param(4, "1024-2023", id="ipv4, ports run out"),
    ],
)
def test_flood_breaks_no_connection_and_keeps_no_client_out(
    balance: Balance, syn_flood: Path, family: int, snat_ports: str
) -> None:
    balancer = balance(
        clients=2,
        family=family,
        health='type = "none"',
        settings=f'max_connections = {MAX_CONNECTIONS}\nsnat_ports = "{snat_ports}"',
    )
    hosts = balancer.lab
    attacker, honest = hosts.clients
    for backend in hosts.backends:  # else it holds as many of the flood's as its backlog takes,
        backend.host.sysctl("net.ipv4.tcp_syncookies=2")  # and a tuple of these serves nobody
    hosts.lb.ip(f"route add {SOURCES[family]} via {hosts.addresses.client(11)}")
    script = Path(__file__).with_name("busy.py")
    busy = honest.start(
        *(sys.executable, "-I", "-S", script, hosts.vip, str(lab.PORT), str(BUSY)),
        stdin=subprocess.PIPE,
        stderr=None,
    )
    assert line(busy) == "open"
    assert say(busy, "count") == "counting"

    flood = attacker.start(syn_flood, hosts.vip, str(lab.PORT), str(SYNS), stderr=None)
    newcomers = 0
    while newcomers < 5 or flood.poll() is None:
        greet(honest, hosts.vip, family)
        newcomers += 1
    print(f"{newcomers} new clients got through")

    assert int(line(flood)) >= SYNS * 9 // 10
    result = json.loads(say(busy, "stop"))
    print(result)
    assert result["errors"] == {}
    assert result["least"] >= 1
    opening, evicted = pressure(balancer, family)
    assert 0 < opening <= opening_places(MAX_CONNECTIONS)
    assert evicted >= SYNS // 2


def greet(client: Namespace, vip: str, family: int) -> None:
    """Open a new connection, have a word said back, and close it; it may take its time."""
    with client.socket(family=family) as sock:
        sock.settimeout(60)
        sock.connect((vip, lab.PORT))
        sock.sendall(b"GET /say/hello HTTP/1.1\r\nConnection: close\r\n\r\n")
        said = b""
        while part := sock.recv(1000):
            said += part
    assert said.endswith(b"hello")


def pressure(balancer: lab.Balancer, family: int) -> tuple[int, int]:
    """Count the opening connections that stand, and those that had to make room so far."""
    maps = pins.open_maps(balancer.name, family, MAX_CONNECTIONS, create_missing=False)
    try:
        _, values = maps["dnat_table"].read_all()
        services = read_counters(maps).services.values()
    finally:
        for each in maps.values():
            each.close()
    return (
        int((values["state"] & ASSURED == 0).sum()),
        sum(each.opening_evicted for each in services),
    )


def line(process: Process) -> str:
    """Read a line of what it says."""
    assert process.stdout is not None
    return process.stdout.readline().strip()


def say(process: Process, word: str) -> str:
    """Write a line to it, and read its answer."""
    assert process.stdin is not None
    process.stdin.write(f"{word}\n")
    process.stdin.flush()
    return line(process)
