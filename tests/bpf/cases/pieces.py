"""Fragments that follow a first one, or that have none to follow."""

from __future__ import annotations

from scapy.packet import Packet, Raw

from llb_core.datapath.layout import Verdict
from tests.bpf.cases.case import IN, OUT, Case
from tests.bpf.harness import talk
from tests.bpf.harness.packets import (
    MORE_FRAGMENTS,
    OPTIONS,
    from_client,
    ip,
    question,
    reply,
    udp,
)
from tests.bpf.harness.world import (
    BACKEND,
    CLIENT,
    NARROW,
    OTHER_CLIENT,
    PRIVATE,
    SECOND,
    SNAT,
    VIP,
)

TCP, UDP = 6, 17
PLACE = 3
"""Where a later fragment's data belong, in units of 8 bytes."""


def first_of_question(rig: talk.Sender) -> None:
    """A client's datagram begins."""
    rig.send(question(ip_flags=MORE_FRAGMENTS))


def first_of_reply(rig: talk.Sender) -> None:
    """A backend's datagram begins."""
    talk.asked(rig)
    rig.send(reply(ip_flags=MORE_FRAGMENTS), PRIVATE)


def first_of_segment(rig: talk.Sender) -> None:
    """A client's segment begins."""
    talk.established(rig)
    rig.send(from_client("A", b"four", ip_flags=MORE_FRAGMENTS))


def first_for_nobody(rig: talk.Sender) -> None:
    """A datagram to a port of the VIP that is no service's begins."""
    rig.send(udp(CLIENT, VIP, 5000, 9999, b"x" * 16, ip_flags=MORE_FRAGMENTS))


def first_of_segment_for_nobody(rig: talk.Sender) -> None:
    """A segment that opens nothing begins."""
    rig.send(from_client("A", b"four", ip_flags=MORE_FRAGMENTS))


def first_that_is_refused(rig: talk.Sender) -> None:
    """A datagram begins that is too old."""
    rig.send(question(ip_flags=MORE_FRAGMENTS, ttl=1))


def first_for_narrow(rig: talk.Sender) -> None:
    """A datagram begins that leaves by a narrow link."""
    rig.send(udp(CLIENT, VIP, 5000, 84, b"x" * 16, ip_flags=MORE_FRAGMENTS))


def first_of_backend_for_host(rig: talk.Sender) -> None:
    """A backend's datagram to the host begins."""
    rig.send(udp(BACKEND, SNAT, 53, 44000, b"x" * 16, ip_flags=MORE_FRAGMENTS), PRIVATE)


def later(src: str, dst: str, protocol: int, data: bytes = b"the rest", **header: object) -> Packet:
    """A fragment without ports; further words go into the IP header."""
    return ip(src, dst, protocol, **{"frag": PLACE, **header}) / Raw(data)  # type: ignore[arg-type]


def pieces() -> list[Case]:
    """All of them."""
    return [*_follow(), *_alone(), *_undeliverable()]


def _follow() -> list[Case]:
    made = [
        Case("last fragment of a question", first_of_question, later(CLIENT, VIP, UDP), IN,
             later(SNAT, BACKEND, UDP, ttl=63)),
        Case("fragment in the middle of a question", first_of_question,
             later(CLIENT, VIP, UDP, ip_flags=MORE_FRAGMENTS), IN,
             later(SNAT, BACKEND, UDP, ip_flags=MORE_FRAGMENTS, ttl=63)),
        Case("last fragment of an answer", first_of_reply, later(BACKEND, SNAT, UDP), OUT,
             later(VIP, CLIENT, UDP, ttl=63), PRIVATE),
        Case("fragment in the middle of an answer", first_of_reply,
             later(BACKEND, SNAT, UDP, ip_flags=MORE_FRAGMENTS), OUT,
             later(VIP, CLIENT, UDP, ip_flags=MORE_FRAGMENTS, ttl=63), PRIVATE),
        Case("last fragment of a segment", first_of_segment, later(CLIENT, VIP, TCP), IN,
             later(SNAT, BACKEND, TCP, ttl=63)),
        Case("later fragment with ttl 2", first_of_question, later(CLIENT, VIP, UDP, ttl=2), IN,
             later(SNAT, BACKEND, UDP, ttl=1)),
        Case("later fragment with options", first_of_question,
             later(CLIENT, VIP, UDP, options=OPTIONS), IN,
             later(SNAT, BACKEND, UDP, options=OPTIONS, ttl=63)),
        Case("later fragment far behind", first_of_question, later(CLIENT, VIP, UDP, frag=8000), IN,
             later(SNAT, BACKEND, UDP, frag=8000, ttl=63)),
        Case("later fragment that looks like a datagram for somebody else", first_of_question,
             later(CLIENT, VIP, UDP, bytes(udp(CLIENT, VIP, 1, 2, b"x"))), IN,
             later(SNAT, BACKEND, UDP, bytes(udp(CLIENT, VIP, 1, 2, b"x")), ttl=63)),
    ]  # fmt: skip
    made += [
        Case(f"later fragment of {size} bytes", first_of_question,
             later(CLIENT, VIP, UDP, bytes(place % 251 for place in range(size))), IN,
             later(SNAT, BACKEND, UDP, bytes(place % 251 for place in range(size)), ttl=63))
        for size in (1, 7, 255, 1400)
    ]  # fmt: skip
    return made


