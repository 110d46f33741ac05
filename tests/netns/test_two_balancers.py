"""Two load balancers, as in examples/keepalived and examples/bird, by the real daemons: the one
that serves is taken away; clients that were connected fail, and new ones are served by the other.
"""

from __future__ import annotations

import json
import re
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Namespace, Network, Process, stop, wait_until

pytestmark = pytest.mark.netns

EXAMPLES = Path(__file__).parents[2] / "examples"
PORT = 80
LIMIT = 300
PATIENCE = 20
"""Seconds after which a client hangs, once the VIP has moved. How long that takes is printed, and
held by what the examples are set to: a busy machine has a say in it."""


@dataclass
class Host:
    """One of the two: LLB, and the daemon that moves the VIP."""

    balancer: lab.Balancer
    others: list[Process] = field(default_factory=list)

    @property
    def namespace(self) -> Namespace:
        return self.balancer.lab.lb

    def start(self, *argv: str | Path, environment: dict[str, str] | None = None) -> None:
        """Start a daemon beside LLB, whose words go to a file."""
        log = (self.balancer.folder / "other.log").open("a")
        command = ["env", *(f"{k}={v}" for k, v in (environment or {}).items()), *argv]
        self.others.append(self.namespace.start(*command, stdout=log, stderr=log))

    def go(self) -> None:
        """Be gone at once, as a host that loses its power: nothing is said to anybody."""
        self.namespace.ip("link set eth0 down", "link set eth1 down")
        for process in self.others:
            stop(process, signal.SIGKILL)
        self.balancer.kill()


@dataclass
class Site:
    """Everything: a client, where the VIP is, two hosts, backends."""

    client: Namespace
    vip: str
    hosts: list[Host]
    has_vip: Callable[[Host], bool]
    """Whether packets for the VIP go to that host."""

    def get(self, seconds: int = 1) -> str:
        """Make a new connection, send a request; return who answered, or nothing."""
        command = ("curl", "-sS", "-m", str(seconds), f"http://{self.vip}:{PORT}/")
        return self.client.run(*command, check=False).stdout.strip()

    def serving(self) -> Host | None:
        """Return the host that has connections through it."""
        for host in self.hosts:
            if host.balancer.daemon is not None and opened(host):
                return host
        return None

    def carrying(self, connection: socket.socket) -> Host:
        """Return the host that a connection goes through."""
        address, port = connection.getsockname()
        client = lab.endpoint(address, port)
        (found,) = (host for host in self.hosts if has_connection(host, client))
        return found


def llb_script(folder: Path, config: Path) -> str:
    """A command like /usr/bin/llb, of this installation and for one configuration."""
    script = folder / "llb"
    script.write_text(f'#!/bin/sh\nexec {" ".join(lab.llb_command())} "$@" -c {config}\n')
    script.chmod(0o700)
    return str(script)


def balancers(
    network: Network, example: str, tmp_path: Path
) -> tuple[list[Host], list[lab.BackendHost]]:
    """Make the two hosts and the backends on their private side; start LLB on the hosts."""
    hosts = [network.add(name) for name in ("one", "other")]
    backend_hosts = [network.add(f"b{number}") for number in (1, 2)]
    network.switch(
        "private", *((each, "eth1") for each in hosts), *((each, "eth0") for each in backend_hosts)
    )
    backends = []
    for number, each in enumerate(backend_hosts, 11):
        each.ip(f"addr add 10.0.0.{number}/24 dev eth0")
        backends.append(lab.BackendHost(f"b{number - 10}", f"10.0.0.{number}", each, number=number))
        backends[-1].start()
    made = []
    for place, namespace in enumerate(hosts, 1):
        folder = tmp_path / namespace.name
        folder.mkdir()
        namespace.ip(f"addr add 10.0.0.{place}/24 dev eth1")
        balancer = lab.Balancer(lab.Lab([], namespace, backends), folder)
        text = (EXAMPLES / example / "llb.toml").read_text()
        balancer.write_config(
            text.replace("[loadbalancer]", f'[loadbalancer]\nname = "{balancer.name}"').replace(
                '["10.0.0.1"]', f'["10.0.0.{place}"]'
            )
        )
        balancer.write_backends(backends)
        made.append(Host(balancer))
    return made, backends


