"""The collector: what is over goes, both halves of it; what is not stays, and lone halves go."""

from __future__ import annotations

import ipaddress
import time

import numpy as np
import pytest

from llb_core import collection
from llb_core.collection import EMPTY_LOOKS, QUIET_PASSES, Collector, CollectReport
from llb_core.datapath import programs
from llb_core.datapath.bpf_map import MapWriter
from llb_core.datapath.connections import from_ended
from llb_core.datapath.layout import (
    ANSWERED,
    ASSURED,
    MAX_COLLECT,
    MAX_END,
    ConnectionState,
    Verdict,
)
from llb_core.map_sync import MapSync
from llb_core.model import BackendMode, Endpoint
from llb_core.past_connections import Seen
from tests.bpf.harness import talk
from tests.bpf.harness.family import name_of
from tests.bpf.harness.packets import from_backend, from_client, question, reply, tcp
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.states import STATES, Reached
from tests.bpf.harness.world import BACKEND, CLIENT, OTHER_CLIENT, PRIVATE, SNAT, VIP, address
from tests.dying import killed_at_each

pytestmark = pytest.mark.root


@pytest.mark.parametrize("reached", STATES, ids=lambda reached: reached.name)
def test_connection_goes_when_it_has_been_idle_for_its_state_s_time(
    rig: Rig, reached: Reached
) -> None:
    """To the tick, the model is exact; here a slow machine has two seconds."""
    reached.by(rig)
    rig.pass_time(reached.idle - 2)
    assert rig.sync.collect().removed == 0
    assert len(rig.pairs()) == 1

    rig.pass_time(2)

    assert rig.sync.collect().removed == 1
    assert rig.pairs() == {}


def test_client_alone_keeps_its_connection(rig: Rig) -> None:
    talk.established(rig)
    rig.pass_time(7000)
    rig.send(from_client("A"))
    rig.pass_time(7000)

    assert rig.sync.collect().removed == 0


def test_backend_alone_keeps_its_connection(rig: Rig) -> None:
    talk.established(rig)
    rig.pass_time(7000)
    rig.send(from_backend("A"), PRIVATE)
    rig.pass_time(7000)

    assert rig.sync.collect().removed == 0


def test_ending_backend_s_connections_go_at_once(rig: Rig) -> None:
    talk.established(rig)
    talk.replied(rig)
    rig.put_backend(BACKEND, 8080, mode=BackendMode.ENDING)

    report = rig.sync.collect()

    assert report.removed == 1
    assert [flow.protocol for flow in rig.pairs()] == [17]


def test_retired_backend_s_flows_go_and_its_connections_stay(rig: Rig) -> None:
    talk.established(rig)
    talk.replied(rig)
    for port in (8080, 5353):
        rig.put_backend(BACKEND, port, mode=BackendMode.RETIRED)

    assert rig.sync.collect().removed == 1
    assert [flow.protocol for flow in rig.pairs()] == [6]


def test_draining_backend_s_connections_stay(rig: Rig) -> None:
    talk.established(rig)
    talk.replied(rig)
    for port in (8080, 5353):
        rig.put_backend(BACKEND, port, mode=BackendMode.DRAINING)

    assert rig.sync.collect().removed == 0


@pytest.mark.parametrize("given", [talk.opening, talk.established, talk.replied])
def test_lone_snat_half_is_gone_after_one_pass(rig: Rig, given: talk.Given) -> None:
    given(rig)
    (flow,) = rig.dnat.halves()
    rig.dnat.remove(flow)
    rig.pass_time(0.1)

    report = rig.sync.collect()

    assert report.lone_halves == 1
    assert rig.snat.halves() == {}
    assert sum(rig.loads.connections()[1].values()) == 0


@pytest.mark.parametrize("given", [talk.opening, talk.established, talk.replied])
def test_lone_dnat_half_is_gone_after_one_pass(rig: Rig, given: talk.Given) -> None:
    given(rig)
    (flow,) = rig.snat.halves()
    rig.snat.remove(flow)
    rig.pass_time(0.1)

    report = rig.sync.collect()

    assert report.lone_halves == 1
    assert rig.dnat.halves() == {}