def _alone() -> list[Case]:
    drop, passes = Verdict.DROP_FRAGMENT, Verdict.PASS_NOT_OURS
    return [
        Case("later fragment before its first", talk.replied, later(CLIENT, VIP, UDP), drop),
        Case("later fragment of another number", first_of_question, later(CLIENT, VIP, UDP, id=2),
             drop),
        Case("later fragment of another client", first_of_question, later(OTHER_CLIENT, VIP, UDP),
             drop),
        Case("later fragment of another number over another protocol", first_of_question,
             later(CLIENT, VIP, TCP, id=2), drop),
        Case("later fragment of a datagram that was refused", first_that_is_refused,
             later(CLIENT, VIP, UDP), drop),
        Case("later fragment of what the stack has got", first_for_nobody, later(CLIENT, VIP, UDP),
             passes),
        Case("later fragment of a segment that the stack has got", first_of_segment_for_nobody,
             later(CLIENT, VIP, TCP), passes),
        Case("later fragment of a backend before its first", talk.replied,
             later(BACKEND, SNAT, UDP), passes, arrives_on=PRIVATE),
        Case("later fragment of another backend", first_of_reply, later(SECOND, SNAT, UDP), passes,
             arrives_on=PRIVATE),
        Case("later fragment of a backend to the host", first_of_backend_for_host,
             later(BACKEND, SNAT, UDP), passes, arrives_on=PRIVATE),
        Case("later fragment of a backend on the public side", first_of_reply,
             later(BACKEND, SNAT, UDP), Verdict.DROP_SPOOFED),
        Case("first fragment too short for its ports, behind another", first_of_question,
             ip(CLIENT, VIP, UDP, ip_flags=MORE_FRAGMENTS) / Raw(b"\x00\x01\x00\x16"), drop),
        Case("first fragment of a segment cut within its header, behind another",
             first_of_segment,
             ip(CLIENT, VIP, TCP, ip_flags=MORE_FRAGMENTS) / Raw(b"\x00\x01\x00\x16\0\0\0\0"),
             drop),
    ]  # fmt: skip


def _undeliverable() -> list[Case]:
    """Nobody is told about any but the first (RFC 1122, 3.2.2)."""
    header = 20
    return [
        Case("later fragment with ttl 1", first_of_question, later(CLIENT, VIP, UDP, ttl=1),
             Verdict.DROP_TTL),
        Case("later fragment of a backend with ttl 1", first_of_reply,
             later(BACKEND, SNAT, UDP, ttl=1), Verdict.DROP_TTL, arrives_on=PRIVATE),
        Case("later fragment larger than the link", first_for_narrow,
             later(CLIENT, VIP, UDP, bytes(608 - header)), Verdict.DROP_TOO_BIG),
        Case("later fragment that just fits", first_for_narrow,
             later(CLIENT, VIP, UDP, bytes(552)), IN,
             later(SNAT, NARROW, UDP, bytes(552), ttl=63)),
    ]  # fmt: skip
