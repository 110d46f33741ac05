"""Datagrams in pieces: numbers, time, order."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP

from llb_core.datapath.layout import Verdict
from tests.bpf.cases.pieces import UDP, first_of_question, later
from tests.bpf.harness import talk
from tests.bpf.harness.packets import MORE_FRAGMENTS, question, udp
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.world import CLIENT, VIP
from tests.bpf.model_fragments import SECONDS

pytestmark = pytest.mark.root

IN = Verdict.FORWARD_TO_BACKEND
FIRST = {"ip_flags": MORE_FRAGMENTS}


@pytest.mark.family(4)
def test_pieces_of_a_datagram_have_one_number_and_no_two_datagrams_the_same(rig: Rig) -> None:
    """Many clients' datagrams leave from one address, and each counts for itself (RFC 6864)."""
    numbers = []
    for last_byte in range(1, 9):
        client = f"192.0.2.{last_byte}"
        first = rig.send(udp(client, VIP, 5000, 53, bytes(16), id=7, **FIRST))
        last = rig.send(later(client, VIP, UDP, id=7))
        assert first.packet[IP].id == last.packet[IP].id
        numbers.append(first.packet[IP].id)

    assert len(set(numbers)) > 1


@pytest.mark.family(4)
def test_first_fragment_that_comes_twice_keeps_its_number(rig: Rig) -> None:
    once, again = (rig.send(question(**FIRST)).packet[IP].id for _ in range(2))

    assert once == again


@pytest.mark.family(4)
def test_another_datagram_of_the_same_number_gets_one_of_its_own(rig: Rig) -> None:
    """Other ports, other datagram; by chance one in 65536 is the same, but not all."""
    numbers = {
        rig.send(udp(CLIENT, VIP, port, 53, bytes(16), **FIRST)).packet[IP].id
        for port in range(5000, 5004)
    }

    assert len(numbers) > 1


def test_first_fragment_is_remembered_for_some_seconds(rig: Rig) -> None:
    first_of_question(rig)

    rig.pass_time(SECONDS - 1)
    in_time = rig.send(later(CLIENT, VIP, UDP))
    rig.pass_time(1)
    late = rig.send(later(CLIENT, VIP, UDP))

    assert (in_time.verdict, late.verdict) == (IN, Verdict.DROP_FRAGMENT)


def test_pieces_behind_the_first_may_come_in_any_order(rig: Rig) -> None:
    first_of_question(rig)

    verdicts = [
        rig.send(later(CLIENT, VIP, UDP, frag=place, ip_flags=flags)).verdict
        for place, flags in ((9, 0), (3, MORE_FRAGMENTS), (6, MORE_FRAGMENTS), (6, MORE_FRAGMENTS))
    ]

    assert verdicts == [IN] * 4


def test_datagram_whose_last_piece_comes_first_goes_on_without_it(rig: Rig) -> None:
    """It can't be held: the network might have lost it as well."""
    last = rig.send(later(CLIENT, VIP, UDP, frag=6))
    first_of_question(rig)
    middle = rig.send(later(CLIENT, VIP, UDP, ip_flags=MORE_FRAGMENTS))

    assert (last.verdict, middle.verdict) == (Verdict.DROP_FRAGMENT, IN)


def test_flood_of_fragments_costs_no_connection(rig: Rig) -> None:
    talk.replied(rig)
    before = rig.pairs()

    for number in range(rig.fragments.spec.entries // 8):
        rig.send(udp(CLIENT, VIP, 5000, 9999, bytes(16), id=number, **FIRST))

    assert rig.pairs() == before
    assert rig.send(question()).verdict is IN
