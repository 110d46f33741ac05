"""What a case is, and the words that the table of cases is written with."""

from __future__ import annotations

from dataclasses import dataclass

from scapy.packet import Packet

from llb_core.datapath.layout import Verdict
from tests.bpf.harness import talk
from tests.bpf.harness.family import at_hand
from tests.bpf.harness.packets import refused
from tests.bpf.harness.world import PUBLIC, Interface


@dataclass(frozen=True, slots=True)
class Case:
    """A packet in, and what must become of it. `out` is None where it must not be written to."""

    name: str
    given: talk.Given
    packet: Packet
    verdict: Verdict
    out: Packet | None = None
    arrives_on: Interface = PUBLIC
    gso_size: int = 0


def told(
    name: str,
    given: talk.Given,
    packet: Packet,
    *,
    mtu: int | None = None,
    arrives_on: Interface = PUBLIC,
    gso_size: int = 0,
) -> Case:
    """A packet that goes no further; its sender is told of the next link's MTU, or of its TTL."""
    verdict = Verdict.REFUSE_TOO_BIG if mtu else Verdict.REFUSE_TTL
    return Case(name, given, packet, verdict, refused(packet, mtu), arrives_on, gso_size)


NEW, IN, OUT = Verdict.FORWARD_NEW, Verdict.FORWARD_TO_BACKEND, Verdict.FORWARD_TO_CLIENT
STAMPS = [("Timestamp", (7, 0)), ("NOP", None), ("NOP", None)]


def sized(over_ipv4: int, byte: bytes = b"\0") -> bytes:
    """Return data that make up a packet as large as so many bytes do over IPv4."""
    return byte * mss(over_ipv4)


def mss(over_ipv4: int) -> int:
    """Return the size of data that leaves room for the longer header of IPv6."""
    return over_ipv4 - (0 if at_hand() == 4 else 20)
