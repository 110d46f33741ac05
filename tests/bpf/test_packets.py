"""The table of cases, through the real program. Needs root: it loads eBPF programs."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Packet

from llb_core.datapath import bpf_syscall
from llb_core.datapath.layout import Verdict
from llb_core.datapath.reading import Traffic
from tests.bpf.cases import CASES, Case
from tests.bpf.harness import talk
from tests.bpf.harness.family import FAMILIES
from tests.bpf.harness.packets import (
    at_backend,
    at_client,
    changed,
    faults,
    from_backend,
    from_client,
    numbered_alike,
    parsed,
    question,
    question_at_backend,
    rebuilt,
    reply,
    reply_at_client,
    with_partial_checksum,
)
from tests.bpf.harness.rig import ETHERNET, Rig, as_read, to_frame
from tests.bpf.harness.world import BACKEND, PRIVATE, PUBLIC, Interface

pytestmark = pytest.mark.root


def test_packet(rig: Rig, case: Case) -> None:
    case.given(rig)

    outcome = rig.send(case.packet, case.arrives_on, gso_size=case.gso_size)

    assert outcome.verdict.name == case.verdict.name
    if case.out is not None:
        expected = numbered_alike(case.out, outcome.packet)
        assert outcome.packet.show(dump=True) == parsed(bytes(expected)).show(dump=True)
        read = as_read(to_frame(case.packet, case.arrives_on), case.arrives_on)
        assert read is not None
        assert outcome.frame[:ETHERNET] == read[:ETHERNET]
    rig.pairs()


def test_checksum_of_the_whole_packet_stays_right(rig: Rig, case: Case) -> None:
    """Some devices hand one over with a packet (CHECKSUM_COMPLETE): the kernel, from Linux 6.16 on,
    makes one for the run and compares it with the packet afterwards (EBADMSG). Where a packet is
    cut to what an error may quote of it, the kernel itself forgets that there was one
    (`__skb_trim_rcsum`), which the run doesn't see: nothing is to be compared then. Nor is it where
    a tag is taken off: a run is at no ingress, where alone the kernel brings the sum along."""
    frame = to_frame(case.packet, case.arrives_on)
    if is_cut(case) or as_read(frame, case.arrives_on) != frame:
        return
    case.given(rig)

    run_with_checksum(rig, case.packet, case.arrives_on, case.gso_size)


@pytest.mark.parametrize("layer", [TCP, UDP])
def test_checksum_of_the_whole_packet_stays_right_where_a_refused_one_seems_unsummed(
    rig: Rig, layer: type
) -> None:
    """A checksum that looks as if it were left to a device is set to another one."""
    packet = question(b"four", ttl=1) if layer is UDP else from_client("S", b"four", ttl=1)
    packet = with_partial_checksum(packet)

    run_with_checksum(rig, packet, PUBLIC)

    told = bytes(rig.send(packet).packet)[ERROR_HEADERS[rig.family] :]
    assert len(told) == len(bytes(packet))
    assert told != bytes(packet)


def run_with_checksum(rig: Rig, packet: Packet, arrives_on: Interface, gso_size: int = 0) -> None:
    """Classify a packet that a device has summed up; OSError where the sum is wrong afterwards."""
    bpf_syscall.prog_test_run(
        rig.datapath.program_fds["classify"],
        to_frame(packet, arrives_on),
        context=rig.context(arrives_on, gso_size),
        flags=CHECKSUM_COMPLETE,
    )


def is_cut(case: Case) -> bool:
    """Whether it is refused by an error that quotes less than all of it."""
    if case.out is None or not case.verdict.name.startswith("REFUSE"):
        return False
    return len(bytes(case.out)) < ERROR_HEADERS[case.out.version] + len(bytes(case.packet))


@pytest.mark.parametrize("number", FAMILIES)
def test_every_name_of_a_case_is_given_once(number: int) -> None:
    names = [case.name for case in CASES[number]]

    assert len(set(names)) == len(names) >= 200


def test_padding_of_the_frame_stays(rig: Rig) -> None:
    frame = to_frame(from_client("S"), PUBLIC) + b"\xaa" * 6

    outcome = rig.send(frame)

    assert outcome.verdict is Verdict.FORWARD_NEW
    assert outcome.frame[ETHERNET:] == bytes(at_backend("S")) + b"\xaa" * 6


def test_bytes_behind_the_datagram_stay(rig: Rig) -> None:
    """UDP's length may leave out the end of the IP packet; its checksum covers the datagram."""
    packet = changed(question(b"datagram" + b"rest"), UDP, len=16)

    outcome = rig.send(packet)

    assert outcome.packet[UDP].len == 16
    assert bytes(outcome.packet).endswith(b"datagramrest")
    assert faults(bytes(outcome.packet)) == faults(bytes(packet))


