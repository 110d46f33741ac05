"""Who may open a connection, through the real program: prefixes of clients, and limits."""

from __future__ import annotations

import struct
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv4Address

import numpy as np
import numpy.typing as npt
import pytest
from scapy.packet import Packet

from llb_core.datapath import bpf_syscall
from llb_core.datapath.bpf_map import MapWriter
from llb_core.datapath.layout import MAX_SOURCES, Verdict
from llb_core.map_sync import MapSync
from llb_core.model import Access, Limits, Policy, Transport
from llb_core.planning.changes import DeleteRules, PutRules
from llb_core.rules import NO_RULES, RECORD, Rules, changes
from tests.bpf.harness import talk, world
from tests.bpf.harness.packets import ACK, SEQ, tcp
from tests.bpf.harness.rig import Rig, to_frame
from tests.bpf.harness.world import BACKEND, PRIVATE, PUBLIC, SNAT, VIP
from tests.bpf.model_admission import source_of

pytestmark = pytest.mark.root

PORT = 91
CLIENT, OTHER = "192.0.2.10", "192.0.2.11"


def serve(rig: Rig, limits: Limits | None = None) -> None:
    rig.install(service(rig, Policy(limits=limits or Limits())))


def service(rig: Rig, policy: Policy, rules: Rules = NO_RULES) -> world.DesiredService:
    backends = [world.backend(BACKEND, 8080, rig.private_index)]
    return world.service("ours", Transport.TCP, PORT, backends, policy, rules)


def admit(rig: Rig, allowed: tuple[str, ...] = (), denied: tuple[str, ...] = ()) -> None:
    rules = Rules.of(map(world.network, allowed), map(world.network, denied), rig.family)
    access = Access.DENY if allowed else Access.ALLOW if denied else Access.OPEN
    rig.install(service(rig, Policy(access=access), rules))


def segment(client: str, port: int, flags: str = "S", seq: int = SEQ, ack: int = 0) -> Packet:
    return tcp(client, VIP, port, PORT, flags, seq=seq, ack=ack)


def syn(rig: Rig, client: str = CLIENT, port: int = 2000) -> Verdict:
    return rig.send(segment(client, port)).verdict


def establish(rig: Rig, client: str = CLIENT, port: int = 2000) -> None:
    assert syn(rig, client, port) is Verdict.FORWARD_NEW
    rig.send(tcp(BACKEND, SNAT, 8080, port, "SA", seq=ACK, ack=SEQ + 1), PRIVATE)
    rig.send(segment(client, port, "A", SEQ + 1, ACK + 1))


# Prefixes


def test_denied_source_gets_in_nowhere_and_others_do(rig: Rig) -> None:
    admit(rig, denied=(f"{CLIENT}/32",))

    assert syn(rig, CLIENT) is Verdict.DROP_DENIED
    assert syn(rig, OTHER) is Verdict.FORWARD_NEW
    assert not any(flow.src == world.address(CLIENT) for flow in rig.pairs())


def test_allowed_source_gets_in_and_no_other(rig: Rig) -> None:
    admit(rig, allowed=("192.0.2.8/29",))

    assert syn(rig, CLIENT) is Verdict.FORWARD_NEW
    assert syn(rig, "192.0.2.16") is Verdict.DROP_DENIED


def test_longest_prefix_decides(rig: Rig) -> None:
    admit(rig, allowed=("192.0.0.0/16", f"{CLIENT}/32"), denied=("192.0.2.0/24",))

    verdicts = [syn(rig, client) for client in (CLIENT, OTHER, "192.0.3.1", "198.51.100.1")]

    assert [each is Verdict.FORWARD_NEW for each in verdicts] == [True, False, True, False]


def test_prefixes_are_of_one_service(rig: Rig) -> None:
    rules = Rules.of([], [world.network("0.0.0.0/0")], rig.family)
    closed = service(rig, Policy(access=Access.ALLOW), rules)
    backends = [world.backend(BACKEND, 8081, rig.private_index)]
    rig.install(closed, world.service("open", Transport.TCP, PORT + 1, backends))

    assert syn(rig) is Verdict.DROP_DENIED
    outcome = rig.send(tcp(CLIENT, VIP, 2000, PORT + 1, "S"))
    assert outcome.verdict is Verdict.FORWARD_NEW


