"""The addresses, interfaces and services that the tests of the classifier have in common.

The addresses are of IPv4, and stand for their counterparts where IPv6 is at hand (`family`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from llb_core.config import LoadBalancerConfig
from llb_core.model import (
    BackendMode,
    DesiredBackend,
    DesiredService,
    Endpoint,
    Policy,
    Route,
    ServiceKey,
    Timeouts,
    Transport,
)
from llb_core.rules import NO_RULES, Rules
from tests.bpf.harness.family import address as address
from tests.bpf.harness.family import network as network
from tests.bpf.harness.family import prefix as prefix


@dataclass(frozen=True, slots=True)
class Interface:
    """One of the balancer's interfaces; packets to its MAC address are for the host."""

    name: str
    mac: str


PUBLIC = Interface("public", "02:00:00:00:00:01")
PRIVATE = Interface("private", "02:00:00:00:00:02")

PUBLIC_PEER, PRIVATE_PEER = "public-peer", "private-peer"

PUBLIC_ADDRESS = "198.51.100.1"
GATEWAY = "198.51.100.254"
PRIVATE_ADDRESS = "10.0.0.1"

VIP = "203.0.113.10"
CLIENT = "192.0.2.10"
OTHER_CLIENT = "192.0.2.11"
UNROUTABLE = "198.18.0.9"
"""A client to whom the kernel has no way."""

SNAT = "10.0.0.11"
MORE_SNATS = ("10.0.0.12", "10.0.0.13", "10.0.0.14")
SNAT_PORTS = (1024, 32767)
PORT = 5000
"""A client's port that lies among the SNAT ports, so that it is kept."""

BACKEND = "10.0.0.2"
SECOND = "10.0.0.3"
NARROW = "10.0.0.4"
"""A backend behind a link that takes packets of 600 bytes."""
LOST = "10.0.0.9"
"""A backend without a route."""

MTU = 1500
TIMEOUTS = Timeouts(opening=5, established=7200, closing=10, closed=60, udp=60)


def settings(name: str, max_connections: int) -> LoadBalancerConfig:
    """Return the settings of a balancer with two interfaces and one SNAT address."""
    return LoadBalancerConfig(
        name=name,
        public_interfaces=(PUBLIC.name,),
        private_interface=PRIVATE.name,
        backend_cidrs=(network("10.0.0.0/24"),),
        snat_addresses=(address(SNAT),),
        snat_ports=SNAT_PORTS,
        manage_addresses=True,
        max_connections=max_connections,
    )


def route(interface: int, to: str, mtu: int = MTU) -> Route:
    """Return the way to a backend that is on the link."""
    return Route(interface, address(to), mtu)


def backend(
    host: str,
    port: int,
    interface: int,
    *,
    mode: BackendMode = BackendMode.ACTIVE,
    mtu: int = MTU,
    has_route: bool = True,
    weight: int = 1,
) -> DesiredBackend:
    """Return a backend that is reached directly by an interface."""
    way = route(interface, host, mtu) if has_route else None
    return DesiredBackend(Endpoint(address(host), port), weight, mode, way)


def service(
    name: str,
    protocol: Transport,
    port: int,
    backends: Iterable[DesiredBackend],
    policy: Policy | None = None,
    rules: Rules = NO_RULES,
) -> DesiredService:
    """Return a service on the VIP."""
    key = ServiceKey(Endpoint(address(VIP), port), protocol)
    return DesiredService(name, key, TIMEOUTS, tuple(backends), policy or Policy(), rules)


def services(private: int) -> tuple[DesiredService, ...]:
    """Return the services that a test finds, for the index of the private interface."""
    return (
        service("web", Transport.TCP, 80, [backend(BACKEND, 8080, private)]),
        service("dns", Transport.UDP, 53, [backend(BACKEND, 5353, private)]),
        service(
            "pair",
            Transport.TCP,
            81,
            [backend(BACKEND, 8081, private), backend(SECOND, 8081, private)],
        ),
        service(
            "pair-udp",
            Transport.UDP,
            54,
            [backend(BACKEND, 5454, private), backend(SECOND, 5454, private)],
        ),
        service("empty", Transport.TCP, 82, []),
        service("lost", Transport.TCP, 83, [backend(LOST, 8083, private, has_route=False)]),
        service("narrow", Transport.TCP, 84, [backend(NARROW, 8084, private, mtu=600)]),
        service("narrow-udp", Transport.UDP, 84, [backend(NARROW, 8084, private, mtu=600)]),
    )