def test_half_that_has_just_been_made_is_left_for_its_twin_to_come(rig: Rig) -> None:
    """The SNAT half comes first, and the clock may tick before the other one does."""
    talk.opening(rig)
    (dnat,), (snat,) = rig.dnat.halves(), rig.snat.halves()
    rig.dnat.remove(dnat)
    rig.snat.edit(snat, seen=rig.datapath.now() + 1000)  # however slow this machine is

    assert rig.sync.collect().lone_halves == 0
    assert list(rig.snat.halves()) == [snat]


def test_half_whose_twin_is_another_connection_s_goes(rig: Rig) -> None:
    talk.established(rig)
    (flow,) = rig.snat.halves()
    rig.snat.edit(flow, new_dport=5001)
    rig.pass_time(0.1)

    rig.sync.collect()

    assert rig.dnat.halves() == rig.snat.halves() == {}


def test_pass_takes_out_only_what_is_over(rig: Rig) -> None:
    talk.closed_by_client(rig)
    rig.pass_time(10)
    rig.send(tcp(OTHER_CLIENT, VIP, 6000, 80, "S"))
    rig.send(question())

    report = rig.sync.collect()

    assert (report.removed, report.connections, report.lone_halves) == (1, 2, 0)
    assert {flow.sport for flow in rig.pairs()} == {6000, 5000}


def test_pass_that_is_killed_anywhere_is_made_up_for_by_the_next_daemon(rig: Rig) -> None:
    """It has a connection to collect, a half that is alone, and one connection to leave."""

    def collect() -> CollectReport:
        return MapSync(rig.datapath).collect()

    def given() -> None:
        talk.closed_by_client(rig)
        rig.pass_time(10)
        rig.send(question())
        rig.send(tcp(OTHER_CLIENT, VIP, 7000, 80, "S"))
        rig.dnat.remove(next(flow for flow in rig.dnat.halves() if flow.sport == 7000))
        rig.pass_time(0.1)

    given()
    for _ in killed_at_each(collect):
        for _ in range(2):  # What is wrong with a count two passes must agree on.
            assert collect().lone_halves <= 1
        assert [flow.protocol for flow in rig.pairs()] == [17]
        assert [sum(counts.values()) for counts in rig.loads.connections()] == [1, 1]
        assert (collect().removed, collect().lone_halves) == (0, 0)
        rig.forget_connections()
        given()
    assert [flow.protocol for flow in rig.pairs()] == [17]


def test_many_are_collected_in_one_pass(rig: Rig) -> None:
    count = 2 * MAX_COLLECT + 5
    for port in range(5000, 5000 + count):
        rig.send(tcp(CLIENT, VIP, port, 80, "S"))
    rig.pass_time(5)

    assert rig.sync.collect().removed == count
    assert rig.pairs() == {}


def test_collector_judges_for_itself(rig: Rig) -> None:
    """A packet may have come since user space chose: what it hands over may be in use again."""
    talk.established(rig)
    keys, _ = rig.dnat.snapshot()

    assert programs.run_collector(rig.datapath.program_fds["collect"], keys, rig.family) == 0

    assert len(rig.pairs()) == 1


def test_halves_of_a_pair_are_not_taken_for_lone_ones(rig: Rig) -> None:
    talk.established(rig)
    keys, _ = rig.snat.snapshot()
    rig.pass_time(7200)

    assert programs.run_collector(rig.datapath.program_fds["collect_halves"], keys, rig.family) == 0

    assert len(rig.pairs()) == 1


@pytest.mark.parametrize("program", ["collect", "collect_halves"])
def test_key_that_is_gone_is_no_matter(rig: Rig, program: str) -> None:
    keys = np.zeros(3, dtype=rig.records.flow_key)

    assert programs.run_collector(rig.datapath.program_fds[program], keys, rig.family) == 0


@pytest.mark.parametrize("half", ["dnat", "snat"])
def test_claimed_half_is_left_to_who_claimed_it(rig: Rig, half: str) -> None:
    talk.established(rig)
    table = getattr(rig, half)
    (flow,) = table.halves()
    table.edit(flow, state=ConnectionState.CLAIMED)
    rig.pass_time(8000)

    keys, _ = rig.dnat.snapshot()
    assert programs.run_collector(rig.datapath.program_fds["collect"], keys, rig.family) == 0

    assert len(rig.dnat.halves()) == len(rig.snat.halves()) == 1


