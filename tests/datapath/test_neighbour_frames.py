"""Questions for neighbours' MAC addresses, and announcements of our own, byte for byte as another
implementation writes them."""

from __future__ import annotations

import ipaddress

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from llb_core.datapath.neighbour_frames import announcement, answer, question

OWN, OTHER = "02:00:00:00:00:01", "02:00:00:00:00:02"
ADDRESS = {4: "203.0.113.10", 6: "2001:db8:f::12:3410"}
IP = {family: ipaddress.ip_address(text) for family, text in ADDRESS.items()}
MAC = bytes.fromhex(OWN.replace(":", ""))

ETHER = Ether(src=OWN, dst="ff:ff:ff:ff:ff:ff")
TO_ALL_NODES = Ether(src=OWN, dst="33:33:00:00:00:01") / IPv6(src=ADDRESS[6], dst="ff02::1")
TO_ITS_GROUP = Ether(src=OWN, dst="33:33:ff:12:34:10") / IPv6(src="::", dst="ff02::1:ff12:3410")


def advertisement(*, is_router: bool) -> Packet:
    said = ICMPv6ND_NA(R=is_router, S=0, O=1, tgt=ADDRESS[6])
    return TO_ALL_NODES / said / ICMPv6NDOptDstLLAddr(lladdr=OWN)


@pytest.mark.parametrize(
    ("frame", "wanted"),
    [
        (
            announcement(MAC, IP[4], is_router=True),
            ETHER / ARP(op=1, hwsrc=OWN, psrc=ADDRESS[4], pdst=ADDRESS[4]),
        ),
        (announcement(MAC, IP[6], is_router=True), advertisement(is_router=True)),
        (announcement(MAC, IP[6], is_router=False), advertisement(is_router=False)),
        (
            question(MAC, IP[4]),
            ETHER / ARP(op=1, hwsrc=OWN, psrc="0.0.0.0", pdst=ADDRESS[4]),
        ),
        (question(MAC, IP[6]), TO_ITS_GROUP / ICMPv6ND_NS(tgt=ADDRESS[6])),
    ],
    ids=[
        "told over IPv4",
        "told over IPv6",
        "told by a host",
        "asked over IPv4",
        "asked over IPv6",
    ],
)
def test_is_as_another_implementation_writes_it(frame: bytes, wanted: Packet) -> None:
    assert frame == bytes(wanted)


@pytest.mark.parametrize("family", [4, 6])
def test_an_answer_names_its_address_and_who_sent_it(family: int) -> None:
    to_us = Ether(src=OTHER, dst=OWN)
    said = {
        4: to_us / ARP(op=2, hwsrc=OTHER, psrc=ADDRESS[4], hwdst=OWN, pdst="0.0.0.0"),
        6: to_us / IPv6(src=ADDRESS[6], dst="ff02::1") / ICMPv6ND_NA(tgt=ADDRESS[6]),
    }
    assert answer(bytes(said[family])) == (IP[family], OTHER)
    assert answer(question(MAC, IP[family])) is None