def start_balancers(hosts: list[Host], backends: list[lab.BackendHost]) -> None:
    for host in hosts:
        host.balancer.start()
    for host in hosts:
        for each in backends:
            wait_until(lambda h=host, b=each: h.balancer.is_active(b), LIMIT, "all are active")


@pytest.fixture
def keepalived(network: Network, tmp_path: Path) -> Iterator[Site]:
    client = network.add("client")
    hosts, backends = balancers(network, "keepalived", tmp_path)
    network.switch("public", (client, "eth0"), *((each.namespace, "eth0") for each in hosts))
    client.ip("addr add 198.51.100.11/24 dev eth0")
    vip = "198.51.100.100"

    def has_vip(host: Host) -> bool:
        return f" {vip}/" in host.namespace.run("ip", "-o", "addr", "show", "dev", "eth0").stdout

    made = Site(client, vip, hosts, has_vip)
    yield from running(made, "198.51.100", backends, start_keepalived)


def start_keepalived(hosts: list[Host]) -> None:
    for host, priority in zip(hosts, (150, 100), strict=True):
        folder = host.balancer.folder
        text = (EXAMPLES / "keepalived" / "keepalived.conf").read_text()
        config = folder / "keepalived.conf"
        config.write_text(
            text.replace("/usr/bin/llb", llb_script(folder, host.balancer.config)).replace(
                "priority 150", f"priority {priority}"
            )
        )
        pids = [f"--{name}={folder}/{name}" for name in ("pid", "vrrp_pid")]
        host.start("keepalived", "-n", "-l", "-P", "-f", config, *pids)


@pytest.fixture
def bird(network: Network, tmp_path: Path) -> Iterator[Site]:
    client, router = network.add("client"), network.add("router")
    network.link((client, "eth0"), (router, "eth0"))
    hosts, backends = balancers(network, "bird", tmp_path)
    network.switch("transit", (router, "eth1"), *((each.namespace, "eth0") for each in hosts))
    client.ip("addr add 198.51.100.11/24 dev eth0", "route add default via 198.51.100.1")
    router.ip("addr add 198.51.100.1/24 dev eth0", "addr add 192.0.2.1/24 dev eth1")
    router.sysctl("net.ipv4.ip_forward=1")
    router.start(*bird_command(tmp_path, EXAMPLES / "bird" / "router.conf"))
    vip = "203.0.113.10"

    def has_vip(host: Host) -> bool:
        route = router.run("ip", "-o", "route", "show", vip).stdout
        return f" via 192.0.2.{2 + hosts.index(host)} " in route

    made = Site(client, vip, hosts, has_vip)
    yield from running(made, "192.0.2", backends, start_bird)


def start_bird(hosts: list[Host]) -> None:
    for place, host in enumerate(hosts):
        folder = host.balancer.folder
        text = (EXAMPLES / "bird" / "bird.conf").read_text()
        config = folder / "bird.conf"
        config.write_text(
            text.replace("router id 192.0.2.2", f"router id 192.0.2.{2 + place}").replace(
                "bgp_med = 100", f"bgp_med = {100 + 100 * place}"
            )
        )
        host.namespace.ip("route add default via 192.0.2.1")
        host.start(*bird_command(folder, config))
        environment = {
            "LLB": llb_script(folder, host.balancer.config),
            "BIRDC": f"birdc -s {folder}/ctl",
        }
        host.start(EXAMPLES / "bird" / "llb-announce", environment=environment)


