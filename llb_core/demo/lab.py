"""Clients, a load balancer and backends, joined up; and the real daemon on a real llb.toml.

    clients 198.51.100.11 … ── .1 [ lb ] 10.0.0.1 ── backends 10.0.0.11 …
                                VIP 203.0.113.10

One-arm, all of them hang on one switch and the load balancer has one interface. Every host has
addresses of both families; a lab's `family` says which of them is spoken of.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from dataclasses import replace as replace_fields
from ipaddress import ip_network
from pathlib import Path
from typing import Any

from llb_core.api.client import Client
from llb_core.demo.network import Namespace, Network, Process, python, stop, wait_until
from llb_core.errors import DaemonUnreachable, HostError
from llb_core.run_folder import RUN, STATE, RunFolder


@dataclass(frozen=True, slots=True)
class Addresses:
    """The addresses of a lab's hosts, of one family."""

    vip: str
    other_vip: str
    _clients: str
    _backends: str
    length: int
    """Of the prefix of both networks."""

    def client(self, number: int) -> str:
        """An address on the clients' network; the load balancer has 1, clients begin at 11."""
        return f"{self._clients}{number}"

    def backend(self, number: int) -> str:
        """An address on the backends' network; the load balancer has 1, backends begin at 11."""
        return f"{self._backends}{number}"

    @property
    def backend_network(self) -> str:
        """The backends' network."""
        return str(ip_network((self.backend(1), self.length), strict=False))


ADDRESSES = {
    4: Addresses("203.0.113.10", "203.0.113.20", "198.51.100.", "10.0.0.", 24),
    6: Addresses("2001:db8:f::10", "2001:db8:f::20", "2001:db8:c::", "fd00:b::", 64),
}
VIP = ADDRESSES[4].vip
PORT = 80
UDP_PORT = 9000
BACKEND_PORT = 8080
PINS = Path("/sys/fs/bpf/llb")
LIMIT = 900.0
"""Seconds until what the daemon must come to has failed to: a busy machine takes its time."""
_numbers = itertools.count(1)


@dataclass
class BackendHost:
    """A backend's host and its server, which can be killed and started again."""

    name: str
    address: str
    host: Namespace
    server: Process | None = None
    number: int = 11
    """The end of its addresses."""

    @property
    def endpoint(self) -> str:
        """Its address and port, as LLB's commands take and print them."""
        return endpoint(self.address)

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
    family: int = 4

    @property
    def addresses(self) -> Addresses:
        """The addresses of the lab's family."""
        return ADDRESSES[self.family]

    @property
    def vip(self) -> str:
        """The VIP of the lab's family."""
        return self.addresses.vip

    @property
    def url(self) -> str:
        """What the service `web` answers at."""
        return f"http://{in_url(self.vip)}/"

    @property
    def client(self) -> Namespace:
        """The first client."""
        return self.clients[0]

    def of(self, family: int) -> Lab:
        """The same hosts, spoken of in another family; servers are started and killed here."""
        backends = [
            replace_fields(each, address=ADDRESSES[family].backend(each.number), server=None)
            for each in self.backends
        ]
        return replace_fields(self, family=family, backends=backends)

    def start_backends(self) -> None:
        """Start every server that does not run."""
        for backend in self.backends:
            backend.start()


def build(
    network: Network, clients: int = 1, backends: int = 3, one_arm: bool = False, family: int = 4
) -> Lab:
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
    _number_hosts(lb, private, client_hosts, backend_hosts)
    return Lab(
        client_hosts,
        lb,
        [_backend(number, host, family) for number, host in enumerate(backend_hosts, 1)],
        private_interface=private,
        family=family,
    )


def build_cable(network: Network, prefix: str, family: int = 4) -> Lab:
    """Make one client and one backend, each at a cable of its own to the load balancer."""
    client, lb, host = (network.add(f"{prefix}-{role}") for role in ("client", "lb", "b1"))
    network.link((client, "eth0"), (lb, "eth0"))
    network.link((lb, "eth1"), (host, "eth0"))
    _number_hosts(lb, "eth1", [client], [host])
    return Lab([client], lb, [_backend(1, host, family)], family=family)


def _backend(number: int, host: Namespace, family: int) -> BackendHost:
    place = number + 10
    return BackendHost(f"b{number}", ADDRESSES[family].backend(place), host, number=place)