OFF = (1, 0x0100, 0x8000, 0xFFFE)
CHECKSUM_COMPLETE = 1 << 2
"""BPF_F_TEST_SKB_CHECKSUM_COMPLETE."""
ERROR_HEADERS = {4: 28, 6: 48}
"""Bytes of an ICMP error before what it quotes, by IP version."""
LEGS = {
    "to backend": (talk.established, from_client, at_backend, PUBLIC),
    "to client": (talk.established, from_backend, at_client, PRIVATE),
}
UDP_LEGS = {
    "to backend": (talk.replied, question, question_at_backend, PUBLIC),
    "to client": (talk.replied, reply, reply_at_client, PRIVATE),
}


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize("side", ["in", "out"])
def test_tcp_checksum_that_is_all_zeros(rig: Rig, leg: str, side: str) -> None:
    given, before, behind, arrives_on = LEGS[leg]
    given(rig)
    model = before if side == "in" else behind
    word = parsed(bytes(model("A", b"\0\0")))[TCP].chksum.to_bytes(2, "big")
    assert parsed(bytes(model("A", word)))[TCP].chksum == 0

    outcome = rig.send(before("A", word), arrives_on)

    assert faults(bytes(outcome.packet)) == (0, 0)
    assert rebuilt(outcome.packet) == rebuilt(parsed(bytes(behind("A", word))))


@pytest.mark.parametrize("leg", UDP_LEGS)
@pytest.mark.parametrize("side", ["in", "out"])
def test_udp_checksum_that_is_all_ones(rig: Rig, leg: str, side: str) -> None:
    """A sum of zero is sent as ones: zeros would say that there is none (RFC 768)."""
    given, before, behind, arrives_on = UDP_LEGS[leg]
    given(rig)
    model = before if side == "in" else behind
    word = parsed(bytes(model(b"\0\0")))[UDP].chksum.to_bytes(2, "big")
    assert parsed(bytes(model(word)))[UDP].chksum == 0xFFFF

    outcome = rig.send(before(word), arrives_on)

    assert bytes(outcome.packet) == bytes(behind(word))


@pytest.mark.parametrize("leg", LEGS)
@pytest.mark.parametrize("side", ["in", "out"])
@pytest.mark.family(4)
def test_ip_checksum_that_is_all_zeros(rig: Rig, leg: str, side: str) -> None:
    given, before, behind, arrives_on = LEGS[leg]
    given(rig)
    model = before if side == "in" else behind
    word = parsed(bytes(model("A", id=0))).chksum
    assert parsed(bytes(model("A", id=word))).chksum == 0

    outcome = rig.send(before("A", id=word), arrives_on)

    assert bytes(outcome.packet) == bytes(behind("A", id=word))


@pytest.mark.family(4)
@pytest.mark.parametrize("off", OFF)
def test_wrong_checksum_of_the_header_stays_wrong_by_as_much(rig: Rig, off: int) -> None:
    check_wrong_checksum(rig, IP, off)


@pytest.mark.parametrize("off", OFF)
@pytest.mark.parametrize("layer", [TCP, UDP])
def test_wrong_checksum_stays_wrong_by_as_much(rig: Rig, layer: type, off: int) -> None:
    check_wrong_checksum(rig, layer, off)


def check_wrong_checksum(rig: Rig, layer: type, off: int) -> None:
    """Send a packet whose checksum is off, and see that it comes out off by as much."""
    right = parsed(bytes(question() if layer is UDP else from_client("S")))
    wrong = changed(right, layer, chksum=(right[layer].chksum + off) % 0xFFFF or 0xFFFF)

    outcome = rig.send(wrong)

    assert outcome.verdict is Verdict.FORWARD_NEW
    assert faults(bytes(outcome.packet)) == faults(bytes(wrong)) != (0, 0)


def test_every_segment_size_keeps_its_checksum(rig: Rig) -> None:
    talk.established(rig)

    for size in range(0, 1441, 7):
        payload = bytes(place * 31 % 256 for place in range(size))
        there = rig.send(from_client("A", payload)).packet
        back = rig.send(from_backend("A", payload), PRIVATE).packet

        assert bytes(there) == bytes(at_backend("A", payload))
        assert bytes(back) == bytes(at_client("A", payload))


def test_one_arm_balances_both_ways(rig: Rig) -> None:
    rig.configure(private=PUBLIC)

    there = rig.send(from_client("S"))
    back = rig.send(from_backend("SA"))

    assert bytes(there.packet) == bytes(at_backend("S"))
    assert bytes(back.packet) == bytes(at_client("SA"))


def test_packets_are_counted_for_service_and_backend(rig: Rig) -> None:
    def counted() -> list[Traffic]:
        counters, backend = rig.datapath.counters(), rig.backend(BACKEND, 8080)
        return [
            counters.backends.get(backend.slot, Traffic()),
            counters.services.get(backend.service_slot, Traffic()),
        ]

    header = 40 if rig.family == 4 else 60
    before = counted()
    talk.established(rig)
    rig.send(from_client("A", b"request"))
    rig.send(from_client("A", ttl=1))

    for earlier, later in zip(before, counted(), strict=True):
        assert later.packets_in - earlier.packets_in == 3
        assert later.bytes_in - earlier.bytes_in == 3 * header + 7
        assert later.packets_out - earlier.packets_out == 1
        assert later.bytes_out - earlier.bytes_out == header
        assert later.connections - earlier.connections == 1
        assert later.drops - earlier.drops == 1
