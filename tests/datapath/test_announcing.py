"""Neighbours hear of an interface's new MAC address: for which addresses, and how often."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA
from scapy.layers.l2 import ARP, Ether

from llb_core import capabilities
from llb_core.datapath import links
from llb_core.datapath.announcing import PAUSE, TIMES, WINDOW, Announcer
from llb_core.demo.network import Namespace, Network
from llb_core.testing import Clock
from tests.datapath.conftest import settings

pytestmark = pytest.mark.netns

VIP, VIP6, LATE, ELSEWHERE = "203.0.113.10", "2001:db8:f::10", "203.0.113.20", "203.0.113.30"
SNAT = "10.0.0.11"
VIPS = frozenset(map(ipaddress.ip_address, (VIP, VIP6, LATE, ELSEWHERE)))
OWN = {"public": ["198.51.100.1", "2001:db8:c::1", "fe80::1"], "private": ["10.0.0.1"]}
NEW = "02:00:00:00:00:99"
_MARK = b"\xff" * 12 + b"\x88\xb5"  # of a protocol for experiments: IEEE 802, local 1


@dataclass
class Link:
    """A host with addresses of ours on `lo`, and what comes out of its interfaces."""

    host: Namespace
    ends: dict[str, socket.socket]
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.announcer = Announcer(self.clock)

    def look(self) -> list[str]:
        return self.announcer.look(settings(), VIPS)

    def told(self, interface: str) -> list[str]:
        """Return the addresses that neighbours on an interface were told of since last asked."""
        with self.host.entered(), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
            link.sendto(_MARK, (interface, 0))
        found = []
        while (frame := self.ends[interface].recv(2048)) != _MARK:
            packet = Ether(frame)
            if ARP in packet and packet[ARP].psrc == packet[ARP].pdst:
                assert packet[ARP].hwsrc == packet.src == NEW
                found.append(packet[ARP].psrc)
            elif ICMPv6ND_NA in packet:
                assert packet.src == NEW
                found.append(packet[ICMPv6ND_NA].tgt)
        return sorted(found)


@pytest.fixture
def link() -> Iterator[Link]:
    with Network() as network:
        host, peer = network.add("lb"), network.add("peer")
        ends = {}
        for interface, addresses in OWN.items():
            network.link((host, interface), (peer, interface))
            host.ip(f"addr flush dev {interface}")
            for address in addresses:
                host.ip(f"addr add {of_its_network(address)} dev {interface}")
            with peer.entered():
                ends[interface] = socket.socket(
                    socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0003)
                )
            ends[interface].bind((interface, 3))
            ends[interface].settimeout(30)
        host.ip(*(f"addr add {address} dev lo" for address in (VIP, SNAT, VIP6)))
        made = Link(host, ends)
        with host.entered():
            assert made.look() == []
            yield made
        for end in ends.values():
            end.close()


def of_its_network(address: str) -> str:
    return f"{address}/64 nodad" if ":" in address else f"{address}/24"


def change(link: Link, interface: str) -> None:
    link.host.ip(f"link set {interface} address {NEW}")


def test_what_is_as_it_was_at_the_start_is_not_told(link: Link) -> None:
    assert link.look() == []
    assert link.told("public") == link.told("private") == []


def test_told_are_the_addresses_that_the_kernel_answers_for(link: Link) -> None:
    """The interface's own, and of IPv4 ours on `lo`; none on another interface, and none of which
    the kernel does not know yet that nobody else has it."""
    link.host.sysctl("net.ipv6.conf.public.accept_dad=1", "net.ipv6.conf.public.dad_transmits=999")
    link.host.ip("addr add 2001:db8:c::2/64 dev public", f"addr add {ELSEWHERE} dev private")
    change(link, "public")
    assert link.look() == [f"the MAC address of public is {NEW} now: neighbours are told"]
    assert link.told("public") == sorted([*OWN["public"], VIP])
    assert link.told("private") == []


def test_neighbours_on_the_private_side_are_told_of_snat_addresses(link: Link) -> None:
    change(link, "private")
    link.look()
    assert link.told("private") == [*OWN["private"], SNAT]


def test_what_the_kernel_is_to_ignore_on_an_interface_is_not_told(link: Link) -> None:
    link.host.sysctl("net.ipv4.conf.public.arp_ignore=1")
    change(link, "public")
    link.look()
    assert link.told("public") == sorted(OWN["public"])


def test_each_address_is_told_a_few_times_a_second_apart(link: Link) -> None:
    change(link, "public")
    times = []
    for _ in range(2 * TIMES):
        link.look()
        times.append(link.told("public").count(VIP))
        link.clock.now += PAUSE / 2
    assert times == [1, 0] * TIMES
    link.host.ip(f"addr add {LATE} dev lo")
    link.look()
    assert link.told("public") == [LATE], "what came later is told, too"
    link.clock.now += WINDOW
    link.look()
    assert link.told("public") == []


def test_another_interface_of_its_name_is_told_of_once_it_is_up(link: Link) -> None:
    """Even with the MAC address that it had: switches learn behind which port it is now."""
    card = links.find_card("private")
    assert card is not None
    mac = card.mac.hex(":")
    link.host.ip(
        "link del private",
        f"link add private address {mac} type veth peer name other",
        "addr add 10.0.0.1/24 dev private",
    )
    assert link.look() == []
    link.host.ip("link set other up", "link set private up")
    assert link.look() == [f"the MAC address of private is {mac} now: neighbours are told"]


def test_where_nobody_may_be_told_it_is_said_once(link: Link) -> None:
    change(link, "public")

    def look() -> list[str]:
        capabilities.keep_only([])
        return link.look()

    with ThreadPoolExecutor(1) as without_capabilities:
        (said,) = without_capabilities.submit(look).result()
    assert said.startswith(f"the MAC address of public is {NEW} now, and neighbours can't be")
    assert link.look() == []
    assert link.told("public") == []
