"""Which backend a connection goes to, and what it means that one drains, ends or is retired."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
from scapy.layers.inet6 import IPv6ExtHdrDestOpt
from scapy.packet import Packet

from llb_core.datapath.layout import Verdict
from llb_core.model import BackendMode, DesiredService, Transport
from llb_core.planning.changes import PutTable, WriteTable
from tests.bpf.harness import world
from tests.bpf.harness.packets import tcp, udp, with_headers
from tests.bpf.harness.rig import Outcome, Rig
from tests.bpf.harness.world import BACKEND, CLIENT, PRIVATE, SECOND, SNAT, VIP

pytestmark = pytest.mark.root

PAIR, PAIR_BACKEND = 81, 8081
PAIR_UDP, PAIR_UDP_BACKEND = 54, 5454
KEEP = [BackendMode.DRAINING, BackendMode.RETIRED]
LEAVING = [BackendMode.DRAINING, BackendMode.ENDING, BackendMode.RETIRED]


def to_vip(port: int, flags: str, seq: int = 1000, ack: int = 1000) -> Packet:
    """A segment of the client for the service with two backends."""
    return tcp(CLIENT, VIP, port, PAIR, flags, seq=seq, ack=ack)


def from_backend(address: str, port: int, flags: str, seq: int = 1000, ack: int = 1000) -> Packet:
    """A segment of one of them."""
    return tcp(address, SNAT, PAIR_BACKEND, port, flags, seq=seq, ack=ack)


def open_to(rig: Rig, backend: str) -> int:
    """Open a connection that leads to this backend and return the client's port."""
    for port in range(5000, 5100):
        if rig.send(to_vip(port, "S", seq=999, ack=0)).dst == backend:
            rig.keep_only(port)
            return port
    raise AssertionError(f"no connection leads to {backend}")


def establish_to(rig: Rig, backend: str) -> int:
    """Go on to the end of the handshake."""
    port = open_to(rig, backend)
    rig.send(from_backend(backend, port, "SA", seq=999), PRIVATE)
    rig.send(to_vip(port, "A"))
    return port


def ask(rig: Rig, port: int) -> Outcome:
    """Send a datagram for the service with two backends."""
    return rig.send(udp(CLIENT, VIP, port, PAIR_UDP, b"question"))


def ask_from(rig: Rig, backend: str) -> int:
    """Begin a flow that leads to this backend and return the client's port."""
    return next(port for port in range(5000, 5100) if ask(rig, port).dst == backend)


def pair(rig: Rig, modes: Iterable[tuple[str, BackendMode]]) -> list[DesiredService]:
    """Both services of two backends, with these in these modes."""
    modes = list(modes)
    return [
        world.service(
            name,
            protocol,
            port,
            [world.backend(a, backend_port, rig.private_index, mode=mode) for a, mode in modes],
        )
        for name, protocol, port, backend_port in (
            ("pair", Transport.TCP, PAIR, PAIR_BACKEND),
            ("pair-udp", Transport.UDP, PAIR_UDP, PAIR_UDP_BACKEND),
        )
    ]


def take_out(rig: Rig, mode: BackendMode) -> None:
    """Have BACKEND leave in this mode, by a plan; SECOND stays."""
    stays = (SECOND, BackendMode.ACTIVE)
    is_gone = mode is BackendMode.RETIRED
    rig.install(*pair(rig, [stays] if is_gone else [(BACKEND, mode), stays]))


def test_both_backends_get_connections(rig: Rig) -> None:
    got = [rig.send(to_vip(port, "S")).dst for port in range(5000, 5200)]

    assert 60 < got.count(BACKEND) < 140
    assert got.count(BACKEND) + got.count(SECOND) == 200


def test_connection_stays_with_its_backend(rig: Rig) -> None:
    port = establish_to(rig, SECOND)
    rig.install(*pair(rig, [(BACKEND, BackendMode.ACTIVE), (SECOND, BackendMode.DRAINING)]))

    assert rig.send(to_vip(port, "A")).dst == SECOND


@pytest.mark.parametrize("mode", LEAVING)
def test_new_connections_go_elsewhere(rig: Rig, mode: BackendMode) -> None:
    take_out(rig, mode)

    for port in range(5000, 5050):
        assert rig.send(to_vip(port, "S")).dst == SECOND
        assert ask(rig, port).dst == SECOND


@pytest.mark.parametrize("mode", KEEP)
def test_established_connection_goes_on_both_ways(rig: Rig, mode: BackendMode) -> None:
    port = establish_to(rig, BACKEND)
    take_out(rig, mode)
    rig.pass_time(2)

    there = rig.send(to_vip(port, "A"))
    back = rig.send(from_backend(BACKEND, port, "A"), PRIVATE)

    assert (there.verdict, there.dst) == (Verdict.FORWARD_TO_BACKEND, BACKEND)
    assert back.verdict is Verdict.FORWARD_TO_CLIENT