def test_established_connection_goes_on_when_its_source_is_denied(rig: Rig) -> None:
    admit(rig)
    establish(rig)

    admit(rig, denied=("192.0.2.0/24",))

    assert rig.send(segment(CLIENT, 2000, "A", SEQ + 1)).verdict is Verdict.FORWARD_TO_BACKEND
    assert syn(rig, CLIENT, 2001) is Verdict.DROP_DENIED


def test_closed_connection_is_not_begun_anew_by_a_source_that_is_denied_since(rig: Rig) -> None:
    admit(rig)
    syn(rig)
    rig.send(segment(CLIENT, 2000, "R", SEQ + 1))

    admit(rig, denied=("192.0.2.0/24",))

    assert syn(rig) is Verdict.DROP_DENIED


def test_prefixes_survive_a_daemon_that_starts_anew(rig: Rig) -> None:
    admit(rig, allowed=("192.0.2.8/29", "10.0.0.0/8"), denied=(OTHER,))
    known = rig.sync.installed().rules

    assert MapSync(rig.datapath).installed().rules == known
    assert [len(rules) for rules in known.values()] == [3]


def test_prefixes_go_with_their_service(rig: Rig) -> None:
    admit(rig, denied=("192.0.2.0/24",))

    rig.install(*world.services(rig.private_index))

    assert rig.sync.installed().rules == {}
    assert not len(rig.datapath.maps["access_rules"].read_all()[0])


def test_a_hundred_thousand_prefixes_are_changed_while_nobody_denied_gets_in(rig: Rig) -> None:
    numbers = 0x0B000000 + 2 * np.arange(100_000)
    old, new = hosts(rig, numbers), hosts(rig, numbers + (np.arange(100_000) < 50_000))
    rig.install(service(rig, Policy(access=Access.ALLOW), old))
    slot = rig.service_slot("ours")
    put, deleted = changes(old, new)
    assert (len(put), len(deleted)) == (50_000, 50_000)
    verdicts: set[Verdict] = set()
    done = threading.Event()

    def knock() -> None:
        denied_by_both = str(IPv4Address(int(numbers[-1])))
        while not done.is_set():
            verdicts.add(syn(rig, denied_by_both))

    knocker = threading.Thread(target=knock)
    knocker.start()
    rig.apply(PutRules(slot, put), DeleteRules(slot, deleted))
    done.set()
    knocker.join()

    assert verdicts == {Verdict.DROP_DENIED}
    assert rig.sync.installed().rules[slot] == new


def hosts(rig: Rig, numbers: npt.NDArray[np.int64]) -> Rules:
    """Deny hosts by their addresses' numbers in IPv4."""
    records = np.zeros(len(numbers), dtype=RECORD)
    records["length"] = world.prefix(32)
    records["low" if rig.family == 4 else "high"] = numbers
    if rig.family == 6:
        records["high"] |= np.uint64(0x20010DB8 << 32)
    return Rules.sorted(records)


# Limits


def test_a_service_has_no_more_connections_than_it_may(rig: Rig) -> None:
    serve(rig, Limits(connections=3))

    verdicts = [syn(rig, port=port) for port in range(2000, 2005)]

    assert verdicts == [Verdict.FORWARD_NEW] * 3 + [Verdict.DROP_SERVICE_FULL] * 2
    assert len(rig.pairs()) == 3


def test_room_is_there_again_once_a_connection_has_closed(rig: Rig) -> None:
    serve(rig, Limits(connections=1))
    syn(rig)
    assert syn(rig, port=2001) is Verdict.DROP_SERVICE_FULL

    rig.send(segment(CLIENT, 2000, "R", SEQ + 1))

    assert syn(rig, port=2001) is Verdict.FORWARD_NEW
    assert syn(rig, port=2000) is Verdict.DROP_SERVICE_FULL


