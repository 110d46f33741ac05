"""One way from a client to a backend: its hosts, and what answers at their end."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from llb_core.demo import lab
from llb_core.demo.network import Namespace, Network, Process, wait_until
from llb_core.errors import HostError

HTTP, IPERF, UDP = 8080, 5201, 9000
SERVICES = (("web", HTTP, "tcp"), ("iperf", IPERF, "tcp"), ("datagrams", UDP, "udp"))
"""Name, port and transport of what each way carries; the port is the same at the backend."""
SNAT_ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
CPUS = os.cpu_count() or 1


class Missing(HostError):
    """What a way needs is not on this machine: it is left out, and the others go on."""


@dataclass
class Way:
    """One way, ready to be measured; `address` is what the client speaks to."""

    name: str
    hosts: lab.Lab
    address: str
    tools: Path
    """The folder of the load generators."""
    counter: Process
    """Counts the datagrams that come to the backend; says how many when it is sent a line."""

    @property
    def client(self) -> Namespace:
        """The client's host."""
        return self.hosts.client

    def wait(self) -> None:
        """Return once a request comes through; TimeoutError after 30 s."""
        url = f"http://{self.address}:{HTTP}/"

        def answers() -> bool:
            return self.client.run("curl", "-sf", "-m1", url, check=False).returncode == 0

        wait_until(answers, 30, f"{self.name} forwards")


@dataclass(frozen=True)
class Kind:
    """A way that can be made: `make(network, tools)` raises Missing where it can't be here."""

    name: str
    """As it is called on the command line."""
    title: str
    make: Callable[[Network, Path], AbstractContextManager[Way]]
    transports: frozenset[str] = frozenset({"tcp", "udp"})


def ready(name: str, hosts: lab.Lab, address: str, tools: Path) -> Way:
    """Start what answers, on the backend's host."""
    backend = hosts.backends[0].host
    backend.start("iperf3", "--server", "--port", str(IPERF), stdout=subprocess.DEVNULL)
    server = backend.start(tools / "http_server", str(HTTP))
    counter = backend.start(tools / "datagrams", "count", str(UDP), stdin=subprocess.PIPE)
    for process in (server, counter):
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise HostError(f"{name}: a server did not start")

    def iperf_listens() -> bool:
        return bool(backend.run("ss", "-Hltn", f"sport = :{IPERF}").stdout)

    wait_until(iperf_listens, 30, f"{name}: iperf3 listens")
    # A client that closes first keeps TIME_WAIT: it may use its ports again after a second.
    hosts.client.sysctl("net.ipv4.tcp_tw_reuse=1")
    return Way(name, hosts, address, tools, counter)
