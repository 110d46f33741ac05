"""Packets through a real interface: headers in pieces, and checksums left to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import pytest
from scapy.layers.inet import ICMP
from scapy.layers.inet6 import ICMPv6PacketTooBig
from scapy.utils import checksum

from tests.bpf.cases.errors import error
from tests.bpf.cases.pieces import later
from tests.bpf.harness import talk, world
from tests.bpf.harness.packets import (
    MORE_FRAGMENTS,
    OPTIONS,
    at_backend,
    at_client,
    from_backend,
    from_client,
    numbered_alike,
    parsed,
    question,
    question_at_backend,
    with_partial_checksum,
)
from tests.bpf.harness.rig import ETHERNET, Rig, to_frame
from tests.bpf.harness.tags import tagged
from tests.bpf.harness.wire import JUMBO, Offloads, Wire, attached, on_clsact, on_tcx
from tests.bpf.harness.world import BACKEND, CLIENT, PUBLIC, SNAT, VIP

pytestmark = pytest.mark.root

TCP_CHECKSUM, UDP_CHECKSUM = 16, 6
UDP_NUMBER = 17


@pytest.fixture
def wire(rig: Rig) -> Iterator[Wire]:
    """The classifier on the public interface; links and routes take jumbo frames."""
    with attached(rig) as ends:
        for port in (8080, 5353):
            way = world.route(rig.private_index, BACKEND, JUMBO)
            rig.put_backend(BACKEND, port, route=way)
        yield ends


def l4(rig: Rig) -> int:
    """Where TCP or UDP begins in a frame without options."""
    return ETHERNET + (20 if rig.family == 4 else 40)


@pytest.mark.parametrize("linear", [14, 15, 33, 34, 35, 53, 54, 55, 70, 73, 74, 80, 94, 200])
@pytest.mark.parametrize("options", [[], OPTIONS], ids=["plain", "options"])
def test_segment_whose_headers_lie_in_pieces(
    rig: Rig, wire: Wire, linear: int, options: list[bytes]
) -> None:
    payload = bytes(place % 251 for place in range(6001))
    frame = to_frame(from_client("S", payload, options=options), PUBLIC)

    wire.send(frame, Offloads(linear=linear))

    got, _ = wire.receive()
    assert got == bytes(at_backend("S", payload, options=options))


@pytest.mark.parametrize("linear", [14, 34, 41, 42, 54, 61, 62])
def test_datagram_whose_headers_lie_in_pieces(rig: Rig, wire: Wire, linear: int) -> None:
    payload = bytes(place % 251 for place in range(6001))

    wire.send(to_frame(question(payload), PUBLIC), Offloads(linear=linear))

    got, _ = wire.receive()
    assert got == bytes(question_at_backend(payload))


@pytest.mark.parametrize("linear", [14, 34, 41, 42, 54, 61, 62, 75, 90, 110])
def test_icmp_error_whose_headers_lie_in_pieces(rig: Rig, wire: Wire, linear: int) -> None:
    talk.established(rig)
    payload = bytes(place % 251 for place in range(5001))
    packet = error(CLIENT, VIP, "too big", at_client("A", payload))

    wire.send(to_frame(packet, PUBLIC), Offloads(linear=linear))

    got, _ = wire.receive()
    quoted = from_backend("A", payload, ttl=63)
    assert got == bytes(error(SNAT, BACKEND, "too big", quoted, ttl=63))


@pytest.mark.parametrize("linear", [14, 34, 54, 62])
def test_later_fragment_whose_headers_lie_in_pieces(rig: Rig, wire: Wire, linear: int) -> None:
    payload = bytes(place % 251 for place in range(5001))

    wire.send(to_frame(question(ip_flags=MORE_FRAGMENTS), PUBLIC), Offloads())
    wire.send(to_frame(later(CLIENT, VIP, UDP_NUMBER, payload), PUBLIC), Offloads(linear=linear))

    first, last = (parsed(wire.receive()[0]) for _ in range(2))
    expected = later(SNAT, BACKEND, UDP_NUMBER, payload, ttl=63)
    assert bytes(last) == bytes(numbered_alike(expected, first))


def test_partial_checksum_of_tcp_stays_partial_and_right(rig: Rig, wire: Wire) -> None:
    packet = with_partial_checksum(from_client("S", b"data"))

    wire.send(to_frame(packet, PUBLIC), Offloads(0, l4(rig), TCP_CHECKSUM))

    got, offloads = wire.receive()
    assert offloads.has_partial_checksum
    assert got == bytes(with_partial_checksum(at_backend("S", b"data")))


def test_partial_checksum_of_udp_stays_partial_and_right(rig: Rig, wire: Wire) -> None:
    packet = with_partial_checksum(question(b"odd"))

    wire.send(to_frame(packet, PUBLIC), Offloads(0, l4(rig), UDP_CHECKSUM))

    got, offloads = wire.receive()
    assert offloads.has_partial_checksum
    assert got == bytes(with_partial_checksum(question_at_backend(b"odd")))


def test_merged_segments_go_out_as_they_came(rig: Rig, wire: Wire) -> None:
    """What GRO made, or a sender leaves to be cut: larger than any link, and still one packet."""
    talk.established(rig)
    payload = bytes(place % 251 for place in range(40_001))
    packet = with_partial_checksum(from_client("A", payload))

    wire.send(
        to_frame(packet, PUBLIC), Offloads(l4(rig) + 20, l4(rig), TCP_CHECKSUM, gso_size=1448)
    )

    got, offloads = wire.receive()
    assert offloads.gso_size == 1448
    assert got == bytes(with_partial_checksum(at_backend("A", payload)))


def test_merged_segments_that_do_not_fit_are_refused(rig: Rig, wire: Wire) -> None:
    """The device fills in what is left of a checksum to it: the ICMP sum is right before that, as
    it is for a receiver without a device in between, and after."""
    talk.established(rig)
    rig.put_backend(BACKEND, 8080, route=world.route(rig.private_index, BACKEND, 1400))
    packet = with_partial_checksum(from_client("A", bytes(range(256)) * 150))

    wire.send(
        to_frame(packet, PUBLIC), Offloads(l4(rig) + 20, l4(rig), TCP_CHECKSUM, gso_size=1448)
    )

    got, offloads = wire.receive_at_client()
    told = parsed(got)
    header = l4(rig) - ETHERNET
    assert got[header + 8 : 2 * header + 8] == bytes(packet)[:header]
    if rig.family == 4:
        assert (told[ICMP].nexthopmtu, len(got)) == (1400, 576)
    else:
        assert (told[ICMPv6PacketTooBig].mtu, len(got)) == (1400, 1280)
    assert not offloads.gso_size
    assert checksum(pseudo_header(got) + got[header:]) == 0
    assert offloads.has_partial_checksum
    assert checksum(pseudo_header(got) + filled_in(got, offloads)[header:]) == 0


@pytest.mark.parametrize("hook", [on_clsact, on_tcx])
def test_tags_of_priorities_are_taken_off(
    rig: Rig, hook: Callable[[Rig], AbstractContextManager[None]]
) -> None:
    """The stack takes such a frame as one without, so it would answer for us. The kernel keeps the
    first tag beside the frame, and takes those behind it out of the frame one by one."""
    priority, vlan = 5 << 13, 5 << 13 | 7
    packets = {count: from_client("S", f"{count} tags".encode()) for count in range(1, 5)}

    with attached(rig, hook) as wire:
        wire.send(tagged(to_frame(packets[1], PUBLIC), vlan), Offloads())
        wire.send(tagged(to_frame(packets[2], PUBLIC), priority, vlan), Offloads())
        for count, packet in reversed(packets.items()):
            wire.send(tagged(to_frame(packet, PUBLIC), *[priority] * count), Offloads())
        arrived = [wire.receive() for _ in range(3)]

    assert [got for got, _ in arrived] == [
        bytes(at_backend("S", f"{count} tags".encode())) for count in (3, 2, 1)
    ]
    assert not any(offloads.is_tagged for _, offloads in arrived)


def pseudo_header(packet: bytes) -> bytes:
    """What the checksum of an ICMP message covers beside the message."""
    if packet[0] >> 4 == 4:
        return b""
    return packet[8:40] + (len(packet) - 40).to_bytes(4, "big") + bytes([0, 0, 0, 58])


def filled_in(packet: bytes, offloads: Offloads) -> bytes:
    """What a device makes of a packet whose checksum was left to it."""
    start = offloads.checksum_start - ETHERNET
    place = start + offloads.checksum_offset
    word = checksum(packet[start:]).to_bytes(2, "big")
    return packet[:place] + word + packet[place + 2 :]