def test_room_is_there_again_once_a_connection_is_collected(rig: Rig) -> None:
    serve(rig, Limits(connections=1, source_connections=1))
    syn(rig)
    rig.pass_time(world.TIMEOUTS.opening)

    rig.sync.collect()

    assert rig.loads.sources() == {}
    assert syn(rig, port=2001) is Verdict.FORWARD_NEW


FULL = [Limits(connections=1), Limits(source_connections=1)]


@pytest.mark.parametrize("limits", FULL, ids=["service", "source"])
@pytest.mark.parametrize(
    ("given", "again", "idle"),
    [
        (talk.replied, talk.asked, world.TIMEOUTS.udp),
        (talk.opening, talk.opening, world.TIMEOUTS.opening),
        (talk.established, talk.opening, world.TIMEOUTS.established),
        (talk.closing, talk.opening, 0),
        (talk.closed_by_backend, talk.opening, 0),
        (talk.reset_by_client, talk.opening, 0),
    ],
)
def test_a_connection_begins_anew_in_the_place_that_it_had(
    rig: Rig, limits: Limits, given: talk.Given, again: talk.Given, idle: float
) -> None:
    """Nobody has collected it meanwhile."""
    backends = [world.backend(BACKEND, 8080, rig.private_index)]
    services = (("web", Transport.TCP, 80), ("dns", Transport.UDP, 53))
    rig.install(*(world.service(*each, backends, Policy(limits=limits)) for each in services))
    given(rig)
    rig.pass_time(idle)
    before, new = rig.pair()[0], rig.verdicts()[Verdict.FORWARD_NEW]

    again(rig)

    half = rig.pair()[0]
    assert (rig.verdicts()[Verdict.FORWARD_NEW], half.becomes) == (new + 1, before.becomes)
    of_services, of_backends = rig.loads.connections()
    assert (of_services[half.service], of_backends[half.backend]) == (1, 1)
    assert sum(rig.loads.sources().values()) == limits.source_connections


@pytest.mark.parametrize("limits", FULL, ids=["service", "source"])
def test_a_closed_connection_has_no_place_that_another_has_taken_since(
    rig: Rig, limits: Limits
) -> None:
    serve(rig, limits)
    syn(rig)
    rig.send(segment(CLIENT, 2000, "R", SEQ + 1))
    assert syn(rig, port=2001) is Verdict.FORWARD_NEW

    assert syn(rig, port=2000) in (Verdict.DROP_SERVICE_FULL, Verdict.DROP_SOURCE_FULL)

    assert rig.loads.connections()[0][rig.service_slot("ours")] == 1


def test_established_connections_go_on_in_a_service_that_is_full(rig: Rig) -> None:
    serve(rig, Limits(connections=1))
    establish(rig)

    assert syn(rig, port=2001) is Verdict.DROP_SERVICE_FULL
    assert rig.send(segment(CLIENT, 2000, "A", SEQ + 1)).verdict is Verdict.FORWARD_TO_BACKEND


def test_new_connections_are_let_in_at_a_rate_after_a_burst_of_one_second(rig: Rig) -> None:
    serve(rig, Limits(new_per_second=10))
    began = rig.datapath.now()

    first = let_in(rig, range(2000, 2100))
    rig.pass_time(0.5)
    second = let_in(rig, range(3000, 3100))

    took = (rig.datapath.now() - began) / rig.datapath.ticks_per_second  # with one tick to spare
    assert 10 <= first <= 10 + 10 * took + 1
    assert 5 <= second <= 5 + 10 * took + 1


def let_in(rig: Rig, ports: Iterable[int]) -> int:
    """Open connections until one is refused, and return how many those were before it."""
    for count, port in enumerate(ports):
        verdict = syn(rig, port=port)
        if verdict is not Verdict.FORWARD_NEW:
            assert verdict is Verdict.DROP_SERVICE_RATE
            return count
    raise AssertionError("none was refused")


