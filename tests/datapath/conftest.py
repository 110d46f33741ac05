"""What the tests of the kernel's side share: a host of their own, and pins that are gone after."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from llb_core.config import Config, LoadBalancerConfig
from llb_core.datapath import Datapath, bpffs, tcx
from llb_core.demo.network import Namespace, Network, wait_until
from llb_core.model import (
    BackendMode,
    Desired,
    DesiredBackend,
    DesiredService,
    Endpoint,
    Route,
    ServiceKey,
    Timeouts,
    Transport,
)

NAME = f"llb-test-{os.getpid()}"
VIPS = {4: "203.0.113.10", 6: "[2001:db8:f::10]"}
"""As they stand before a port."""


@pytest.fixture(autouse=True)
def as_a_process_that_ends() -> Iterator[None]:
    """Close what a test leaves open of the kernel's BPF, as the kernel does for a daemon that is
    killed: a thousand maps that nobody wants take memory, and descriptors."""
    before = _of_bpf()
    yield
    for descriptor in _of_bpf() - before:
        os.close(descriptor)


def _of_bpf() -> set[int]:
    """Return this process's descriptors of BPF maps, programs and links."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # The one that lists them.
            if path.readlink().name.startswith(("anon_inode:bpf", "anon_inode:[bpf")):
                found.add(int(path.name))
    return found


@dataclass(frozen=True)
class Host:
    """A host with a public and a private interface, and a configuration that fits it."""

    namespace: Namespace
    config: Config
    peer: Namespace
    """At the other end of both, as `client` and `backend`."""


def settings(**changes: object) -> LoadBalancerConfig:
    """The balancer's settings, with some changed."""
    values: dict[str, object] = {
        "name": NAME,
        "public_interfaces": ("public",),
        "private_interface": "private",
        "backend_cidrs": tuple(map(ipaddress.ip_network, ("10.0.0.0/24", "fd00:b::/64"))),
        "snat_addresses": tuple(map(ipaddress.ip_address, ("10.0.0.11", "fd00:b::11"))),
        "snat_ports": (1024, 32767),
        "manage_addresses": True,
        "max_connections": 1000,
    }
    return LoadBalancerConfig(**{**values, **changes})  # type: ignore[arg-type]


def config(**changes: object) -> Config:
    """A configuration without services."""
    return Config(path=Path("llb.toml"), loadbalancer=settings(**changes), services=())


def endpoint(text: str) -> Endpoint:
    """`10.0.0.2:80` as a value."""
    return Endpoint.parse(text)


def desired(
    *backends: str, mode: BackendMode = BackendMode.ACTIVE, name: str = "web", vip: str = VIPS[4]
) -> Desired:
    """One service, with these backends in this mode."""
    key = ServiceKey(endpoint(f"{vip}:80"), Transport.TCP)
    places = [endpoint(each) for each in sorted(backends)]
    wanted = tuple(DesiredBackend(each, 1, mode, Route(1, each.address, 1500)) for each in places)
    return Desired({key: DesiredService(name, key, Timeouts(), wanted)})


@pytest.fixture
def network() -> Iterator[Network]:
    """Namespaces of the test's own."""
    with Network() as made:
        yield made


@pytest.fixture
def host(network: Network) -> Iterator[Host]:
    """The calling thread, inside a host of its own; what it pins is taken away."""
    namespace, peer = network.add("lb"), network.add("peer")
    network.link((namespace, "public"), (peer, "client"))
    network.link((namespace, "private"), (peer, "backend"))
    namespace.ip(
        "addr add 198.51.100.1/24 dev public",
        "addr add 10.0.0.1/24 dev private",
        "addr add 2001:db8:c::1/64 dev public",
        "addr add fd00:b::1/64 dev private",
    )
    shown = ("ip", "-6", "addr", "show", "scope", "link")
    wait_until(
        lambda: namespace.run(*shown).stdout.count("fe80::") == 2, 5, "links have their addresses"
    )
    bpffs.ensure_bpffs()
    with namespace.entered():
        try:
            yield Host(namespace, config(), peer)
        finally:
            Datapath.detach(NAME)


@pytest.fixture
def datapath(host: Host) -> Iterator[Datapath]:
    """The kernel's side, loaded and not attached."""
    opened = Datapath.open(host.config.loadbalancer, [4])
    yield opened
    opened.close()


@pytest.fixture
def clsact(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A kernel without TCX, so that filters on clsact are used, until the patch is undone."""
    monkeypatch.setattr(tcx.Links, "attach", lambda *_: False)
    return monkeypatch
