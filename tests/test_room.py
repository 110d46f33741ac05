"""A shortage is told before it is one."""

from __future__ import annotations

import ipaddress

import pytest

from llb_core.config import LoadBalancerConfig
from llb_core.model import (
    BackendMode,
    Endpoint,
    Installed,
    InstalledBackend,
    InstalledService,
    ServiceKey,
    Timeouts,
    Transport,
)
from llb_core.room import shortages

BACKEND = Endpoint(ipaddress.ip_address("10.0.0.2"), 8080)
SETTINGS = LoadBalancerConfig(
    name="llb",
    public_interfaces=("eth0",),
    private_interface="eth1",
    backend_cidrs=(ipaddress.ip_network("10.0.0.0/24"),),
    snat_addresses=(ipaddress.ip_address("10.0.0.1"), ipaddress.ip_address("10.0.0.9")),
    snat_ports=(1001, 1050),
    manage_addresses=True,
    max_connections=1000,
)


def service(slot: int, protocol: Transport = Transport.TCP) -> InstalledService:
    vip = Endpoint(ipaddress.ip_address("203.0.113.1"), slot)
    return InstalledService(slot, f"s{slot}", ServiceKey(vip, protocol), Timeouts())


def backend(slot: int, service_slot: int) -> InstalledBackend:
    return InstalledBackend(slot, service_slot, BACKEND, BackendMode.ACTIVE)


INSTALLED = Installed(
    services={1: service(1), 2: service(2), 3: service(3, Transport.UDP)},
    backends={1: backend(1, 1), 2: backend(2, 2), 3: backend(3, 3)},
)


@pytest.mark.parametrize(
    ("by_backend", "expected"),
    [
        pytest.param({1: 79}, [], id="room enough"),
        pytest.param({1: 80}, ["10.0.0.2:8080/tcp"], id="of one service"),
        pytest.param({1: 40, 2: 40}, ["10.0.0.2:8080/tcp"], id="services share the ports"),
        pytest.param({1: 40, 3: 40}, [], id="protocols don't"),
        pytest.param({9: 99}, [], id="of a backend that is gone"),
    ],
)
def test_ports_that_run_out(by_backend: dict[int, int], expected: list[str]) -> None:
    assert [each.of for each in shortages(4, 99, by_backend, {}, INSTALLED, SETTINGS)] == expected


def test_tables_that_fill_up() -> None:
    (found,) = shortages(4, 800, {}, {}, INSTALLED, SETTINGS)
    assert found.text.startswith("800 of loadbalancer.max_connections = 1000 are in use")


def test_says_what_to_do() -> None:
    (found,) = shortages(4, 0, {1: 90}, {}, INSTALLED, SETTINGS)
    assert found.text == (
        "backend 10.0.0.2:8080/tcp: 90 of 100 SNAT ports are in use: "
        "add addresses to loadbalancer.snat_addresses"
    )


def test_ports_that_have_run_out_name_the_backend_and_how_many_it_cost() -> None:
    found = shortages(4, 0, {1: 100}, {1: 3, 2: 4}, INSTALLED, SETTINGS)

    assert [each.what for each in found] == [
        "10.0.0.2:8080/tcp is short of ports",
        "10.0.0.2:8080/tcp has no ports left",
    ]
    assert found[1].of == "10.0.0.2:8080/tcp"
    assert found[1].text == (
        "backend 10.0.0.2:8080/tcp: 7 new connections found no free SNAT port and were dropped: "
        "add addresses to loadbalancer.snat_addresses"
    )