def _number_hosts(
    lb: Namespace, private: str, clients: Sequence[Namespace], backends: Sequence[Namespace]
) -> None:
    """Give every host its addresses of both families, and its way to the others."""
    for family, own in ADDRESSES.items():
        lb.ip(
            f"addr add {own.client(1)}/{own.length} dev eth0",
            f"addr add {own.backend(1)}/{own.length} dev {private}",
        )
        for hosts, address in ((clients, own.client), (backends, own.backend)):
            for number, host in enumerate(hosts, 11):
                host.ip(
                    f"addr add {address(number)}/{own.length} dev eth0",
                    f"route add {'0.0.0.0' if family == 4 else '::'}/0 via {address(1)}",
                )


@dataclass
class Balancer:
    """The daemon in the namespace `lb`, as a user runs it."""

    lab: Lab
    folder: Path
    name: str = field(default_factory=lambda: f"lab-{os.getpid()}-{next(_numbers)}")
    daemon: Process | None = None
    command: Sequence[str] = ()
    """What starts the daemon in place of `llb`."""

    @property
    def config(self) -> Path:
        """The configuration's file."""
        return self.folder / "llb.toml"

    @property
    def log(self) -> Path:
        """Where the daemon's standard error goes."""
        return self.folder / "daemon.log"

    def write_config(self, text: str | None = None, **changes: Any) -> None:
        """Write llb.toml: that text, or `configuration` with changes."""
        replace(self.config, text or configuration(self.lab, self.name, **changes))

    def write_backends(
        self, backends: Sequence[BackendHost], families: Sequence[int] | None = None
    ) -> None:
        """Write backends.toml, moved into its place whole."""
        addresses = [
            ADDRESSES[family].backend(backend.number)
            for family in families or (self.lab.family,)
            for backend in backends
        ]
        self.write_addresses(addresses)

    def write_addresses(self, addresses: Sequence[str]) -> None:
        """Write backends.toml with these addresses."""
        for name, port in (("backends.toml", BACKEND_PORT), ("udp.toml", UDP_PORT)):
            lines = [f'[[backends]]\naddress = "{each}"\nport = {port}\n' for each in addresses]
            replace(self.folder / name, "\n".join(lines) or "backends = []\n")

    def llb(self, *arguments: str, check: bool = True) -> str:
        """Run `llb ARGUMENTS -c llb.toml` as an operator would; give what it prints."""
        command = [*llb_command(), *arguments, "-c", str(self.config)]
        return self.lab.lb.run(*command, check=check).stdout

    def start(self, wait: bool = True) -> None:
        """Start the daemon and wait until it serves."""
        with self.log.open("a") as log:
            self.daemon = self.lab.lb.start(
                *(self.command or llb_command()),
                "run",
                "--log-format",
                "json",
                "-c",
                self.config,
                stdout=log,
                stderr=log,
            )
        if wait:
            wait_until(self.serves, LIMIT, "the daemon answers")

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
        return Client(RunFolder(self.name).socket, timeout=30)

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
        code = stop(self.daemon, signal.SIGTERM, LIMIT)
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
    families: Sequence[int] | None = None,
    when_unhealthy: str = "keep",
    snat_addresses: str = "",
    settings: str = "",
    service: str = "",
    health: str = 'type = "http"\npath = "/healthz"',
    extra: str = "",
) -> str:
    """An llb.toml for that lab: HTTP on port 80, UDP on port 9000 of the VIP, of the lab's family
    or of those given."""
    own = [ADDRESSES[family] for family in families or (lab.family,)]
    vips = json.dumps([each.vip for each in own])
    return f"""\
[loadbalancer]
name              = "{name}"
public_interface  = "{lab.public_interface}"
private_interface = "{lab.private_interface}"
backend_cidrs     = {json.dumps([each.backend_network for each in own])}
snat_addresses    = {snat_addresses or json.dumps([each.backend(1) for each in own])}
{settings}

[services.web]
address        = {vips}
port           = {PORT}
when_unhealthy = "{when_unhealthy}"
{service}
[services.web.provider]
name = "static"
path = "backends.toml"

[services.web.health]
{health}

[services.echo]
address  = {vips}
port     = {UDP_PORT}
protocol = "udp"

[services.echo.provider]
name = "static"
path = "udp.toml"

[services.echo.health]
type = "tcp"
port = {BACKEND_PORT}
{extra}"""


def in_url(address: str) -> str:
    """An address as it stands before a port."""
    return f"[{address}]" if ":" in address else address


def endpoint(address: str, port: int = BACKEND_PORT) -> str:
    """An address and a port, as LLB's commands take and print them."""
    return f"{in_url(address)}:{port}"


def llb_command() -> list[str]:
    """The command `llb` of this very installation, wherever it is called."""
    return [sys.executable, "-P", "-m", "llb_core"]


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
