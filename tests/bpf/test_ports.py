"""Which SNAT address and port a connection gets, and what happens where they run out."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from scapy.layers.inet import TCP, UDP
from scapy.packet import Packet

from llb_core.datapath.layout import ConnectionState, Verdict
from llb_core.model import Address
from tests.bpf.harness import talk
from tests.bpf.harness.packets import from_backend, from_client, tcp, udp
from tests.bpf.harness.rig import Outcome, Rig
from tests.bpf.harness.world import (
    BACKEND,
    CLIENT,
    MORE_SNATS,
    OTHER_CLIENT,
    PRIVATE,
    SNAT,
    VIP,
    address,
)

pytestmark = pytest.mark.root

FOUR = (2000, 2003)
THIRD_CLIENT = "192.0.2.12"


def syn(client: str, port: int, service: int = 80) -> Packet:
    """A connection's first segment."""
    return tcp(client, VIP, port, service, "S", seq=talk.ISN)


def connect(rig: Rig, client: str, port: int, service: int = 80) -> tuple[str, int]:
    """Open a connection and return its SNAT address and port."""
    outcome = rig.send(syn(client, port, service))
    assert outcome.verdict is Verdict.FORWARD_NEW
    return outcome.src, outcome.packet[TCP].sport


def answer(rig: Rig, snat: tuple[str, int], flags: str, seq: int, ack: int) -> Outcome:
    """Send a segment of the backend to a SNAT address and port."""
    return rig.send(tcp(BACKEND, snat[0], 8080, snat[1], flags, seq=seq, ack=ack), PRIVATE)


def establish(rig: Rig, client: str, port: int) -> tuple[str, int]:
    """Open a connection, complete its handshake, and return its SNAT address and port."""
    snat = connect(rig, client, port)
    answer(rig, snat, "SA", talk.ISN, 1000)
    rig.send(tcp(client, VIP, port, 80, "A", seq=1000, ack=1000))
    return snat


def close_by_backend(rig: Rig, client: str, port: int, snat: tuple[str, int]) -> None:
    """Take a connection that is opening to its end; the backend closes first."""
    answer(rig, snat, "SA", talk.ISN, 1000)
    rig.send(tcp(client, VIP, port, 80, "A", seq=1000, ack=1000))
    answer(rig, snat, "FA", 1000, 1000)
    rig.send(tcp(client, VIP, port, 80, "FA", seq=1000, ack=1001))
    answer(rig, snat, "A", 1001, 1001)


def addresses(texts: Iterable[str]) -> tuple[Address, ...]:
    """Parse SNAT addresses."""
    return tuple(address(text) for text in texts)


@pytest.mark.parametrize("port", [1024, 1025, 9999, 32766, 32767])
def test_client_s_port_is_kept_where_it_lies_in_the_range(rig: Rig, port: int) -> None:
    assert connect(rig, CLIENT, port) == (SNAT, port)


@pytest.mark.parametrize(
    ("port", "snat_port"),
    [(1023, 1024 + 1023), (1, 1025), (32768, 1024 + 1024), (65535, 1024 + 65535 % 31744)],
)
def test_client_s_port_leads_into_the_range(rig: Rig, port: int, snat_port: int) -> None:
    assert connect(rig, CLIENT, port) == (SNAT, snat_port)


def test_range_may_end_at_the_last_port(rig: Rig) -> None:
    rig.configure(snat_ports=(65534, 65535))

    ports = {connect(rig, client, 65535)[1] for client in (CLIENT, OTHER_CLIENT)}

    assert ports == {65534, 65535}


def test_range_of_a_single_port(rig: Rig) -> None:
    rig.configure(snat_ports=(2000, 2000))

    assert establish(rig, CLIENT, 61000) == (SNAT, 2000)
    assert rig.send(syn(OTHER_CLIENT, 61000)).verdict is Verdict.DROP_NO_PORT


def test_port_is_kept_on_each_of_several_addresses(rig: Rig) -> None:
    rig.configure(snat_addresses=addresses((SNAT, *MORE_SNATS)))

    got = {connect(rig, f"192.0.2.{host}", 5000) for host in range(4)}

    assert got == {(each, 5000) for each in (SNAT, *MORE_SNATS)}
    assert connect(rig, "192.0.2.4", 5000)[1] != 5000


