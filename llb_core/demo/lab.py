"""Clients, a load balancer and backends, joined up; and the real daemon on a real llb.toml.

    clients 198.51.100.11 … ── .1 [ lb ] 10.0.0.1 ── backends 10.0.0.11 …
                                VIP 203.0.113.10

One-arm, all of them hang on one switch and the load balancer has one interface.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llb_core.api.client import Client
from llb_core.demo.network import Namespace, Network, Process, python, stop, wait_until
from llb_core.errors import DaemonUnreachable, HostError
from llb_core.run_folder import RUN, STATE, RunFolder

VIP = "203.0.113.10"
PORT = 80
UDP_PORT = 9000
BACKEND_PORT = 8080
PINS = Path("/sys/fs/bpf/llb")
_numbers = itertools.count(1)


@dataclass
class BackendHost:
    """A backend's host and its server, which can be killed and started again."""

    name: str
    address: str
    host: Namespace
    server: Process | None = None

    @property
    def endpoint(self) -> str:
        """Its address and port, as LLB's commands take and print them."""
        return f"{self.address}:{BACKEND_PORT}"

    def start(self) -> None:
        """Start the server and wait until it serves."""
        if self.server is not None:
            return
        ports = ("--http", str(BACKEND_PORT), "--udp", str(UDP_PORT))
        command = python("servers.py", self.name, *ports)
        self.server = self.host.start(*command)
        assert self.server.stdout is not None
        if self.server.stdout.readline() != "ready\n":
            raise HostError(f"{self.name}: the server did not start")

    def turn(self) -> None:
        """Have it fall ill, or get well again: it serves as before, but for its /healthz."""
        assert self.server is not None
        self.server.send_signal(signal.SIGUSR1)

    def kill(self) -> None:
        """Kill the server as kill -9 does; its host answers with resets."""
        if self.server is not None:
            stop(self.server, signal.SIGKILL)
            self.server = None


@dataclass
class Lab:
    """The hosts, and how they are joined."""

    clients: list[Namespace]
    lb: Namespace
    backends: list[BackendHost]
    public_interface: str = "eth0"
    private_interface: str = "eth1"

    @property
    def client(self) -> Namespace:
        """The first client."""
        return self.clients[0]

    def start_backends(self) -> None:
        """Start every server that does not run."""
        for backend in self.backends:
            backend.start()


def build(network: Network, clients: int = 1, backends: int = 3, one_arm: bool = False) -> Lab:
    """Make the hosts, their links, addresses and routes; start nothing."""
    client_hosts = [network.add(f"client{number}") for number in range(1, clients + 1)]
    lb = network.add("lb")
    backend_hosts = [network.add(f"b{number}") for number in range(1, backends + 1)]
    client_ends = [(host, "eth0") for host in client_hosts]
    backend_ends = [(host, "eth0") for host in backend_hosts]
    private = "eth0" if one_arm else "eth1"
    if one_arm:
        network.switch("switch", (lb, "eth0"), *client_ends, *backend_ends)
    else:
        network.switch("public", (lb, "eth0"), *client_ends)
        network.switch("private", (lb, "eth1"), *backend_ends)
    lb.ip("addr add 198.51.100.1/24 dev eth0", f"addr add 10.0.0.1/24 dev {private}")
    for number, host in enumerate(client_hosts, 11):
        host.ip(f"addr add 198.51.100.{number}/24 dev eth0", "route add default via 198.51.100.1")
    for number, host in enumerate(backend_hosts, 11):
        host.ip(f"addr add 10.0.0.{number}/24 dev eth0", "route add default via 10.0.0.1")
    return Lab(
        client_hosts,
        lb,
        [
            BackendHost(f"b{number}", f"10.0.0.{number + 10}", host)
            for number, host in enumerate(backend_hosts, 1)
        ],
        private_interface=private,
    )


def build_cable(network: Network, prefix: str) -> Lab:
    """Make one client and one backend, each at a cable of its own to the load balancer."""
    client, lb, host = (network.add(f"{prefix}-{role}") for role in ("client", "lb", "b1"))
    network.link((client, "eth0"), (lb, "eth0"))
    network.link((lb, "eth1"), (host, "eth0"))
    lb.ip("addr add 198.51.100.1/24 dev eth0", "addr add 10.0.0.1/24 dev eth1")
    client.ip("addr add 198.51.100.11/24 dev eth0", "route add default via 198.51.100.1")
    host.ip("addr add 10.0.0.11/24 dev eth0", "route add default via 10.0.0.1")
    return Lab([client], lb, [BackendHost("b1", "10.0.0.11", host)])


