"""Packets cut short, with wrong lengths, and of random bytes: no crash, and no wrong rewriting.

The model says what ought to become of each. What is not forwarded must come out as it went in,
which the rig checks for every packet.
"""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scapy.layers.inet import TCP, UDP

from llb_core.datapath.layout import Verdict
from tests.bpf.agreement import Agreement
from tests.bpf.cases import CASES, Case
from tests.bpf.harness.family import FAMILIES
from tests.bpf.harness.rig import ETHERNET, ETHERTYPE, PEER_MAC, Rig, to_frame
from tests.bpf.harness.world import (
    BACKEND,
    CLIENT,
    OTHER_CLIENT,
    PRIVATE,
    PUBLIC,
    SECOND,
    SNAT,
    UNROUTABLE,
    VIP,
    address,
)

pytestmark = pytest.mark.root

LEAST = {b"\x08\x00": 34, b"\x86\xdd": 54}
"""The kernel runs programs on no shorter frame of IPv4, or of IPv6."""

BY_NAME = {number: {case.name: case for case in CASES[number]} for number in FAMILIES}
SHAPES = [
    "syn with options",
    "syn with ip options",
    "request",
    "response with ip options",
    "datagram",
    "answer",
    "datagram with ip options",
    "first fragment for a service",
    "later fragment for a vip",
]
OF_IPV6 = [
    "request behind hop-by-hop options",
    "response behind options before and behind a routing header",
    "question behind six extension headers",
    "answer behind a fragment header of a whole datagram",
    "first fragment with destination options",
    "later fragment behind hop-by-hop options",
    "syn behind as many bytes of headers as are read",
]
MOST_OF_HEADERS = 120
"""Bytes that any of the cases' headers take beyond the least: how much of a payload is missing, one
byte or a thousand, is all the same."""
ADDRESSES = {4: slice(ETHERNET + 12, ETHERNET + 16), 6: slice(ETHERNET + 8, ETHERNET + 24)}
"""Of sources."""
fuzzed = settings(
    deadline=None,
    max_examples=300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def test_frame_cut_short_is_left_alone(rig: Rig, case: Case) -> None:
    case.given(rig)
    frame = to_frame(case.packet, case.arrives_on)
    before = rig.pairs()
    allowed = {Verdict.PASS_UNPARSED}
    if "a length of zero" in case.name or "too many tags" in case.name:
        # Nothing says that it is cut short.
        allowed.add(case.verdict)

    least = LEAST.get(frame[12:14], ETHERNET)
    for length in {*range(least, min(len(frame), least + MOST_OF_HEADERS)), len(frame) - 1}:
        outcome = rig.send(frame[:length], case.arrives_on, gso_size=case.gso_size)
        assert outcome.verdict in allowed, f"cut to {length} bytes"

    assert rig.pairs() == before


@pytest.mark.parametrize("name", SHAPES)
def test_packet_cut_short_that_says_so(rig: Rig, name: str) -> None:
    check_packet_cut_short(rig, name)


@pytest.mark.family(6)
@pytest.mark.parametrize("name", OF_IPV6)
def test_packet_with_extensions_cut_short_that_says_so(rig: Rig, name: str) -> None:
    check_packet_cut_short(rig, name)


def check_packet_cut_short(rig: Rig, name: str) -> None:
    """Send what ends within its headers, or just behind them, with an IP length that fits."""
    case = BY_NAME[rig.family][name]
    frame = to_frame(case.packet, case.arrives_on)

    for length in range(LEAST[frame[12:14]], len(frame)):
        rig.reset()
        both = Agreement(rig)
        case.given(both)
        both.send(_with_ip_length(frame[:length], length - ETHERNET), case.arrives_on)


@pytest.mark.parametrize("name", SHAPES)
def test_every_length_that_the_headers_can_state(rig: Rig, name: str) -> None:
    check_every_length(rig, name)


@pytest.mark.family(6)
@pytest.mark.parametrize("name", OF_IPV6)
def test_every_length_that_headers_behind_extensions_can_state(rig: Rig, name: str) -> None:
    check_every_length(rig, name)


def check_every_length(rig: Rig, name: str) -> None:
    """Change each length in the headers to whatever it can be."""
    case = BY_NAME[rig.family][name]
    both = Agreement(rig)
    case.given(both)
    frame = to_frame(case.packet, case.arrives_on)
    layer = UDP if UDP in case.packet else TCP if TCP in case.packet else None
    l4 = len(frame) - len(bytes(case.packet[layer])) if layer else 0

    for length in [*range(len(frame) + 4), 0xFFFF]:
        both.send(_with_ip_length(frame, length), case.arrives_on)
        if layer is UDP:
            stated = frame[: l4 + 4] + struct.pack("!H", length) + frame[l4 + 6 :]
            both.send(stated, case.arrives_on)
    for nibble in range(16):
        version = bytes([frame[ETHERNET] & 0xF0 | nibble])
        both.send(frame[:ETHERNET] + version + frame[ETHERNET + 1 :], case.arrives_on)
        if layer is TCP:
            offset = bytes([nibble << 4])
            both.send(frame[: l4 + 12] + offset + frame[l4 + 13 :], case.arrives_on)


@pytest.mark.family(6)
@pytest.mark.parametrize("name", OF_IPV6)
def test_every_value_of_the_bytes_of_an_extension_header(rig: Rig, name: str) -> None:
    """What follows, how long it is, and a fragment's offset or a routing header's segments."""
    case = BY_NAME[6][name]
    both = Agreement(rig)
    case.given(both)
    frame = to_frame(case.packet, case.arrives_on)
    first = ETHERNET + 40

    for place in (ETHERNET + 6, first, first + 1, first + 2, first + 3):
        for value in range(256):
            changed = frame[:place] + bytes([value]) + frame[place + 1 :]
            both.send(changed, case.arrives_on)


@pytest.mark.parametrize("gso_size", [1, 536, 1448])
def test_ip_length_of_zero_means_all_of_a_merged_packet(rig: Rig, gso_size: int) -> None:
    both = Agreement(rig)
    case = BY_NAME[rig.family]["request"]
    case.given(both)

    outcome = both.send(_with_ip_length(to_frame(case.packet, PUBLIC), 0), gso_size=gso_size)

    assert outcome.verdict is Verdict.FORWARD_TO_BACKEND


@fuzzed
@given(
    which=st.integers(0, 1000),
    changes=st.lists(st.tuples(st.integers(0, 130), st.integers(0, 255)), min_size=1, max_size=6),
    gso_size=st.sampled_from([0, 0, 0, 100, 1460]),
)
def test_bytes_changed_at_random(
    rig: Rig, which: int, changes: list[tuple[int, int]], gso_size: int
) -> None:
    """But for the kind of frame, and the source, to which the model knows the way."""
    rig.reset()
    both = Agreement(rig)
    case = CASES[rig.family][which % len(CASES[rig.family])]
    case.given(both)
    frame = bytearray(to_frame(case.packet, case.arrives_on))
    kept = [(place, bytes(frame[place])) for place in (slice(12, 14), ADDRESSES[rig.family])]
    for at, value in changes:
        frame[at % len(frame)] = value
    for place, value_kept in kept:
        frame[place] = value_kept

    both.send(bytes(frame), case.arrives_on, gso_size=gso_size)


@fuzzed
@given(
    head=st.tuples(
        st.sampled_from([CLIENT, OTHER_CLIENT, UNROUTABLE, BACKEND, SECOND]),
        st.sampled_from([VIP, SNAT]),
        st.sampled_from([6, 17, 1]),
        st.sampled_from([0, 0, 0, 0x2000, 0x2010, 0x10, 0x4000, 0x8000, 1, 9]),
    ),
    ports=st.tuples(st.sampled_from([5000, 8080, 5353, 0, 65535]),
                    st.sampled_from([80, 53, 81, 54, 84, 5000, 0])),
    ttl=st.integers(0, 255),
    rest=st.binary(max_size=80),
    first_byte=st.sampled_from([0x45, 0x45, 0x46, 0x4F, 0x44, 0x55, 0x65]),
    is_private=st.booleans(),
)  # fmt: skip
@example((CLIENT, VIP, 6, 0), (5000, 80), 1, b"", 0x45, False)
def test_random_bytes_behind_a_plausible_beginning(
    rig: Rig,
    head: tuple[str, str, int, int],
    ports: tuple[int, int],
    ttl: int,
    rest: bytes,
    first_byte: int,
    is_private: bool,
) -> None:
    rig.reset()
    both = Agreement(rig)
    arrives_on = PRIVATE if is_private else PUBLIC
    src, dst, protocol, fragment = head
    body = struct.pack("!HH", *ports) + rest
    ends = address(src).packed + address(dst).packed
    macs = bytes.fromhex((arrives_on.mac + PEER_MAC).replace(":", ""))
    kind = ETHERTYPE[rig.family].to_bytes(2, "big")
    if rig.family == 4:
        ip = struct.pack("!BBHHHBBH", first_byte, 0, 20 + len(body), 1, fragment, ttl, protocol, 0)
    else:
        extension = struct.pack("!BBHI", protocol, 0, fragment, 1)
        if fragment:
            protocol, body = 44 if fragment & 1 else 60, extension + body
        ip = struct.pack("!BBHHBB", 0x60 | first_byte & 0x0F, 0, 0, len(body), protocol, ttl)

    both.send(macs + kind + ip + ends + body, arrives_on)


def _with_ip_length(frame: bytes, length: int) -> bytes:
    """Return a frame that states this length of its IP packet."""
    at, stated = (2, length) if frame[12:14] == b"\x08\x00" else (4, max(length - 40, 0))
    if length == 0xFFFF:
        stated = length
    return frame[: ETHERNET + at] + struct.pack("!H", stated) + frame[ETHERNET + at + 2 :]
