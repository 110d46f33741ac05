"""Opening connections give way to each other, and never one that is established."""

from __future__ import annotations

import pytest

from llb_core.datapath.layout import ANSWERED, ASSURED, ConnectionState, Verdict, opening_places
from tests.bpf.harness import talk
from tests.bpf.harness.packets import from_backend, from_client, question, reply, tcp, udp
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.world import BACKEND, CLIENT, OTHER_CLIENT, PRIVATE, SNAT, VIP

pytestmark = pytest.mark.root

ESTABLISHED = ConnectionState.ESTABLISHED | ANSWERED | ASSURED


def flood(rig: Rig, number: int, first: int = 6000) -> None:
    """Send SYNs of clients that never answer."""
    for port in range(first, first + number):
        rig.send(tcp(OTHER_CLIENT, VIP, port, 80, "S"))


def evicted(rig: Rig) -> tuple[int, int]:
    """Count what had to give way: of the service and of the backend."""
    counters = rig.datapath.counters()
    backend = rig.backend(BACKEND, 8080)
    service = counters.services.get(backend.service_slot)
    of_backend = counters.backends.get(backend.slot)
    return (
        service.opening_evicted if service else 0,
        of_backend.opening_evicted if of_backend else 0,
    )


def ports(rig: Rig) -> set[int]:
    """Return the clients' ports of all connections."""
    return {flow.sport for flow in rig.pairs()}


@pytest.mark.parametrize(
    ("max_connections", "places"),
    [(1, 1), (2, 1), (4, 2), (524_287, 262_143), (1_000_000, 262_144), (10_000_000, 262_144)],
)
def test_ring_takes_no_more_than_half_of_all_connections(max_connections: int, places: int) -> None:
    assert opening_places(max_connections) == places


def test_oldest_opening_connection_gives_way(small_rig: Rig) -> None:
    flood(small_rig, 2)
    before = evicted(small_rig)

    flood(small_rig, 1, first=7000)

    assert ports(small_rig) == {6001, 7000}
    assert evicted(small_rig) == (before[0] + 1, before[1] + 1)


@pytest.mark.parametrize("given", [talk.established, talk.client_half_closed,
                                   talk.backend_in_a_hurry, talk.closed_by_backend])  # fmt: skip
def test_flood_leaves_what_was_established_alone(small_rig: Rig, given: talk.Given) -> None:
    given(small_rig)
    before = small_rig.pair()

    flood(small_rig, 50)

    assert len(small_rig.pairs()) == 3
    assert next(pair for flow, pair in small_rig.pairs().items() if flow.sport == 5000) == before


def test_flood_of_syn_and_reset_takes_no_more_than_the_ring(small_rig: Rig) -> None:
    """A connection that was reset before it was established never was."""
    for port in range(6000, 6010):
        small_rig.send(tcp(OTHER_CLIENT, VIP, port, 80, "S", seq=999))
        small_rig.send(tcp(OTHER_CLIENT, VIP, port, 80, "R", seq=1000))

    assert ports(small_rig) == {6008, 6009}


def test_honest_client_gets_through_while_its_place_is_not_reached(small_rig: Rig) -> None:
    talk.opening(small_rig)
    flood(small_rig, 1)
    small_rig.send(from_backend("SA", seq=talk.ISN, ack=1000), PRIVATE)
    small_rig.send(from_client("A", seq=1000, ack=1000))

    flood(small_rig, 10, first=7000)

    assert 5000 in ports(small_rig)


def test_syn_sent_again_takes_no_new_place(small_rig: Rig) -> None:
    talk.opening(small_rig)
    for _ in range(5):
        talk.opening(small_rig)
    flood(small_rig, 1)
    assert ports(small_rig) == {5000, 6000}

    flood(small_rig, 1, first=7000)

    assert ports(small_rig) == {6000, 7000}


def test_connection_opened_anew_is_not_turned_out_by_its_old_place(small_rig: Rig) -> None:
    talk.reset_by_client(small_rig)
    flood(small_rig, 1)
    talk.opening(small_rig)

    flood(small_rig, 1, first=7000)

    assert ports(small_rig) == {5000, 7000}


def test_connection_opened_anew_in_the_place_that_it_had_stays(small_rig: Rig) -> None:
    talk.reset_by_client(small_rig)
    flood(small_rig, 1)

    talk.opening(small_rig)

    assert 5000 in ports(small_rig)


def test_flow_is_assured_when_its_client_sends_again(small_rig: Rig) -> None:
    talk.replied(small_rig)
    assert small_rig.pair()[0].state == ConnectionState.UDP | ANSWERED

    small_rig.send(question())

    assert small_rig.pair()[0].state == ConnectionState.UDP | ANSWERED | ASSURED
    flood(small_rig, 10)
    assert small_rig.send(reply(), PRIVATE).verdict is Verdict.FORWARD_TO_CLIENT


def test_flow_without_an_answer_gives_way(small_rig: Rig) -> None:
    for _ in range(5):
        small_rig.send(question())

    for port in (6000, 6001):
        small_rig.send(udp(OTHER_CLIENT, VIP, port, 53))

    assert ports(small_rig) == {6000, 6001}