def test_sixteen_addresses_are_all_used(rig: Rig) -> None:
    sixteen = [f"10.0.0.{100 + host}" for host in range(16)]
    rig.configure(snat_addresses=addresses(sixteen))

    got = {connect(rig, f"192.0.2.{host}", 5000) for host in range(16)}

    assert got == {(each, 5000) for each in sixteen}


def test_clients_with_the_same_port_never_share_a_tuple(rig: Rig) -> None:
    rig.configure(snat_ports=(2000, 2999))

    for host in range(30):
        for port in range(40000, 40030):
            establish(rig, f"192.0.2.{host}", port)

    assert len(rig.pairs()) == 900


def test_same_port_serves_two_backends_and_two_protocols(rig: Rig) -> None:
    """A tuple holds backend, port and protocol, so the room is theirs alone."""
    rig.configure(snat_ports=(2000, 2000))

    connect(rig, CLIENT, 2000)
    narrow = connect(rig, CLIENT, 2000, service=84)
    datagram = rig.send(udp(CLIENT, VIP, 2000, 53))

    assert narrow == (SNAT, 2000)
    assert datagram.packet[UDP].sport == 2000


def test_no_port_is_left(rig: Rig) -> None:
    rig.configure(snat_ports=FOUR)
    ports = {establish(rig, CLIENT, port)[1] for port in range(40000, 40004)}
    assert ports == {2000, 2001, 2002, 2003}
    before = rig.pairs()

    outcome = rig.send(syn(OTHER_CLIENT, 40000))

    assert outcome.verdict is Verdict.DROP_NO_PORT
    assert rig.pairs() == before


def test_no_port_without_snat_addresses(rig: Rig) -> None:
    rig.configure(snat_addresses=())

    assert rig.send(syn(CLIENT, 5000)).verdict is Verdict.DROP_NO_PORT


def test_tuple_that_the_client_closed_is_free_at_once(rig: Rig) -> None:
    talk.closed_by_client(rig)

    assert connect(rig, OTHER_CLIENT, 5000) == (SNAT, 5000)

    assert [flow.src for flow in rig.pairs()] == [address(OTHER_CLIENT)]
    assert rig.send(from_client("A")).verdict is Verdict.PASS_NO_CONNECTION


@pytest.mark.parametrize("given", [talk.reset_by_client, talk.reset_by_backend])
def test_tuple_that_was_reset_is_free_at_once(rig: Rig, given: talk.Given) -> None:
    given(rig)

    assert connect(rig, OTHER_CLIENT, 5000) == (SNAT, 5000)


def test_tuple_that_the_backend_closed_is_passed_over(rig: Rig) -> None:
    talk.closed_by_backend(rig)
    rig.pass_time(59)

    assert connect(rig, OTHER_CLIENT, 5000) != (SNAT, 5000)

    assert len(rig.pairs()) == 2


def test_tuple_that_the_backend_closed_is_free_after_its_time_wait(rig: Rig) -> None:
    talk.closed_by_backend(rig)
    rig.pass_time(60)

    assert connect(rig, OTHER_CLIENT, 5000) == (SNAT, 5000)

    assert len(rig.pairs()) == 1


def test_tuple_that_closed_longest_ago_is_the_last_resort(rig: Rig) -> None:
    rig.configure(snat_ports=FOUR)
    for port in (2002, 2000, 2003, 2001):
        snat = connect(rig, CLIENT, port)
        close_by_backend(rig, CLIENT, port, snat)
        rig.pass_time(10)

    assert connect(rig, OTHER_CLIENT, 2001) == (SNAT, 2002)
    assert connect(rig, THIRD_CLIENT, 2001) == (SNAT, 2000)

    assert len(rig.pairs()) == 4