@pytest.mark.parametrize("mode", KEEP)
def test_handshake_under_way_goes_on(rig: Rig, mode: BackendMode) -> None:
    port = open_to(rig, BACKEND)
    take_out(rig, mode)

    assert rig.send(to_vip(port, "S", seq=999)).dst == BACKEND
    answer = rig.send(from_backend(BACKEND, port, "SA"), PRIVATE)
    assert answer.verdict is Verdict.FORWARD_TO_CLIENT


def test_ending_backend_s_connections_are_gone(rig: Rig) -> None:
    """The client's next segment is left to the stack, which resets it: it learns at once."""
    port = establish_to(rig, BACKEND)
    take_out(rig, BackendMode.ENDING)

    assert rig.send(to_vip(port, "A")).verdict is Verdict.PASS_NO_CONNECTION
    assert rig.send(to_vip(port, "FA")).verdict is Verdict.PASS_NO_CONNECTION
    back = rig.send(from_backend(BACKEND, port, "A"), PRIVATE)
    assert back.verdict is Verdict.DROP_UNKNOWN_ANSWER


def test_ending_backend_s_client_may_come_again_at_once(rig: Rig) -> None:
    port = establish_to(rig, BACKEND)
    take_out(rig, BackendMode.ENDING)

    outcome = rig.send(to_vip(port, "S"))

    assert (outcome.verdict, outcome.dst) == (Verdict.FORWARD_NEW, SECOND)
    assert len(rig.pairs()) == 1


@pytest.mark.parametrize("mode", KEEP)
def test_syn_after_a_close_goes_elsewhere_when_the_backend_leaves(
    rig: Rig, mode: BackendMode
) -> None:
    port = establish_to(rig, BACKEND)
    rig.send(to_vip(port, "R"))
    take_out(rig, mode)

    outcome = rig.send(to_vip(port, "S"))

    assert (outcome.verdict, outcome.dst) == (Verdict.FORWARD_NEW, SECOND)
    assert len(rig.pairs()) == 1


def test_syn_after_a_close_stays_with_a_backend_that_is_active(rig: Rig) -> None:
    """Also where the table would say another one by now."""
    port = establish_to(rig, BACKEND)
    rig.send(to_vip(port, "R"))
    second, service = rig.backend(SECOND, PAIR_BACKEND), rig.service_slot("pair")
    places = np.arange(1021, dtype=np.uint32)
    rig.apply(WriteTable(service, places, np.full(1021, second.slot, dtype=np.uint32)))

    outcome = rig.send(to_vip(port, "S"))

    assert (outcome.verdict, outcome.dst) == (Verdict.FORWARD_NEW, BACKEND)


def test_draining_backend_keeps_its_flows(rig: Rig) -> None:
    port = ask_from(rig, BACKEND)
    take_out(rig, BackendMode.DRAINING)

    assert ask(rig, port).dst == BACKEND


def test_draining_backend_s_idle_flow_is_chosen_anew(rig: Rig) -> None:
    port = ask_from(rig, BACKEND)
    take_out(rig, BackendMode.DRAINING)
    rig.pass_time(60)

    outcome = ask(rig, port)

    assert (outcome.verdict, outcome.dst) == (Verdict.FORWARD_NEW, SECOND)


@pytest.mark.parametrize("mode", [BackendMode.RETIRED, BackendMode.ENDING])
def test_flow_of_a_backend_that_is_gone_is_chosen_anew(rig: Rig, mode: BackendMode) -> None:
    port = ask_from(rig, BACKEND)
    take_out(rig, mode)
    late = rig.send(udp(BACKEND, SNAT, PAIR_UDP_BACKEND, port), PRIVATE)

    outcome = ask(rig, port)

    assert late.verdict is Verdict.DROP_UNKNOWN_ANSWER
    assert (outcome.verdict, outcome.dst) == (Verdict.FORWARD_NEW, SECOND)


def test_backend_that_comes_back_gets_connections_again(rig: Rig) -> None:
    port = establish_to(rig, BACKEND)
    take_out(rig, BackendMode.RETIRED)
    rig.install(*pair(rig, [(BACKEND, BackendMode.ACTIVE), (SECOND, BackendMode.ACTIVE)]))

    assert rig.send(to_vip(port, "A")).dst == BACKEND
    assert open_to(rig, BACKEND)


@pytest.mark.parametrize("mode", LEAVING)
def test_plan_cut_before_the_table_drops_under_a_name(rig: Rig, mode: BackendMode) -> None:
    """A table that still points to a backend that takes no more."""
    for address in (BACKEND, SECOND):
        rig.put_backend(address, PAIR_BACKEND, mode=mode)

    assert rig.send(to_vip(5000, "S")).verdict is Verdict.DROP_NO_BACKEND
    assert rig.pairs() == {}


def test_table_that_points_to_another_service_s_backend_drops(rig: Rig) -> None:
    web = rig.backend(BACKEND, 8080)
    rig.apply(PutTable(rig.service_slot("pair"), np.full(8, web.slot, dtype=np.uint32)))

    assert rig.send(to_vip(5000, "S")).verdict is Verdict.DROP_NO_BACKEND