def test_a_source_has_no_more_connections_than_it_may_and_others_do(rig: Rig) -> None:
    serve(rig, Limits(source_connections=2))

    verdicts = [syn(rig, port=port) for port in range(2000, 2004)]

    assert verdicts == [Verdict.FORWARD_NEW] * 2 + [Verdict.DROP_SOURCE_FULL] * 2
    assert syn(rig, OTHER) is Verdict.FORWARD_NEW


def test_a_source_that_asks_too_often_takes_nothing_from_the_others(rig: Rig) -> None:
    serve(rig, Limits(new_per_second=20, source_new_per_second=5))

    greedy = Counter(syn(rig, port=port) for port in range(2000, 2060))

    assert set(greedy) == {Verdict.FORWARD_NEW, Verdict.DROP_SOURCE_RATE}
    assert syn(rig, OTHER) is Verdict.FORWARD_NEW


def test_what_can_not_be_opened_gives_its_place_back(rig: Rig) -> None:
    serve(rig, Limits(connections=5, source_connections=5))
    rig.configure(snat_ports=(2000, 2000))
    establish(rig)

    assert syn(rig, port=2001) is Verdict.DROP_NO_PORT

    assert rig.loads.connections()[0][rig.service_slot("ours")] == 1
    assert list(rig.loads.sources().values()) == [1]


def test_a_client_that_was_forgotten_is_let_in_and_never_counts_below_none(rig: Rig) -> None:
    serve(rig, Limits(source_connections=1))
    syn(rig)
    rig.loads.forget_sources()

    assert syn(rig, port=2001) is Verdict.FORWARD_NEW
    for port in (2000, 2001):
        rig.send(segment(CLIENT, port, "R", SEQ + 1))

    assert rig.loads.sources() == {}
    assert syn(rig, port=2002) is Verdict.FORWARD_NEW
    assert syn(rig, port=2003) is Verdict.DROP_SOURCE_FULL


def test_client_that_was_forgotten_is_counted_again_by_two_passes(rig: Rig) -> None:
    serve(rig, Limits(source_connections=2))
    establish(rig, port=2000)
    establish(rig, port=2001)
    rig.loads.forget_sources()

    for _ in range(2):
        rig.sync.collect()

    assert rig.loads.sources() == {source_of(rig.service_slot("ours"), world.address(CLIENT)): 2}
    assert syn(rig, port=2002) is Verdict.DROP_SOURCE_FULL


def test_limit_that_is_set_later_counts_what_is_there(rig: Rig) -> None:
    serve(rig)
    establish(rig)

    serve(rig, Limits(connections=1, source_connections=1))
    for _ in range(2):
        rig.sync.collect()

    assert syn(rig, port=2001) is Verdict.DROP_SOURCE_FULL
    assert syn(rig, OTHER) is Verdict.DROP_SERVICE_FULL


def test_made_up_sources_shut_out_no_honest_one(rig: Rig) -> None:
    """The clients that are remembered make room for others, and who was forgotten is let in."""
    serve(rig, Limits(source_connections=1))
    writer = MapWriter.of(rig.datapath.maps["source_loads"])
    keys = np.zeros(MAX_SOURCES, dtype=writer.spec.key)
    keys["service"] = rig.service_slot("ours")
    rig.records.words(keys["network"])[:, 0] = 0x0B000000 + np.arange(MAX_SOURCES)
    values = writer.value_room(MAX_SOURCES)
    values["connections"] = 1
    writer.update_batch(keys, values)

    assert syn(rig) is Verdict.FORWARD_NEW
    rig.loads.clear()


def test_places_are_taken_once_by_two_cpus(rig: Rig) -> None:
    serve(rig, Limits(connections=100))
    frames = [to_frame(segment(CLIENT, port), PUBLIC) for port in range(2000, 2400)]
    context = bytes(40) + struct.pack("=I", rig.public_index)
    program = rig.datapath.program_fds["classify"]

    def send(frame: bytes) -> None:
        bpf_syscall.prog_test_run(program, frame, context=context)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, frames))

    assert len(rig.pairs()) == 100
    assert rig.loads.connections()[0][rig.service_slot("ours")] == 100