@pytest.mark.parametrize("ack", [999, 1001, 0, 0x80000000])
def test_ack_of_another_number_establishes_nothing(rig: Rig, ack: int) -> None:
    talk.answered(rig)

    outcome = rig.send(from_client("A", seq=1000, ack=ack))

    assert outcome.verdict is Verdict.FORWARD_TO_BACKEND
    assert rig.pair()[0].state == ConnectionState.OPENING | ANSWERED


@pytest.mark.parametrize("isn", [0, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF])
def test_numbers_may_begin_anywhere(rig: Rig, isn: int) -> None:
    after = (isn + 1) % 2**32
    rig.send(from_client("S", seq=isn, ack=0))
    rig.send(from_backend("SA", seq=isn, ack=after), PRIVATE)
    rig.send(from_client("A", seq=after, ack=after))

    dnat, snat = rig.pair()
    assert dnat.state == ESTABLISHED
    assert (dnat.next, dnat.ack, snat.next, snat.ack) == (after,) * 4


def test_answer_sent_again_changes_nothing(rig: Rig) -> None:
    talk.answered(rig)
    talk.answered(rig)

    rig.send(from_client("A", seq=1000, ack=1000))

    assert rig.pair()[0].state == ESTABLISHED


def test_data_may_come_with_the_ack(rig: Rig) -> None:
    talk.answered(rig)

    rig.send(tcp(CLIENT, VIP, 5000, 80, "PA", b"x" * 100, seq=1000, ack=1000))

    dnat, _ = rig.pair()
    assert (dnat.state, dnat.next) == (ESTABLISHED, 1100)


def test_fast_open_is_established_by_the_backend_s_data(rig: Rig) -> None:
    """RFC 7413: data in the SYN, and data of the backend before the client's ACK."""
    rig.send(tcp(CLIENT, VIP, 5000, 80, "S", b"x" * 50, seq=999, ack=0))
    rig.send(from_backend("SA", seq=999, ack=1050), PRIVATE)

    rig.send(tcp(BACKEND, SNAT, 8080, 5000, "PA", b"y" * 10, seq=1000, ack=1050), PRIVATE)

    dnat, snat = rig.pair()
    assert dnat.state == ESTABLISHED
    assert (dnat.next, snat.next, snat.ack) == (1050, 1010, 1050)


def test_backend_s_bare_ack_establishes_nothing(rig: Rig) -> None:
    """It may be the challenge to a SYN that somebody made up."""
    talk.answered(rig)

    rig.send(from_backend("A", seq=1000, ack=1000), PRIVATE)

    assert rig.pair()[0].state == ConnectionState.OPENING | ANSWERED


def test_second_number_of_the_backend_counts(rig: Rig) -> None:
    """SYN cookies: each SYN may be answered with another number."""
    talk.answered(rig)
    rig.send(from_backend("SA", seq=77776, ack=1000), PRIVATE)

    rig.send(from_client("A", seq=1000, ack=77777))

    assert rig.pair()[0].state == ESTABLISHED


def test_first_number_counts_once_the_backend_sends_data(rig: Rig) -> None:
    talk.answered(rig)
    rig.send(from_backend("SA", seq=77776, ack=1000), PRIVATE)
    rig.send(tcp(CLIENT, VIP, 5000, 80, "PA", b"x" * 9, seq=1000, ack=1000))
    assert rig.pair()[0].state == ConnectionState.OPENING | ANSWERED

    rig.send(tcp(BACKEND, SNAT, 8080, 5000, "PA", b"y", seq=1000, ack=1009), PRIVATE)

    dnat, snat = rig.pair()
    assert (dnat.state, snat.next, snat.ack, dnat.ack) == (ESTABLISHED, 1001, 1009, 1000)


def test_opening_connections_give_way_where_established_ones_fill_the_tables(
    small_rig: Rig,
) -> None:
    """Room for four: three are established. The flood's last one must not keep others out."""
    for port in (5000, 5001, 5002):
        small_rig.send(tcp(CLIENT, VIP, port, 80, "S", seq=999))
        for table in (small_rig.dnat, small_rig.snat):
            for flow in table.halves():
                table.edit(flow, state=ESTABLISHED)
    flood(small_rig, 1)

    refused = small_rig.send(tcp(CLIENT, VIP, 5003, 80, "S"))
    again = small_rig.send(tcp(CLIENT, VIP, 5003, 80, "S"))

    assert (refused.verdict, again.verdict) == (Verdict.DROP_TABLE_FULL, Verdict.FORWARD_NEW)
    assert ports(small_rig) == {5000, 5001, 5002, 5003}


def test_full_tables_of_established_connections_lose_none(small_rig: Rig) -> None:
    for port in range(5000, 5004):
        small_rig.send(tcp(CLIENT, VIP, port, 80, "S", seq=999))
        for table in (small_rig.dnat, small_rig.snat):
            for flow in table.halves():
                table.edit(flow, state=ESTABLISHED)
    before = small_rig.pairs()

    for port in range(7000, 7020):
        verdict = small_rig.send(tcp(OTHER_CLIENT, VIP, port, 80, "S")).verdict
        assert verdict is Verdict.DROP_TABLE_FULL

    assert small_rig.pairs() == before