def test_table_with_places_for_nobody_drops(rig: Rig) -> None:
    rig.apply(PutTable(rig.service_slot("pair"), np.zeros(8, dtype=np.uint32)))

    assert rig.send(to_vip(5000, "S")).verdict is Verdict.DROP_NO_BACKEND


def test_last_backend_gone_drops_what_is_new(rig: Rig) -> None:
    port = establish_to(rig, BACKEND)
    rig.install(*pair(rig, []))

    assert rig.send(to_vip(6000, "S")).verdict is Verdict.DROP_NO_BACKEND
    assert rig.send(to_vip(port, "A")).verdict is Verdict.FORWARD_TO_BACKEND


def test_service_withdrawn_lets_its_connections_end(rig: Rig) -> None:
    port = establish_to(rig, BACKEND)
    rig.install()
    rig.pass_time(60)

    assert rig.send(to_vip(port, "A")).verdict is Verdict.FORWARD_TO_BACKEND
    assert rig.send(to_vip(6000, "S")).verdict is Verdict.PASS_NOT_OURS
    assert rig.sync.collect().removed == 0


def test_address_that_falls_on_the_same_bit_as_a_vip_is_not_ours(rig: Rig) -> None:
    """The filter of VIPs lets some strangers by; the tables know better."""
    place = rig.records.filter_place(world.address(VIP), PAIR)
    others = (f"198.18.{third}.{last}" for third in range(256) for last in range(256))
    same = next(o for o in others if rig.records.filter_place(world.address(o), PAIR) == place)
    other = next(o for o in others if rig.records.filter_place(world.address(o), PAIR) != place)

    for address in (same, other):
        assert rig.send(tcp(CLIENT, address, 5000, PAIR, "S")).verdict is Verdict.PASS_NOT_OURS


def test_service_withdrawn_leaves_later_fragments_alone(rig: Rig) -> None:
    fragment = udp(CLIENT, VIP, 5000, PAIR_UDP, frag=185)
    assert rig.send(fragment).verdict is Verdict.DROP_FRAGMENT

    rig.install()

    assert rig.send(fragment).verdict is Verdict.PASS_NOT_OURS


def test_service_withdrawn_leaves_nothing_of_its_connections_to_the_stack(rig: Rig) -> None:
    """A segment in pieces, or behind headers that are not read, may be one of them."""
    establish_to(rig, BACKEND)
    fragment = tcp(CLIENT, VIP, 5000, PAIR, "A", frag=185)
    unread = (
        with_headers(to_vip(5000, "A"), *[IPv6ExtHdrDestOpt()] * 7) if rig.family == 6 else None
    )

    rig.install()

    assert rig.send(fragment).verdict is Verdict.DROP_FRAGMENT
    if unread is not None:
        assert rig.send(unread).verdict is Verdict.DROP_EXTENSIONS
    assert rig.send(udp(CLIENT, VIP, 5000, PAIR_UDP, frag=185)).verdict is Verdict.PASS_NOT_OURS


def test_new_route_is_followed_at_once(rig: Rig) -> None:
    port = establish_to(rig, BACKEND)
    header = 20 if rig.family == 4 else 40
    way = world.route(rig.private_index, BACKEND, header + 40)
    rig.put_backend(BACKEND, PAIR_BACKEND, route=way)

    too_big = rig.send(tcp(CLIENT, VIP, port, PAIR, "A", bytes(21)))
    fits = rig.send(tcp(CLIENT, VIP, port, PAIR, "A", bytes(20)))

    assert too_big.verdict is Verdict.REFUSE_TOO_BIG
    assert fits.verdict is Verdict.FORWARD_TO_BACKEND


@pytest.mark.parametrize("count", [1, 2, 16])
def test_every_network_of_backends_counts(rig: Rig, count: int) -> None:
    places = range(0, 2 * count, 2)
    rig.configure(backend_cidrs=tuple(world.network(f"10.{each}.0.0/24") for each in places))

    for place in places:
        for inside in (f"10.{place}.0.0", f"10.{place}.0.255"):
            packet = tcp(inside, VIP, 5000, PAIR, "S")
            assert rig.send(packet).verdict is Verdict.DROP_SPOOFED
        outside = tcp(f"10.{place}.1.0", VIP, 5000, PAIR, "A")
        assert rig.send(outside).verdict is Verdict.PASS_NO_CONNECTION


def test_network_of_one_address(rig: Rig) -> None:
    rig.configure(backend_cidrs=(world.network("10.0.0.2/32"),))

    assert rig.send(tcp(BACKEND, VIP, 5000, PAIR, "S")).verdict is Verdict.DROP_SPOOFED
    assert rig.send(tcp(SECOND, VIP, 5000, PAIR, "A")).verdict is Verdict.PASS_NO_CONNECTION


def test_without_networks_nobody_is_a_backend(rig: Rig) -> None:
    rig.configure(backend_cidrs=())

    packet = tcp(BACKEND, SNAT, PAIR_BACKEND, 5000, "A")
    assert rig.send(packet, PRIVATE).verdict is Verdict.PASS_NOT_OURS
