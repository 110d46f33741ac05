"""Measure LLB beside plain IP forwarding and nftables' DNAT, with real traffic in one run.

Each way has a client, a host in the middle and a backend of its own, joined by two veth cables;
loads and ways take turns, repetition after repetition, and the medians are compared. Needs root,
makes namespaces and removes them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llb_core.demo import lab
from llb_core.demo.network import Namespace, Network, Process, wait_until
from llb_core.errors import HostError

HTTP, IPERF, UDP = 8080, 5201, 9000
SNAT_ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
NATIVE = Path(__file__).with_name("native")


@dataclass
class Way:
    """One way from a client to a backend; `address` is what the client speaks to."""

    name: str
    hosts: lab.Lab
    address: str
    tools: Path
    counter: Process | None = None

    @property
    def client(self) -> Namespace:
        """The client's host."""
        return self.hosts.client


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of traffic, and what is measured of it: more is better."""

    name: str
    unit: str
    measure: Callable[[Way, float], float]


@dataclass
class Results:
    """Every figure of every load and way, in the order they were taken."""

    figures: dict[tuple[str, str], list[float]] = field(default_factory=dict)

    def add(self, load: Load, way: Way, figure: float) -> None:
        """Keep one figure."""
        self.figures.setdefault((load.name, way.name), []).append(figure)

    def median(self, load: str, way: str) -> float:
        """The middle of the repetitions."""
        return statistics.median(self.figures[load, way])


def tcp_throughput(way: Way, seconds: float) -> float:
    """Gbit/s of one TCP connection from the client to the backend, default offloads."""
    return _iperf(way, seconds)


def tcp_throughput_back(way: Way, seconds: float) -> float:
    """Gbit/s of one TCP connection from the backend to the client, default offloads."""
    return _iperf(way, seconds, "--reverse")


def _iperf(way: Way, seconds: float, *more: str) -> float:
    done = way.client.run(
        *("iperf3", "--client", way.address, "--port", str(IPERF), "--json"),
        *("--time", f"{max(1, round(seconds))}", "--congestion", "cubic", *more),
    )
    return float(json.loads(done.stdout)["end"]["sum_received"]["bits_per_second"]) / 1e9


def keep_alive_requests(way: Way, seconds: float) -> float:
    """Thousand requests a second over 32 connections that stay."""
    script = way.tools / "requests.lua"
    if not script.exists():
        script.write_text(
            "function done(s, l, r)\n  local e = s.errors\n"
            "  io.write('REQUESTS ', s.requests / s.duration * 1e6, ' ',"
            " e.connect + e.read + e.write + e.status + e.timeout, '\\n')\nend\n"
        )
    url = f"http://{way.address}:{HTTP}/"
    done = way.client.run(
        *("wrk", "-t1", "-c32", f"-d{max(1, round(seconds))}s", "-s", script, url)
    )
    rate, errors = done.stdout.rsplit("REQUESTS", 1)[1].split()
    _no_errors(way, int(float(errors)))
    return float(rate) / 1e3


def connections(way: Way, seconds: float, closer: str) -> float:
    """Thousand connections a second, 64 at once; each asks one HTTP request."""
    program = way.tools / "connections"
    done = way.client.run(program, way.address, str(HTTP), f"{seconds:g}", "64", closer)
    result = json.loads(done.stdout)
    _no_errors(way, result["failed"])
    return float(result["done"] / result["seconds"]) / 1e3


def small_packets(way: Way, seconds: float) -> float:
    """Thousand UDP packets a second that arrive: 16 flows, 18 bytes each."""
    before = _counted(way)
    program = way.tools / "datagrams"
    way.client.run(program, "send", way.address, str(UDP), f"{seconds:g}", "18", "16")
    time.sleep(0.1)  # what is on the way arrives; there is nothing to wait for
    return (_counted(way) - before) / seconds / 1e3


def _counted(way: Way) -> int:
    assert way.counter is not None
    assert way.counter.stdin is not None
    assert way.counter.stdout is not None
    way.counter.stdin.write("\n")
    way.counter.stdin.flush()
    return int(way.counter.stdout.readline())


def _no_errors(way: Way, number: int) -> None:
    if number:
        raise HostError(f"{way.name}: {number} errors: the figure would mean nothing")


LOADS = (
    Load("TCP throughput, to the backend", "Gbit/s", tcp_throughput),
    Load("TCP throughput, to the client", "Gbit/s", tcp_throughput_back),
    Load("requests on kept connections", "thousand/s", keep_alive_requests),
    Load(
        "connections, the backend closes",
        "thousand/s",
        lambda way, seconds: connections(way, seconds, "server"),
    ),
    Load(
        "connections, the client closes",
        "thousand/s",
        lambda way, seconds: connections(way, seconds, "client"),
    ),
    Load("small UDP packets", "thousand/s", small_packets),
)


def ready(way: Way) -> Way:
    """Start what answers, on the backend's host."""
    backend = way.hosts.backends[0].host
    backend.start("iperf3", "--server", "--port", str(IPERF), stdout=subprocess.DEVNULL)
    server = backend.start(way.tools / "http_server", str(HTTP))
    way.counter = backend.start(way.tools / "datagrams", "count", str(UDP), stdin=subprocess.PIPE)
    for process in (server, way.counter):
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise HostError(f"{way.name}: a server did not start")
    # A client that closes first keeps TIME_WAIT: it may use its ports again after a second.
    way.client.sysctl("net.ipv4.tcp_tw_reuse=1")
    return way


