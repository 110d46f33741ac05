"""The segments that reset both ends of a connection."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from llb_core.datapath.connections import Connection
from llb_core.datapath.layout import ConnectionState
from llb_core.datapath.resets import segment, send_resets
from llb_core.demo.network import Namespace, Network, wait_until
from llb_core.model import Endpoint, Transport

NET = {4: "10.0.0.", 6: "fd00::"}


def endpoint(family: int, host: int, port: int) -> Endpoint:
    """One of four ends: a client, the VIP, our own, a backend."""
    return Endpoint(ipaddress.ip_address(f"{NET[family]}{host}"), port)


def connection(family: int, **changes: object) -> Connection:
    """A connection with data on their way to the client, but for these changes."""
    made = Connection(
        protocol=Transport.TCP,
        client=endpoint(family, 7, 40000),
        vip=endpoint(family, 8, 80),
        snat=endpoint(family, 9, 2000),
        backend=endpoint(family, 6, 8080),
        state=ConnectionState.ESTABLISHED,
        is_assured=True,
        service_slot=1,
        backend_slot=1,
        client_next=2**32 - 1,
        client_awaits=5000,
        backend_next=6500,
        backend_awaits=2**32 - 1,
        packets_in=1,
        bytes_in=1,
        packets_out=1,
        bytes_out=1,
    )
    return dataclasses.replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("ack", [0, 1, 0xFFFFFFFF])
def test_segment_is_a_reset_with_right_checksums(family: int, ack: int) -> None:
    raw = segment(endpoint(family, 8, 80), endpoint(family, 7, 40000), 2**32 + 5, ack)

    kind = IP if family == 4 else IPv6
    packet = kind(raw)
    again = packet.copy()
    del again[TCP].chksum
    assert packet[TCP].chksum == kind(bytes(again))[TCP].chksum
    assert (packet[TCP].flags, packet[TCP].seq, packet[TCP].ack) == ("RA", 5, ack)
    assert (packet.src, packet.dst) == (f"{NET[family]}8", f"{NET[family]}7")
    assert (packet[TCP].sport, packet[TCP].dport) == (80, 40000)


@pytest.fixture(params=[4, 6])
def family(request: pytest.FixtureRequest) -> int:
    """The address family."""
    number: int = request.param
    return number


@pytest.fixture
def host(family: int) -> Iterator[Namespace]:
    """A namespace that has every address of that family on its loopback."""
    with Network() as network:
        made = network.add("resets")
        made.sysctl(*(f"net.ipv6.conf.{each}.disable_ipv6=0" for each in ("all", "lo")))
        end = "/32" if family == 4 else "/128 nodad"
        made.ip(*(f"addr add {NET[family]}{each}{end} dev lo" for each in ("6", "7", "8", "9")))
        routes = ("ip", f"-{family}", "route", "show", "table", "local")
        wait_until(
            lambda: all(f"{NET[family]}{each} " in made.run(*routes).stdout for each in "6789"),
            5,
            "the kernel has a route to each address",
        )
        yield made


@pytest.mark.root
def test_both_ends_are_reset_by_what_they_await_and_what_they_may_await(
    host: Namespace, family: int
) -> None:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with host.entered(), socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_TCP) as listening:
        listening.settimeout(5)

        assert send_resets([connection(family)]) == 1

        heard = []
        while len(heard) < 3:
            data, sender = listening.recvfrom(100)
            segment_ = TCP(data[20:] if family == 4 else data)
            heard.append((sender[0], segment_.sport, segment_.dport, segment_.seq, segment_.ack))
    assert heard == [
        (f"{NET[family]}8", 80, 40000, 5000, 2**32 - 1),
        (f"{NET[family]}8", 80, 40000, 6500, 2**32 - 1),
        (f"{NET[family]}9", 2000, 8080, 2**32 - 1, 6500),
    ]


@pytest.mark.root
@pytest.mark.parametrize(
    "changes", [{"protocol": Transport.UDP}, {"state": ConnectionState.CLOSED}],
    ids=["udp", "closed"],
)  # fmt: skip
def test_what_has_nothing_to_reset_is_left_alone(
    host: Namespace, family: int, changes: dict[str, object]
) -> None:
    with host.entered():
        assert send_resets([connection(family, **changes)]) == 0


@pytest.mark.root
def test_end_without_a_way_to_it_does_not_keep_the_others(host: Namespace, family: int) -> None:
    lost = dataclasses.replace(
        connection(family),
        client=Endpoint(ipaddress.ip_address("192.0.2.1" if family == 4 else "2001:db8::1"), 1),
    )
    with host.entered():
        assert send_resets([lost, connection(family)]) == 2