def test_last_resort_never_takes_what_is_open(rig: Rig) -> None:
    rig.configure(snat_ports=FOUR)
    for port in range(2000, 2004):
        establish(rig, CLIENT, port)
    rig.pass_time(3600)

    assert rig.send(syn(OTHER_CLIENT, 2000)).verdict is Verdict.DROP_NO_PORT
    assert len(rig.pairs()) == 4


@pytest.mark.parametrize(
    ("given", "idle"),
    [(talk.opening, 5), (talk.established, 7200), (talk.client_half_closed, 7200),
     (talk.closing, 10)],
)  # fmt: skip
def test_tuple_of_an_idle_connection_is_taken_over(rig: Rig, given: talk.Given, idle: int) -> None:
    given(rig)
    entries = rig.dnat.snapshot(), rig.snat.snapshot()
    rig.pass_time(idle - 1)
    assert connect(rig, OTHER_CLIENT, 5000) != (SNAT, 5000)

    rig.dnat.restore(entries[0])
    rig.snat.restore(entries[1])
    rig.pass_time(idle)
    assert connect(rig, OTHER_CLIENT, 5000) == (SNAT, 5000)

    assert len(rig.pairs()) == 1


def test_tuple_of_an_idle_flow_is_taken_over(rig: Rig) -> None:
    talk.replied(rig)
    rig.pass_time(60)

    outcome = rig.send(udp(OTHER_CLIENT, VIP, 5000, 53))

    assert outcome.packet[UDP].sport == 5000
    assert len(rig.pairs()) == 1


def test_answers_on_a_tuple_taken_over_go_to_its_new_client(rig: Rig) -> None:
    talk.closed_by_client(rig)
    connect(rig, OTHER_CLIENT, 5000)

    outcome = rig.send(from_backend("SA"), PRIVATE)

    assert outcome.verdict is Verdict.FORWARD_TO_CLIENT
    assert outcome.dst == OTHER_CLIENT


def test_tuple_whose_client_is_still_heard_is_not_idle(rig: Rig) -> None:
    """Idle is what neither half has seen anything."""
    talk.established(rig)
    rig.pass_time(7200)
    rig.send(from_client("A"))

    assert connect(rig, OTHER_CLIENT, 5000) != (SNAT, 5000)


def test_claimed_tuple_is_passed_over(rig: Rig) -> None:
    talk.closed_by_client(rig)
    (flow,) = rig.snat.halves()
    rig.snat.edit(flow, state=ConnectionState.CLAIMED)

    assert connect(rig, OTHER_CLIENT, 5000) != (SNAT, 5000)


def test_lone_half_is_taken_over_once_it_is_idle(rig: Rig) -> None:
    """A fresh one may be a connection that another CPU is making."""
    talk.opening(rig)
    (flow,) = rig.dnat.halves()
    rig.dnat.remove(flow)
    assert connect(rig, OTHER_CLIENT, 5000) != (SNAT, 5000)

    rig.pass_time(5)

    assert connect(rig, THIRD_CLIENT, 5000) == (SNAT, 5000)


def test_opening_half_whose_twin_is_on_its_way_does_not_give_way(rig: Rig) -> None:
    """The CPU that makes it would insert a DNAT half for a tuple that is another's by then."""
    rig.configure(snat_ports=(2000, 2000))
    talk.opening(rig)
    (dnat,), (snat,) = rig.dnat.halves(), rig.snat.halves()
    rig.dnat.remove(dnat)
    rig.snat.edit(snat, seen=rig.datapath.now() + 1000)  # however slow this machine is
    assert rig.send(syn(OTHER_CLIENT, 5000)).verdict is Verdict.DROP_NO_PORT

    rig.snat.edit(snat, seen=rig.datapath.now() - 2)

    assert connect(rig, OTHER_CLIENT, 5000) == (SNAT, 2000)
    assert sum(rig.loads.connections()[1].values()) == 1


def test_full_table_drops_and_leaves_nothing_behind(small_rig: Rig) -> None:
    for port in range(5000, 5004):
        establish(small_rig, CLIENT, port)
    before = small_rig.pairs()

    outcome = small_rig.send(syn(CLIENT, 5004))

    assert outcome.verdict is Verdict.DROP_TABLE_FULL
    assert small_rig.pairs() == before
    assert small_rig.send(from_client("A")).verdict is Verdict.FORWARD_TO_BACKEND


