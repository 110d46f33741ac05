"""Checksums: of every length, of odd values, and of what is passed on with the rest of a header."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet

from llb_core.datapath.layout import Verdict
from tests.bpf.cases.case import IN, NEW, OUT, STAMPS, Case
from tests.bpf.harness import talk
from tests.bpf.harness.packets import (
    at_backend,
    at_client,
    changed,
    from_backend,
    from_client,
    parsed,
    question,
    question_at_backend,
    reply,
    reply_at_client,
    tcp,
    udp,
)
from tests.bpf.harness.world import BACKEND, CLIENT, PORT, PRIVATE, PUBLIC, SNAT, VIP, Interface

Leg = tuple[str, talk.Given, Callable[..., Packet], Callable[..., Packet], Verdict, Interface]

BALANCED = "192.0.24.1"
"""A client whose address and the VIP add up to what SNAT address and backend do: a checksum can't
tell the one pair from the other."""
SIZES = (2, 3, 4, 7, 255, 256, 1023, 1439)
_OPTIONS: dict[str, list[Any]] = {
    "sack": [("NOP", None), ("NOP", None), ("SAck", (1500, 2500))],
    "sixty bytes of header": [*STAMPS, ("SAck", (1, 2, 3, 4, 5, 6)), ("NOP", None), ("NOP", None)],
    "an unknown option": [(253, b"\x12\x34")],
}
_TCP: tuple[Leg, ...] = (
    ("request", talk.established, from_client, at_backend, IN, PUBLIC),
    ("response", talk.established, from_backend, at_client, OUT, PRIVATE),
)
_UDP: tuple[Leg, ...] = (
    ("question", talk.replied, question, question_at_backend, IN, PUBLIC),
    ("answer", talk.replied, reply, reply_at_client, OUT, PRIVATE),
)


def sizes() -> list[Case]:
    """Data of many lengths, each way, over each protocol."""
    made = []
    for size in SIZES:
        data = bytes(place * 37 % 256 for place in range(size))
        for name, given, before, behind, verdict, arrives_on in _TCP:
            made.append(
                Case(f"{name} of {size} bytes", given, before("PA", data), verdict,
                     behind("PA", data), arrives_on)
            )  # fmt: skip
        for name, given, before, behind, verdict, arrives_on in _UDP:
            made.append(
                Case(f"{name} of {size} bytes", given, before(data), verdict, behind(data),
                     arrives_on)
            )  # fmt: skip
    return made


def values() -> list[Case]:
    """Checksums that come out, or come in, as they seldom do; and what must be kept beside them."""
    made = []
    for name, given, before, behind, verdict, arrives_on in _TCP:
        for what, options in _OPTIONS.items():
            made.append(
                Case(f"{name} with {what}", given, before("A", b"x", tcp_options=options), verdict,
                     behind("A", b"x", tcp_options=options), arrives_on)
            )  # fmt: skip
        made += [
            Case(f"{name} with flags {flags}", given, before(flags, b"xy"), verdict,
                 behind(flags, b"xy"), arrives_on)
            for flags in ("PAU", "AE", "AC")
        ]  # fmt: skip
        made += [
            Case(f"{name} with traffic class {tos:#x}", given, before("A", tos=tos), verdict,
                 behind("A", tos=tos), arrives_on)
            for tos in (0x02, 0xB8)
        ]  # fmt: skip
        made.append(
            Case(f"{name} with sequence numbers at the end", given,
                 before("A", b"x", seq=2**32 - 1, ack=2**32 - 1), verdict,
                 behind("A", b"x", seq=2**32 - 1, ack=2**32 - 1), arrives_on)
        )  # fmt: skip
        wrong = before("A", b"wrong"), behind("A", b"wrong")
        made.append(
            Case(f"{name} with a wrong checksum", given, _wrong(wrong[0], TCP), verdict,
                 _wrong(wrong[1], TCP), arrives_on)
        )  # fmt: skip
    for name, given, before, behind, verdict, arrives_on in _UDP:
        wrong = before(b"wrong"), behind(b"wrong")
        made.append(
            Case(f"{name} with a wrong checksum", given, _wrong(wrong[0], UDP), verdict,
                 _wrong(wrong[1], UDP), arrives_on)
        )  # fmt: skip
        word = parsed(bytes(behind(b"\0\0")))[UDP].chksum.to_bytes(2, "big")
        made.append(
            Case(f"{name} whose checksum comes out as zero", given, before(word), verdict,
                 behind(word), arrives_on)
        )  # fmt: skip
    for port, snat_port in ((1, 1025), (1023, 2047), (32768, 2048), (65535, 1024 + 65535 % 31744)):
        made.append(
            Case(f"syn from port {port}", talk.nothing, tcp(CLIENT, VIP, port, 80, "S", ttl=64),
                 NEW, tcp(SNAT, BACKEND, snat_port, 8080, "S", ttl=63))
        )  # fmt: skip
        made.append(
            Case(f"datagram from port {port}", talk.nothing, udp(CLIENT, VIP, port, 53, ttl=64),
                 NEW, udp(SNAT, BACKEND, snat_port, 5353, ttl=63))
        )  # fmt: skip
    made.append(
        Case("syn whose addresses weigh the same", talk.nothing,
             tcp(BALANCED, VIP, PORT, 80, "S", ttl=64), NEW,
             tcp(SNAT, BACKEND, PORT, 8080, "S", ttl=63))
    )  # fmt: skip
    made.append(
        Case("datagram whose addresses weigh the same", talk.nothing,
             udp(BALANCED, VIP, PORT, 53, ttl=64), NEW,
             udp(SNAT, BACKEND, PORT, 5353, ttl=63))
    )  # fmt: skip
    return made


def _wrong(packet: Packet, layer: type[Packet]) -> Packet:
    """Return a packet whose checksum is off by one."""
    right = parsed(bytes(packet))[layer].chksum
    return changed(packet, layer, chksum=right + 1 if right < 0xFFFE else 1)
