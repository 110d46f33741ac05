"""A flood of SYNs from made-up sources, on busy connections and honest new clients.

`LLB_FLOOD_SYNS` says how many SYNs are sent; `make flood` sends millions.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import astuple, dataclass
from pathlib import Path

import pytest

from llb_core.datapath.layout import ASSURED, opening_places
from llb_core.datapath.reading import read_counters
from llb_core.demo import lab
from llb_core.demo.network import Namespace, Process
from tests.netns import tables
from tests.netns.conftest import Balance, compiled
from tests.netns.test_policies import verdicts

pytestmark = pytest.mark.netns

SYNS = int(os.environ.get("LLB_FLOOD_SYNS", "40000"))
BUSY = 1_000
MAX_CONNECTIONS = 8_000
IDLE = 3_100
"""With the busy ones and the places for opening connections more than there may be."""
SOURCES = {4: "198.18.0.0/15", 6: "2001:db8:bad::/64"}


@pytest.fixture(scope="module")
def syn_flood(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The flood's program, compiled."""
    return compiled("syn_flood", tmp_path_factory.mktemp("native"))


@pytest.mark.parametrize(
    ("family", "snat_ports", "idle"),
    [
        pytest.param(4, "1024-32767", IDLE, id="ipv4, tables full"),
        pytest.param(6, "1024-32767", IDLE, id="ipv6, tables full"),
        # Three backends have fewer of these than there may be opening connections.
        pytest.param(4, "1024-2023", 0, id="ipv4, ports run out"),
        pytest.param(6, "1024-2023", 0, id="ipv6, ports run out"),
    ],
)
def test_flood_breaks_no_connection_and_keeps_no_client_out(
    balance: Balance, syn_flood: Path, family: int, snat_ports: str, idle: int
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
    busy = script(hosts, "busy.py", str(BUSY))
    assert line(busy) == "open"
    waiting = script(hosts, "many.py", "idle", "10000", str(idle))
    assert line(waiting) == "open"
    assert say(busy, "count") == "counting"

    flood = attacker.start(syn_flood, hosts.vip, str(lab.PORT), str(SYNS), stderr=None)
    newcomers, most = 0, Pressure()
    while newcomers < 5 or flood.poll() is None:
        greet(honest, hosts.vip, family)
        newcomers += 1
        most = most.or_more(Pressure.of(balancer, family))
    print(f"{newcomers} new clients got through; at most {most}")

    assert int(line(flood)) >= SYNS * 9 // 10
    assert Pressure.of(balancer, family).evicted >= SYNS // 2
    assert most.opening <= opening_places(MAX_CONNECTIONS)
    if idle:
        assert verdicts(balancer)["drop_table_full"] > 0
    result = json.loads(say(busy, "stop"))
    print(result)
    assert result["errors"] == {}
    assert result["least"] >= 1
    result = json.loads(say(waiting, "ask"))
    assert result["errors"] == {}
    assert sum(result["backends"].values()) == idle


def script(hosts: lab.Lab, name: str, *arguments: str) -> Process:
    """Start a script of this folder at the honest client, against the VIP."""
    path = Path(__file__).with_name(name)
    command = (sys.executable, "-I", "-S", path, hosts.vip, str(lab.PORT), *arguments)
    return hosts.clients[1].start(*command, stdin=subprocess.PIPE, stderr=None)


@dataclass(frozen=True, slots=True)
class Pressure:
    """What the tables hold, and how many opening connections had to make room so far."""

    entries: int = 0
    opening: int = 0
    evicted: int = 0

    @classmethod
    def of(cls, balancer: lab.Balancer, family: int) -> Pressure:
        """Look once."""
        with tables.pinned(balancer, family) as maps:
            _, values = maps["dnat_table"].read_all()
            services = read_counters(maps).services.values()
        return cls(
            len(values),
            int((values["state"] & ASSURED == 0).sum()),
            sum(each.opening_evicted for each in services),
        )

    def or_more(self, other: Pressure) -> Pressure:
        """The larger of each."""
        return Pressure(*map(max, astuple(self), astuple(other)))


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