def plain(network: Network, tools: Path) -> Way:
    """The host in the middle forwards, and nothing else."""
    hosts = lab.build_cable(network, "plain")
    hosts.lb.sysctl("net.ipv4.ip_forward=1")
    return ready(Way("plain", hosts, hosts.backends[0].address, tools))


def nftables(network: Network, tools: Path) -> Way:
    """DNAT to the backend and SNAT to four addresses, by nftables."""
    hosts = lab.build_cable(network, "nft")
    backend = hosts.backends[0].address
    hosts.lb.sysctl("net.ipv4.ip_forward=1")
    hosts.lb.ip(*(f"addr add {address}/32 dev eth1" for address in SNAT_ADDRESSES[1:]))
    rules = f"""table ip bench {{
        chain before {{
            type nat hook prerouting priority dstnat;
            ip daddr {lab.VIP} tcp dport {{ {HTTP}, {IPERF} }} dnat to {backend}
            ip daddr {lab.VIP} udp dport {UDP} dnat to {backend}
        }}
        chain after {{
            type nat hook postrouting priority srcnat;
            ip daddr {backend} snat to {SNAT_ADDRESSES[0]}-{SNAT_ADDRESSES[-1]}
        }}
    }}"""
    path = tools / "bench.nft"
    path.write_text(rules)
    hosts.lb.run("nft", "-f", path)
    return ready(Way("nftables", hosts, lab.VIP, tools))


@contextlib.contextmanager
def llb(network: Network, tools: Path) -> Iterator[Way]:
    """The real daemon with four SNAT addresses."""
    hosts = lab.build_cable(network, "llb")
    balancer = lab.Balancer(hosts, tools)
    address = hosts.backends[0].address
    services = []
    for name, port, protocol in (
        ("web", HTTP, "tcp"),
        ("iperf", IPERF, "tcp"),
        ("udp", UDP, "udp"),
    ):
        (tools / f"{name}.toml").write_text(f'[[backends]]\naddress = "{address}"\nport = {port}\n')
        services.append(
            f'[services.{name}]\naddress = "{lab.VIP}"\nport = {port}\nprotocol = "{protocol}"\n'
            f'[services.{name}.provider]\nname = "static"\npath = "{name}.toml"\n'
            f'[services.{name}.health]\ntype = "tcp"\nport = {HTTP}\n'
        )
    balancer.write_config(
        f'[loadbalancer]\nname = "{balancer.name}"\npublic_interface = "eth0"\n'
        'private_interface = "eth1"\nbackend_cidrs = ["10.0.0.0/24"]\n'
        f"snat_addresses = {json.dumps(SNAT_ADDRESSES)}\n" + "\n".join(services)
    )
    way = ready(Way("llb", hosts, lab.VIP, tools))
    try:
        balancer.start()
        wait_until(lambda: _reaches(way), 10, "LLB forwards")
        yield way
    finally:
        balancer.remove()


def _reaches(way: Way) -> bool:
    url = f"http://{way.address}:{HTTP}/"
    return way.client.run("curl", "-sf", "-m1", url, check=False).returncode == 0


def compile_tools(folder: Path) -> None:
    """Compile the load generators and servers that are written in C."""
    for tool in ("gcc", "iperf3", "wrk", "nft"):
        if shutil.which(tool) is None:
            raise HostError(f"{tool} is missing: make bench installs it")
    for source in NATIVE.glob("*.c"):
        subprocess.run(["gcc", "-O2", "-o", folder / source.stem, source], check=True)


def measure(
    names: Sequence[str],
    loads: Sequence[Load],
    repetitions: int,
    seconds: float,
    say: Callable[[str], None],
) -> Results:
    """Take every figure, the ways in turn, and another one first each time."""
    results = Results()
    with (
        tempfile.TemporaryDirectory(prefix="llb-bench-") as folder,
        Network() as network,
        contextlib.ExitStack() as stack,
    ):
        tools = Path(folder)
        compile_tools(tools)
        makers = {
            "plain": lambda: plain(network, tools),
            "nftables": lambda: nftables(network, tools),
            "llb": lambda: stack.enter_context(llb(network, tools)),
        }
        ways = [makers[name]() for name in names]
        for number, load in itertools.product(range(repetitions), loads):
            turn = number % len(ways)
            for way in ways[turn:] + ways[:turn]:
                figure = load.measure(way, seconds)
                results.add(load, way, figure)
                say(f"{number + 1}/{repetitions} {load.name}, {way.name}: {figure:.2f} {load.unit}")
    return results


def table(results: Results, loads: Sequence[Load], ways: Sequence[str]) -> str:
    """A table in Markdown: medians (and least to most), and what LLB is to the others."""
    compared = [way for way in ways if way != "llb"] if "llb" in ways else []
    heads = ["", "unit", *ways, *(f"llb ÷ {way}" for way in compared)]
    rows = [heads, ["---", "---", *["---:"] * (len(heads) - 2)]]
    for load in loads:
        cells = []
        for way in ways:
            figures = results.figures[load.name, way]
            cells.append(
                f"{results.median(load.name, way):.1f} ({min(figures):.1f}–{max(figures):.1f})"
            )
        for way in compared:
            ratio = results.median(load.name, "llb") / results.median(load.name, way)
            cells.append(f"{ratio:.2f}")
        rows.append([load.name, load.unit, *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
