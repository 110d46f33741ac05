"""How the state of a connection follows its packets, and what an opening packet makes of it."""

from __future__ import annotations

import pytest

from llb_core.datapath.layout import ConnectionState, Verdict
from llb_core.model import BackendMode
from tests.bpf.harness import talk
from tests.bpf.harness.packets import (
    at_backend,
    at_client,
    from_backend,
    from_client,
    question,
    reply,
    tcp,
    udp,
)
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.states import STATES, Reached
from tests.bpf.harness.world import BACKEND, CLIENT, OTHER_CLIENT, PRIVATE, SECOND, SNAT, VIP

pytestmark = pytest.mark.root


@pytest.mark.parametrize("reached", STATES, ids=lambda reached: reached.name)
def test_state_is_alike_in_both_halves(rig: Rig, reached: Reached) -> None:
    reached.by(rig)

    dnat, snat = rig.pair()

    assert (hex(dnat.state), hex(snat.state)) == (hex(reached.state), hex(reached.state))


@pytest.mark.parametrize("given", [talk.closing, talk.closed_by_client, talk.closed_by_backend,
                                   talk.reset_by_client, talk.reset_by_backend])  # fmt: skip
def test_syn_begins_anew_what_is_over(rig: Rig, given: talk.Given) -> None:
    given(rig)

    outcome = rig.send(from_client("S", seq=77))

    dnat, snat = rig.pair()
    assert outcome.verdict is Verdict.FORWARD_NEW
    assert dnat.state == snat.state == ConnectionState.OPENING
    assert (dnat.packets, snat.packets) == (1, 0)
    assert bytes(outcome.packet) == bytes(at_backend("S", seq=77))


@pytest.mark.parametrize("given", [talk.opening, talk.answered, talk.established,
                                   talk.client_half_closed, talk.backend_half_closed])  # fmt: skip
def test_syn_changes_nothing_of_what_is_open(rig: Rig, given: talk.Given) -> None:
    given(rig)
    before, _ = rig.pair()

    outcome = rig.send(from_client("S", seq=77))

    after, _ = rig.pair()
    assert outcome.verdict is Verdict.FORWARD_TO_BACKEND
    assert after.state == before.state
    assert after.opened == before.opened


@pytest.mark.parametrize("reached", STATES, ids=lambda reached: reached.name)
def test_opening_packet_begins_anew_what_has_been_idle(rig: Rig, reached: Reached) -> None:
    reached.by(rig)
    is_udp = rig.pair()[0].kind is ConnectionState.UDP
    rig.pass_time(reached.idle)

    outcome = rig.send(question() if is_udp else from_client("S"))

    dnat, snat = rig.pair()
    assert outcome.verdict is Verdict.FORWARD_NEW
    assert dnat.state == snat.state
    assert dnat.kind is (ConnectionState.UDP if is_udp else ConnectionState.OPENING)


def test_datagram_of_a_live_flow_begins_nothing(rig: Rig) -> None:
    talk.replied(rig)
    rig.pass_time(59)

    assert rig.send(question()).verdict is Verdict.FORWARD_TO_BACKEND


def test_backend_keeps_a_flow_alive(rig: Rig) -> None:
    """Idle is counted from the last packet of either side."""
    talk.replied(rig)
    rig.pass_time(40)
    rig.send(reply(), PRIVATE)
    rig.pass_time(40)

    assert rig.send(question()).verdict is Verdict.FORWARD_TO_BACKEND


def test_packets_of_an_old_connection_still_pass(rig: Rig) -> None:
    """Nobody has cleaned up yet, so nothing is in the way of going on."""
    talk.established(rig)
    rig.pass_time(3 * 3600)

    assert rig.send(from_client("A")).verdict is Verdict.FORWARD_TO_BACKEND
    assert rig.send(from_backend("A"), PRIVATE).verdict is Verdict.FORWARD_TO_CLIENT


def test_one_client_port_speaks_with_two_services(rig: Rig) -> None:
    first = rig.send(from_client("S"))
    second = rig.send(tcp(CLIENT, VIP, 5000, 81, "S"))
    third = rig.send(udp(CLIENT, VIP, 5000, 53))

    assert [each.verdict for each in (first, second, third)] == [Verdict.FORWARD_NEW] * 3
    assert len(rig.pairs()) == 3


def test_backend_talks_with_itself_both_ways(rig: Rig) -> None:
    """The service's only backend is its own client."""
    rig.send(tcp(BACKEND, VIP, 5000, 80, "S"), PRIVATE)

    outcome = rig.send(from_backend("SA"), PRIVATE)

    assert outcome.verdict is Verdict.FORWARD_TO_CLIENT
    assert bytes(outcome.packet) == bytes(tcp(VIP, BACKEND, 80, 5000, "SA", ttl=63))


def test_backend_as_client_gets_its_answer(rig: Rig) -> None:
    rig.send(tcp(SECOND, VIP, 5000, 80, "S"), PRIVATE)

    outcome = rig.send(tcp(BACKEND, SNAT, 8080, 5000, "SA", ttl=64), PRIVATE)

    assert bytes(outcome.packet) == bytes(tcp(VIP, SECOND, 80, 5000, "SA", ttl=63))


@pytest.mark.parametrize("seconds", [0, 2])
def test_claimed_connection_never_forwards(rig: Rig, seconds: float) -> None:
    talk.established(rig)
    for table in (rig.dnat, rig.snat):
        for flow in table.halves():
            table.edit(flow, state=ConnectionState.CLAIMED)
    rig.pass_time(seconds)

    assert rig.send(from_client("A")).verdict is Verdict.DROP_ENDING
    assert rig.send(from_client("S")).verdict is Verdict.DROP_ENDING
    assert rig.send(from_backend("A"), PRIVATE).verdict is Verdict.DROP_ENDING