def test_failed_claim_of_one_half_gives_the_other_back(rig: Rig) -> None:
    """The DNAT half is another's, so the SNAT half goes on as it was."""
    talk.established(rig)
    (flow,) = rig.dnat.halves()
    (snat,) = rig.snat.halves()
    before = rig.snat.halves()[snat]
    rig.dnat.edit(flow, state=ConnectionState.CLAIMED)
    rig.pass_time(8000)

    rig.sync.collect()

    assert rig.snat.halves()[snat].state == before.state


@pytest.mark.parametrize("ahead", ["dnat", "snat"])
def test_last_packet_seen_a_moment_ahead_of_the_clock_is_no_age(rig: Rig, ahead: str) -> None:
    """Another CPU's packet may come behind the reading of the clock: ages are signed."""
    talk.opening(rig)
    rig.pass_time(100)
    keys, _ = rig.dnat.snapshot()
    table = getattr(rig, ahead)
    (flow,) = table.halves()
    table.edit(flow, seen=rig.datapath.now() + 1000)

    assert programs.run_collector(rig.datapath.program_fds["collect"], keys, rig.family) == 0
    assert rig.send(from_client("S")).verdict is Verdict.FORWARD_TO_BACKEND


def test_half_that_points_at_another_s_twin_goes_alone(rig: Rig) -> None:
    rig.send(tcp(OTHER_CLIENT, VIP, 6000, 80, "S"))
    ((whole, _),) = rig.pairs().items()
    talk.established(rig)
    lone = next(flow for flow in rig.dnat.halves() if flow != whole)
    alone = next(flow for flow in rig.snat.halves() if flow.dport == 5000)
    rig.dnat.edit(lone, new_sport=6000)
    rig.snat.edit(alone, new_dst=whole.src, new_dport=whole.sport)
    rig.pass_time(0.1)

    dnat_keys, _ = rig.dnat.snapshot()
    snat_keys, _ = rig.snat.snapshot()
    assert programs.run_collector(rig.datapath.program_fds["collect"], dnat_keys, rig.family) == 1
    assert (
        programs.run_collector(rig.datapath.program_fds["collect_halves"], snat_keys, rig.family)
        == 1
    )

    assert list(rig.pairs()) == [whole]


def test_collected_connection_s_late_packets_are_strangers(rig: Rig) -> None:
    talk.replied(rig)
    rig.pass_time(60)
    rig.sync.collect()

    assert rig.send(reply(), PRIVATE).verdict is Verdict.DROP_UNKNOWN_ANSWER
    assert rig.send(question()).verdict is Verdict.FORWARD_NEW


def test_report_tells_backends_and_states(rig: Rig) -> None:
    talk.established(rig)
    talk.replied(rig)
    rig.send(tcp(OTHER_CLIENT, VIP, 6000, 80, "S"))
    web, dns = rig.backend(BACKEND, 8080).slot, rig.backend(BACKEND, 5353).slot

    report = rig.sync.collect()

    assert report.by_backend == {web: 2, dns: 1}
    assert report.by_state == {"established": 1, "opening": 1, "udp": 1}


def test_what_a_pass_removes_is_in_none_of_the_counts_that_it_reports(rig: Rig) -> None:
    talk.replied(rig)
    rig.pass_time(100)
    talk.established(rig)

    report = rig.sync.collect()

    assert (report.removed, report.connections) == (1, 1)
    assert report.by_state == {"established": 1}
    assert list(report.by_backend.values()) == [1]

    rig.put_backend(BACKEND, 8080, mode=BackendMode.ENDING)
    report = rig.sync.collect()
    assert (report.removed, report.connections, report.by_state) == (1, 0, {})
    assert report.by_backend == {}


def test_connection_that_is_ended_is_handed_back_as_it_was(rig: Rig) -> None:
    talk.client_half_closed(rig)
    keys, _ = rig.dnat.snapshot()

    (ended,) = from_ended(rig.records, rig.sync.end_connections(keys))

    assert rig.pairs() == {}
    assert ended.client == Endpoint(address(CLIENT), 5000)
    assert ended.vip == Endpoint(address(VIP), 80)
    assert ended.backend == Endpoint(address(BACKEND), 8080)
    assert ended.snat == Endpoint(address(SNAT), 5000)
    assert (ended.state, ended.is_assured) == (ConnectionState.ESTABLISHED, True)
    assert (ended.client_next, ended.client_awaits) == (1001, 1000)
    assert (ended.backend_next, ended.backend_awaits) == (1000, 1000)
    assert (ended.packets_in, ended.packets_out) == (3, 1)
    assert rig.send(from_backend("A"), PRIVATE).verdict is Verdict.DROP_UNKNOWN_ANSWER