@dataclass
class Balancer:
    """The daemon in the namespace `lb`, as a user runs it."""

    lab: Lab
    folder: Path
    name: str = field(default_factory=lambda: f"lab-{os.getpid()}-{next(_numbers)}")
    daemon: Process | None = None

    @property
    def config(self) -> Path:
        """The configuration's file."""
        return self.folder / "llb.toml"

    @property
    def log(self) -> Path:
        """Where the daemon's standard error goes."""
        return self.folder / "daemon.log"

    def write_config(self, text: str | None = None, **changes: str) -> None:
        """Write llb.toml: that text, or `configuration` with changes."""
        replace(self.config, text or configuration(self.lab, self.name, **changes))

    def write_backends(self, backends: Sequence[BackendHost]) -> None:
        """Write backends.toml, moved into its place whole."""
        lines = [
            f'[[backends]]\naddress = "{backend.address}"\nport = {BACKEND_PORT}\n'
            for backend in backends
        ]
        replace(self.folder / "backends.toml", "\n".join(lines) or "backends = []\n")
        udp = [line.replace(f"port = {BACKEND_PORT}", f"port = {UDP_PORT}") for line in lines]
        replace(self.folder / "udp.toml", "\n".join(udp) or "backends = []\n")

    def llb(self, *arguments: str, check: bool = True) -> str:
        """Run `llb ARGUMENTS -c llb.toml` as an operator would; give what it prints."""
        command = [*llb_command(), *arguments, "-c", str(self.config)]
        return self.lab.lb.run(*command, check=check).stdout

    def start(self, wait: bool = True) -> None:
        """Start the daemon and wait until it serves."""
        with self.log.open("a") as log:
            self.daemon = self.lab.lb.start(
                *llb_command(), "run", "-c", self.config, stdout=log, stderr=log
            )
        if wait:
            wait_until(self.serves, 30, "the daemon answers")

    def serves(self) -> bool:
        """Say whether the daemon answers; HostError with its last words if it has ended."""
        assert self.daemon is not None
        if self.daemon.poll() is not None:
            raise HostError(f"the daemon ended: {self.last_words()}")
        return self.is_answering()

    def is_answering(self) -> bool:
        """Say whether the control socket answers."""
        try:
            self.control.get("/status")
        except DaemonUnreachable:
            return False
        return True

    @property
    def control(self) -> Client:
        """The control socket."""
        return Client(RunFolder(self.name).socket, timeout=5)

    def is_active(self, backend: BackendHost, service: str = "web") -> bool:
        """Say whether a backend gets new connections, as the daemon says; False while none does."""
        try:
            known = self.control.get("/backends")["backends"]
        except DaemonUnreachable:
            return False
        return any(
            each["mode"] == "active"
            for each in known
            if (each["service"], each["backend"]) == (service, backend.endpoint)
        )

    def reload(self) -> None:
        """Have the daemon read its configuration again."""
        assert self.daemon is not None
        self.daemon.send_signal(signal.SIGHUP)

    def kill(self) -> None:
        """Kill the daemon as kill -9 does."""
        if self.daemon is not None:
            stop(self.daemon, signal.SIGKILL)
            self.daemon = None

    def stop(self) -> int:
        """End the daemon as an init system does; give its exit code. Traffic goes on."""
        assert self.daemon is not None
        code = stop(self.daemon, signal.SIGTERM, seconds=10)
        self.daemon = None
        return code

    def last_words(self) -> str:
        """The end of the daemon's log."""
        lines = self.log.read_text().strip().splitlines() if self.log.exists() else []
        return "\n".join(lines[-15:]) or "it said nothing"

    def remove(self) -> None:
        """Leave nothing of this instance behind, whatever state it is in."""
        self.kill()
        forget(self.name)


def configuration(
    lab: Lab,
    name: str,
    *,
    when_unhealthy: str = "keep",
    snat_addresses: str = '["10.0.0.1"]',
    service: str = "",
    health: str = 'type = "http"\npath = "/healthz"',
    extra: str = "",
) -> str:
    """An llb.toml for that lab: HTTP on port 80, UDP on port 9000 of the VIP."""
    return f"""\
[loadbalancer]
name              = "{name}"
public_interface  = "{lab.public_interface}"
private_interface = "{lab.private_interface}"
backend_cidrs     = ["10.0.0.0/24"]
snat_addresses    = {snat_addresses}

[services.web]
address        = "{VIP}"
port           = {PORT}
when_unhealthy = "{when_unhealthy}"
{service}
[services.web.provider]
name = "static"
path = "backends.toml"

[services.web.health]
{health}

[services.echo]
address  = "{VIP}"
port     = {UDP_PORT}
protocol = "udp"

[services.echo.provider]
name = "static"
path = "udp.toml"

[services.echo.health]
type = "tcp"
port = {BACKEND_PORT}
{extra}"""


def llb_command() -> list[str]:
    """The command `llb` of this very installation."""
    return [sys.executable, "-m", "llb_core"]


def replace(path: Path, text: str) -> None:
    """Write a file beside its place and move it there, so that no reader sees half of it."""
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.rename(path)


def forget(name: str) -> None:
    """Remove the pins and the files of an instance, without asking it."""
    for folder in (PINS, RUN, STATE):
        for path in folder.iterdir() if folder.is_dir() else ():
            if not re.fullmatch(rf"{re.escape(name)}(\D.*)?", path.name):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def forget_leftovers() -> None:
    """Remove what the instances of killed runs left behind."""
    names = {
        path.name for folder in (PINS, RUN, STATE) if folder.is_dir() for path in folder.iterdir()
    }
    for name in names:
        match = re.match(r"lab-(\d+)-\d+", name)
        if match and not Path("/proc", match[1]).exists():
            forget(match[0])
