"""The segments that reset both ends of a connection."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from llb_core.datapath.layout import ConnectionState, records
from llb_core.datapath.resets import segments, send_resets
from llb_core.demo.network import Namespace, Network, wait_until
from llb_core.model import Transport

NET = {4: "10.0.0.", 6: "fd00::"}


def ended(family: int, **changes: int) -> Any:
    """A connection that was ended, with data on their way to the client, but for these changes."""
    of = records(family)
    (record,) = made = np.zeros(1, dtype=of.ended)
    key, from_client, from_backend = record["key"], record["dnat_half"], record["snat_half"]
    ends = {"client": 7, "vip": 8, "snat": 9, "backend": 6}
    client, vip, snat, backend = (of.pack(address(family, host)) for host in ends.values())
    key["src"], key["sport"], key["dst"], key["dport"] = client, 40000, vip, 80
    key["proto"] = changes.get("proto", Transport.TCP.number)
    from_client["new_src"], from_client["new_sport"] = snat, 2000
    from_client["new_dst"], from_client["new_dport"] = backend, 8080
    from_client["next"], from_client["ack"] = 2**32 - 1, 5000
    from_backend["next"] = changes.get("backend_next", 6500)
    from_backend["ack"] = 2**32 - 1
    from_backend["state"] = changes.get("state", ConnectionState.ESTABLISHED)
    return made


def address(family: int, host: int) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """One of four ends: a client, the VIP, our own, a backend."""
    return ipaddress.ip_address(f"{NET[family]}{host}")


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("number", [0, 1, 0xFFFFFFFF])
def test_segments_are_resets_with_right_checksums(family: int, number: int) -> None:
    rows = segments(records(family), ended(family, backend_next=number))

    kind = IP if family == 4 else IPv6
    packets = [kind(row.tobytes()) for row in rows]
    for packet in packets:
        again = packet.copy()
        del again[TCP].chksum
        assert packet[TCP].chksum == kind(bytes(again))[TCP].chksum
        assert (packet[TCP].flags, packet[TCP].dataofs, packet.version) == ("RA", 5, family)
    first, second, last = packets
    assert (first.src, first.dst) == (f"{NET[family]}8", f"{NET[family]}7")
    assert (first[TCP].sport, first[TCP].dport) == (80, 40000)
    assert [each[TCP].seq for each in packets] == [5000, number, 2**32 - 1]
    assert (second[TCP].ack, last[TCP].ack) == (2**32 - 1, number)
    assert (last.src, last.dst) == (f"{NET[family]}9", f"{NET[family]}6")


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

        assert send_resets(records(family), ended(family)) == 1

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
    "changes",
    [{"proto": Transport.UDP.number}, {"state": ConnectionState.CLOSED}],
    ids=["udp", "closed"],
)
def test_what_has_nothing_to_reset_is_left_alone(
    host: Namespace, family: int, changes: dict[str, int]
) -> None:
    with host.entered():
        assert send_resets(records(family), ended(family, **changes)) == 0


@pytest.mark.root
def test_end_without_a_way_to_it_does_not_keep_the_others(host: Namespace, family: int) -> None:
    both = np.concatenate((ended(family), ended(family)))
    both["key"]["src"][0] = records(family).pack(
        ipaddress.ip_address("192.0.2.1" if family == 4 else "2001:db8::1")
    )
    with host.entered():
        assert send_resets(records(family), both) == 2