@pytest.mark.parametrize("given", [talk.opening, talk.closing])
def test_lone_half_never_forwards(rig: Rig, given: talk.Given) -> None:
    given(rig)
    (dnat,), (snat,) = rig.dnat.halves(), rig.snat.halves()
    entries = rig.dnat.snapshot()

    rig.dnat.remove(dnat)
    assert rig.send(from_backend("A"), PRIVATE).verdict is Verdict.DROP_ENDING
    rig.dnat.restore(entries)
    rig.snat.remove(snat)
    assert rig.send(from_client("A")).verdict is Verdict.DROP_ENDING
    assert rig.send(from_backend("A"), PRIVATE).verdict is Verdict.DROP_UNKNOWN_ANSWER


def test_lone_half_of_an_established_connection_stops_within_a_second(rig: Rig) -> None:
    """Steady packets look for the twin once a second."""
    talk.established(rig)
    (dnat,), (snat,) = rig.dnat.halves(), rig.snat.halves()
    entries = rig.dnat.snapshot()
    rig.dnat.remove(dnat)
    rig.pass_time(1)
    assert rig.send(from_backend("A"), PRIVATE).verdict is Verdict.DROP_ENDING

    rig.dnat.restore(entries)
    rig.snat.remove(snat)
    rig.pass_time(1)
    assert rig.send(from_client("A")).verdict is Verdict.DROP_ENDING


def test_lone_half_that_has_rested_is_not_forwarded(rig: Rig) -> None:
    """When its twin was looked up is kept in 16 bits of ticks, which have gone round once here."""
    talk.established(rig)
    (snat,) = rig.snat.halves()
    rig.snat.remove(snat)

    rig.dnat.age(1 << 16)

    assert rig.send(from_client("A")).verdict is Verdict.DROP_ENDING


@pytest.mark.parametrize("given", [talk.opening, talk.established])
def test_syn_heals_a_lone_half(rig: Rig, given: talk.Given) -> None:
    given(rig)
    (snat,) = rig.snat.halves()
    rig.snat.remove(snat)

    assert rig.send(from_client("S")).verdict is Verdict.FORWARD_NEW
    assert rig.pair()[0].state == ConnectionState.OPENING


def test_half_whose_twin_is_another_connection_s_counts_as_alone(rig: Rig) -> None:
    talk.opening(rig)
    (snat,) = rig.snat.halves()
    rig.snat.edit(snat, new_dport=5001)

    assert rig.send(from_client("A")).verdict is Verdict.DROP_ENDING
    assert rig.send(from_backend("A"), PRIVATE).verdict is Verdict.DROP_ENDING


def test_half_that_points_at_another_s_twin_counts_as_alone(rig: Rig) -> None:
    """So no packet of one connection is ever sent on as another's."""
    rig.send(tcp(OTHER_CLIENT, VIP, 6000, 80, "S"))
    ((whole, _),) = rig.pairs().items()
    talk.opening(rig)
    dnat = next(flow for flow in rig.dnat.halves() if flow != whole)
    snat = next(flow for flow in rig.snat.halves() if flow.dport == 5000)
    rig.dnat.edit(dnat, new_sport=6000)
    rig.snat.edit(snat, new_dst=whole.src, new_dport=whole.sport)

    assert rig.send(from_client("A")).verdict is Verdict.DROP_ENDING
    assert rig.send(from_backend("SA"), PRIVATE).verdict is Verdict.DROP_ENDING


def test_route_to_the_client_is_looked_up_once_a_second(rig: Rig) -> None:
    talk.established(rig)
    (snat,) = rig.snat.halves()
    rig.snat.edit(snat, ifindex=0)
    assert rig.send(from_backend("A"), PRIVATE).verdict is Verdict.DROP_NO_ROUTE

    rig.pass_time(1)

    outcome = rig.send(from_backend("A"), PRIVATE)
    assert outcome.verdict is Verdict.FORWARD_TO_CLIENT
    assert bytes(outcome.packet) == bytes(at_client("A"))
    assert rig.snat.halves()[snat].ifindex == rig.public_index


def test_route_to_a_client_that_comes_again_is_looked_up(rig: Rig) -> None:
    """However long it has rested: 16 bits of ticks have gone round once here."""
    talk.closed_by_client(rig)
    (snat,) = rig.snat.halves()
    rig.snat.edit(snat, ifindex=0)
    rig.dnat.age(1 << 16)
    rig.snat.age(1 << 16)

    assert rig.send(from_client("S")).verdict is Verdict.FORWARD_NEW

    assert rig.send(from_backend("SA"), PRIVATE).verdict is Verdict.FORWARD_TO_CLIENT


def test_backend_that_lost_its_route_drops_its_packets(rig: Rig) -> None:
    talk.established(rig)
    rig.put_backend(BACKEND, 8080, route=None)

    assert rig.send(from_client("A")).verdict is Verdict.DROP_NO_ROUTE
    assert rig.send(from_backend("A"), PRIVATE).verdict is Verdict.FORWARD_TO_CLIENT


def test_established_connection_outlives_its_service_s_table(rig: Rig) -> None:
    talk.established(rig)
    rig.put_backend(BACKEND, 8080, mode=BackendMode.DRAINING)

    assert rig.send(from_client("A")).verdict is Verdict.FORWARD_TO_BACKEND