def test_connections_are_ended_in_any_number(rig: Rig) -> None:
    count = 2 * MAX_END + 5
    for port in range(5000, 5000 + count):
        rig.send(tcp(CLIENT, VIP, port, 80, "S"))
    keys, _ = rig.dnat.snapshot()

    ended = from_ended(rig.records, rig.sync.end_connections(keys))

    assert {each.client.port for each in ended} == set(range(5000, 5000 + count))
    assert rig.pairs() == {}
    assert not len(rig.sync.end_connections(keys))


def test_only_what_is_over_is_ended_where_that_is_asked(rig: Rig) -> None:
    talk.established(rig)
    keys, _ = rig.dnat.snapshot()
    assert not len(rig.sync.end_connections(keys, only_over=True))

    rig.pass_time(7200)

    assert len(rig.sync.end_connections(keys, only_over=True)) == 1


@pytest.mark.parametrize("half", ["dnat", "snat"])
def test_claimed_connection_is_not_ended_twice(rig: Rig, half: str) -> None:
    talk.established(rig)
    keys, _ = rig.dnat.snapshot()
    table = getattr(rig, half)
    (flow,) = table.halves()
    table.edit(flow, state=ConnectionState.CLAIMED)

    assert not len(rig.sync.end_connections(keys))


def test_a_connection_after_a_long_silence_is_counted_by_the_next_pass(rig: Rig) -> None:
    """While the tables are empty, most passes don't look into them."""
    for _ in range(2 * QUIET_PASSES):
        assert rig.sync.collect().connections == 0

    talk.established(rig)
    assert rig.sync.collect().connections == 1
    rig.pass_time(7300)
    assert rig.sync.collect().removed == 1


@pytest.mark.parametrize("silence", [0, 1, QUIET_PASSES - 1])
def test_a_half_that_comes_by_no_packet_is_found_in_a_while(rig: Rig, silence: int) -> None:
    talk.established(rig)
    rig.pass_time(0.1)  # One that is younger is left for its twin to come.
    half = rig.snat.snapshot()
    rig.dnat.clear()
    rig.snat.clear()
    for _ in range(EMPTY_LOOKS + silence):
        assert rig.sync.collect().lone_halves == 0

    rig.snat.put(*half)

    assert sum(rig.sync.collect().lone_halves for _ in range(QUIET_PASSES)) == 1
    assert rig.snat.halves() == {}