def bird_command(folder: Path, config: Path) -> list[str]:
    return ["bird", "-f", "-c", str(config), "-s", f"{folder}/ctl", "-P", f"{folder}/pid"]


def running(
    made: Site,
    network: str,
    backends: list[lab.BackendHost],
    start: Callable[[list[Host]], None],
) -> Iterator[Site]:
    """Start everything, the hosts with their addresses of the network before them, and leave
    nothing of it behind."""
    hosts = made.hosts
    try:
        for place, host in enumerate(hosts, 2):
            host.namespace.ip(f"addr add {network}.{place}/24 dev eth0")
        start_balancers(hosts, backends)
        start(hosts)
        yield made
    finally:
        for host in hosts:
            log = host.balancer.folder / "other.log"
            print(host.balancer.last_words(), log.read_text()[-2000:] if log.exists() else "")
            for process in host.others:
                stop(process, signal.SIGKILL)
            host.balancer.remove()


@pytest.fixture(params=["keepalived", "bird"])
def two(request: pytest.FixtureRequest) -> Site:
    made: Site = request.getfixturevalue(request.param)
    return made


def test_when_the_host_that_serves_goes_the_other_one_serves(two: Site) -> None:
    wait_until(two.get, LIMIT, "somebody serves")
    with two.client.socket() as held:
        held.connect((two.vip, PORT))
        held.sendall(b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n")
        assert held.recv(1000).startswith(b"HTTP/1.1 200")
        first = two.carrying(held)
        (second,) = (host for host in two.hosts if host is not first)
        began = time.monotonic()
        first.go()
        wait_until(lambda: two.has_vip(second), LIMIT, "the other one has the VIP")
        assert two.get(PATIENCE) in {"b1", "b2"}, "the first request that comes after that"
        print(f"new connections are served after {time.monotonic() - began:.2f} s")
        assert two.serving() is second
        held.settimeout(PATIENCE)
        assert is_told(held), "who was connected hears of it, and does not hang"


def test_examples_are_set_to_take_less_than_two_seconds() -> None:
    """Of silence, until the other one takes over: RFC 5798, 6.1, and RFC 5880, 6.8.4."""
    vrrp = (EXAMPLES / "keepalived" / "keepalived.conf").read_text()
    interval = float(number(r"advert_int ([\d.]+)", vrrp))
    lowest_priority = 1
    assert 3 * interval + (256 - lowest_priority) / 256 * interval < 2
    for name in ("bird.conf", "router.conf"):
        bfd = (EXAMPLES / "bird" / name).read_text()
        silence = int(number(r"interval (\d+) ms", bfd)) * int(number(r"multiplier (\d+)", bfd))
        assert silence < 2000


def number(pattern: str, text: str) -> str:
    (found,) = re.findall(pattern, text)
    return str(found)


def is_told(connection: socket.socket) -> bool:
    """Go on using a connection whose balancer has gone; say whether it was reset."""
    try:
        while True:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n")
            connection.recv(1000)
    except (ConnectionResetError, BrokenPipeError):
        return True
    except TimeoutError:
        return False


def test_the_vip_moves_when_a_service_has_no_healthy_backend(two: Site) -> None:
    """... on one of the hosts alone, which an operator disables there."""
    wait_until(two.get, LIMIT, "somebody serves")
    first = two.serving()
    assert first is not None
    (second,) = (host for host in two.hosts if host is not first)
    for each in first.balancer.lab.backends:
        first.balancer.llb("disable", each.address, "--why", "to see it move")
    wait_until(
        lambda: two.get() and two.serving() is not None and opened(second), LIMIT, "it moved"
    )


def has_connection(host: Host, client: str) -> bool:
    answer = b"".join(host.balancer.control.stream("/connections", client=client, form="json"))
    return bool(json.loads(answer)["total"])


def opened(host: Host) -> int:
    services = host.balancer.control.get("/status")["services"]
    return sum(each["opened"] for each in services)