def test_full_table_still_takes_over_what_is_closed(small_rig: Rig) -> None:
    talk.closed_by_client(small_rig)
    for port in range(5001, 5004):
        establish(small_rig, CLIENT, port)

    assert connect(small_rig, OTHER_CLIENT, 5000) == (SNAT, 5000)

    assert len(small_rig.pairs()) == 4


def test_full_table_still_begins_its_own_anew(small_rig: Rig) -> None:
    talk.closed_by_backend(small_rig)
    for port in range(5001, 5004):
        establish(small_rig, CLIENT, port)

    assert small_rig.send(from_client("S")).verdict is Verdict.FORWARD_NEW


def test_half_without_room_for_its_twin_is_not_left_behind(small_rig: Rig) -> None:
    """The DNAT table alone is full: lone halves lie in it."""
    for port in range(5000, 5004):
        establish(small_rig, CLIENT, port)
    small_rig.snat.clear()

    outcome = small_rig.send(syn(CLIENT, 5004))

    assert outcome.verdict is Verdict.DROP_TABLE_FULL
    assert small_rig.snat.halves() == {}


def test_new_connections_go_on_for_long_without_the_daemon(small_rig: Rig) -> None:
    """Four ports, one connection a second, each closed by its client."""
    small_rig.configure(snat_ports=FOUR)
    for turn in range(50):
        client, port = f"192.0.2.{turn}", 40000 + turn
        snat = connect(small_rig, client, port)
        answer(small_rig, snat, "SA", talk.ISN, 1000)
        small_rig.send(tcp(client, VIP, port, 80, "FA", seq=1000, ack=1000))
        answer(small_rig, snat, "FA", 1000, 1001)
        small_rig.send(tcp(client, VIP, port, 80, "A", seq=1001, ack=1001))
        small_rig.pass_time(1)

    assert 1 <= len(small_rig.pairs()) <= 4


def test_port_that_the_host_uses_is_not_taken(rig: Rig) -> None:
    rig.configure(snat_ports=FOUR)
    rig.sync.put_host_ports({2000, 2001})

    ports = {connect(rig, client, 2000)[1] for client in (CLIENT, OTHER_CLIENT)}

    assert ports == {2002, 2003}


def test_new_connections_find_no_port_where_the_host_uses_all(rig: Rig) -> None:
    rig.configure(snat_ports=FOUR)
    rig.sync.put_host_ports(range(2000, 2004))

    assert rig.send(syn(CLIENT, 2000)).verdict is Verdict.DROP_NO_PORT


def test_connection_goes_on_when_the_host_begins_to_use_its_port(rig: Rig) -> None:
    rig.configure(snat_ports=FOUR)
    snat = establish(rig, CLIENT, 2000)

    assert rig.sync.put_host_ports({snat[1]})

    outcome = rig.send(tcp(CLIENT, VIP, 2000, 80, "A", seq=1000, ack=1000))
    assert outcome.verdict is Verdict.FORWARD_TO_BACKEND
    assert answer(rig, snat, "A", 1000, 1000).verdict is Verdict.FORWARD_TO_CLIENT
    assert connect(rig, OTHER_CLIENT, 2000)[1] != snat[1]


def test_the_first_and_the_last_port_have_a_bit_each(rig: Rig) -> None:
    assert rig.sync.put_host_ports({1, 65_535})
    assert not rig.sync.put_host_ports({65_535, 1})

    index = rig.datapath.maps["config_index"].lookup(0)
    record = rig.datapath.maps["configs"].lookup(index)

    assert record is not None
    assert {place: int(word) for place, word in enumerate(record["host_ports"]) if word} == {
        0: 2,
        1023: 1 << 63,
    }


def test_settings_that_change_leave_the_hosts_ports_as_they_are(rig: Rig) -> None:
    rig.sync.put_host_ports({2000, 2001, 2002})

    rig.configure(snat_ports=FOUR)

    assert connect(rig, CLIENT, 2000)[1] == 2003