def test_every_half_of_a_large_table_has_its_turn(rig: Rig) -> None:
    """Where not all twins are looked for in one pass."""
    count = 100
    for port in range(5000, 5000 + count):
        rig.send(tcp(CLIENT, VIP, port, 80, "S"))
    for flow in [*rig.dnat.halves()][:5]:
        rig.dnat.remove(flow)
    for flow in [*rig.snat.halves()][:5]:
        rig.snat.remove(flow)
    rig.pass_time(0.1)
    collector = Collector(rig.datapath, twins_at_once=8)

    first = collector.collect(rig.sync.installed())
    for _ in range(2 * count // 8):
        collector.collect(rig.sync.installed())

    assert first.lone_halves < 10
    assert 90 <= len(rig.pairs()) <= 95


def test_idle_connection_of_a_service_that_wants_it_is_to_be_reset(rig: Rig) -> None:
    talk.client_half_closed(rig)
    rig.send(tcp(OTHER_CLIENT, VIP, 6000, 81, "S"))
    rig.pass_time(7200)

    report = rig.sync.collect({"web", "pair"})

    (client,) = (each.client for each in from_ended(rig.records, report.to_reset))
    assert (name_of(client.address), client.port) == (CLIENT, 5000)
    assert (report.removed, report.connections) == (2, 0)
    assert rig.pairs() == {}


def test_connection_of_an_ending_backend_is_to_be_reset(rig: Rig) -> None:
    talk.established(rig)
    rig.send(tcp(OTHER_CLIENT, VIP, 6000, 80, "S"))  # its SYN is sent again, to another backend
    rig.put_backend(BACKEND, 8080, mode=BackendMode.ENDING)

    report = rig.sync.collect()

    (client,) = (each.client for each in from_ended(rig.records, report.to_reset))
    assert (name_of(client.address), client.port) == (CLIENT, 5000)
    assert (report.removed, report.connections) == (2, 0)


def test_no_pass_has_more_to_be_reset_than_it_may(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "RESETS_AT_ONCE", 2)
    for port in range(5000, 5005):
        rig.send(tcp(CLIENT, VIP, port, 80, "S"))
    for table in (rig.dnat, rig.snat):
        for flow in table.halves():
            table.edit(flow, state=ConnectionState.ESTABLISHED | ANSWERED | ASSURED)
    rig.put_backend(BACKEND, 8080, mode=BackendMode.ENDING)

    reports = [rig.sync.collect() for _ in range(4)]

    assert [each.removed for each in reports] == [2, 2, 1, 0]
    assert [len(each.to_reset) for each in reports] == [2, 2, 1, 0]
    assert [each.connections for each in reports] == [3, 1, 0, 0]


@pytest.mark.parametrize("given", [talk.opening, talk.closed_by_client, talk.closing])
def test_what_is_not_established_is_not_reset(rig: Rig, given: talk.Given) -> None:
    given(rig)
    rig.pass_time(7200)

    report = rig.sync.collect({"web"})

    assert (report.removed, len(report.to_reset)) == (1, 0)


def test_services_that_do_not_ask_have_nothing_reset(rig: Rig) -> None:
    talk.established(rig)
    rig.pass_time(7200)

    report = rig.sync.collect({"pair"})

    assert (report.removed, len(report.to_reset)) == (1, 0)


def remembered(collector: Collector) -> list[int]:
    """The clients' ports of the connections that are remembered behind an address of ours."""
    found, _ = collector.past.find(Seen(ipaddress.ip_network(address(SNAT))), time.monotonic())
    return sorted(each.client.port for each in found)


def test_connection_that_has_closed_is_remembered_while_it_stands_and_once_it_has_gone(
    rig: Rig,
) -> None:
    collector, installed = Collector(rig.datapath), rig.sync.installed()
    talk.closed_by_client(rig)
    for _ in range(3):
        assert collector.collect(installed).removed == 0
        assert remembered(collector) == [5000]
    rig.pass_time(7200)
    assert collector.collect(installed).removed == 1
    assert remembered(collector) == [5000]


@pytest.mark.parametrize("given", [talk.established, talk.closing])
def test_connection_that_is_taken_away_before_it_has_closed_is_remembered(
    rig: Rig, given: talk.Given
) -> None:
    collector, installed = Collector(rig.datapath), rig.sync.installed()
    given(rig)
    collector.collect(installed)
    assert remembered(collector) == []
    rig.pass_time(7200)
    assert collector.collect(installed).removed == 1
    assert remembered(collector) == [5000]


def test_connection_that_is_ended_by_an_order_is_remembered(rig: Rig) -> None:
    collector, installed = Collector(rig.datapath), rig.sync.installed()
    talk.established(rig)
    keys = np.concatenate([keys for keys, _ in rig.sync.connections()])
    assert len(collector.end(keys, installed, only_over=False)) == 1
    assert remembered(collector) == [5000]


def test_what_never_was_open_is_not_remembered(rig: Rig) -> None:
    """Whoever sends many SYNs would have all others forgotten."""
    collector, installed = Collector(rig.datapath), rig.sync.installed()
    talk.opening(rig)
    rig.pass_time(7200)
    assert collector.collect(installed).removed == 1
    assert remembered(collector) == []


def test_connections_outlast_a_map_of_backends_that_somebody_empties(rig: Rig) -> None:
    """Map sync fills it again within a second; a pass that comes before that ends nothing."""
    talk.established(rig)
    (half,) = np.concatenate([halves for _, halves in rig.sync.connections()])
    slot = int(half["backend"])
    backends = MapWriter.of(rig.datapath.maps["backends"])
    before = backends.lookup(slot)
    backends.update(slot, np.zeros((), dtype=rig.records.backend))
    assert rig.sync.collect().removed == 0
    assert len(rig.pairs()) == 1
    backends.update(slot, before)
    assert rig.send(from_client("A")).verdict is Verdict.FORWARD_TO_BACKEND
