"""What the classifier tells of connections and drops, to whom it listens, and the examples kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from llb_core.api.drops import drops_by_name
from llb_core.datapath import events
from llb_core.datapath.layout import EVENT_BYTES, EventKind, Verdict
from llb_core.datapath.reading import Counters
from llb_core.datapath.ring import RingReader
from llb_core.model import BackendMode, Endpoint
from tests.bpf.harness import talk
from tests.bpf.harness.packets import from_client, tcp
from tests.bpf.harness.rig import Rig, to_frame
from tests.bpf.harness.tags import tagged
from tests.bpf.harness.world import BACKEND, CLIENT, PORT, PRIVATE, PUBLIC, SNAT, VIP, address

pytestmark = pytest.mark.root

ALL = EventKind.OPENED | EventKind.CLOSED | EventKind.DROPPED
LONG = 1000.0


class Ear:
    """Who listens to the rig's ring."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self._of = rig.records
        self._ring = RingReader(rig.datapath.maps["events"].fd, EVENT_BYTES, self._of.event)
        self._ring.skip()

    def listen(self, kinds: EventKind, seconds: float = LONG) -> None:
        """Want these for some time."""
        self._rig.sync.listen(kinds, seconds)

    def hear(self) -> list[dict[str, Any]]:
        """Return what was told since."""
        read = self._ring.read()
        return list(events.describe(self._of, read, self._rig.sync.installed(), 250))

    def close(self) -> None:
        self._ring.close()


def at(host: str, port: int) -> str:
    """Return an endpoint as an event names it."""
    return str(Endpoint(address(host), port))


def header_bytes(rig: Rig) -> int:
    """Return the size of a segment without data."""
    return 40 if rig.family == 4 else 60


@pytest.fixture
def ear(rig: Rig) -> Iterator[Ear]:
    """Somebody who listens to everything."""
    made = Ear(rig)
    made.listen(ALL)
    yield made
    made.listen(EventKind(0))
    made.close()


def test_tells_of_a_connection_from_its_syn_to_its_last_ack(rig: Rig, ear: Ear) -> None:
    talk.closed_by_client(rig)

    opened, closed = ear.hear()

    assert opened["kind"] == "opened"
    assert (opened["source"], opened["destination"]) == (at(CLIENT, PORT), at(VIP, 80))
    assert (opened["backend"], opened["snat"]) == (at(BACKEND, 8080), at(SNAT, PORT))
    assert (closed["kind"], closed["reason"], closed["service"]) == ("closed", "finished", "web")
    assert (closed["packets_in"], closed["packets_out"]) == (4, 2)
    assert closed["bytes_in"] == 4 * header_bytes(rig)
    assert 0 <= closed["duration"] < 5
    assert opened["time"] <= closed["time"]


@pytest.mark.parametrize("given", [talk.reset_by_client, talk.reset_by_backend])
def test_tells_of_a_reset(rig: Rig, ear: Ear, given: talk.Given) -> None:
    given(rig)

    assert [(each["kind"], each.get("reason")) for each in ear.hear()] == [
        ("opened", None),
        ("closed", "reset"),
    ]


def test_tells_of_a_drop_with_its_packet(rig: Rig, ear: Ear) -> None:
    outcome = rig.send(from_client("S", ttl=1))

    (dropped,) = ear.hear()

    assert outcome.verdict is Verdict.REFUSE_TTL
    assert (dropped["kind"], dropped["reason"]) == ("dropped", "refuse_ttl")
    assert (dropped["source"], dropped["destination"]) == (at(CLIENT, PORT), at(VIP, 80))
    assert dropped["bytes"] == header_bytes(rig)


def test_tells_what_is_wanted_and_nothing_else(rig: Rig, ear: Ear) -> None:
    ear.listen(EventKind.CLOSED)

    talk.reset_by_client(rig)
    rig.send(tcp(CLIENT, VIP, PORT + 1, 80, "S", ttl=1))

    assert [each["kind"] for each in ear.hear()] == ["closed"]


def test_tells_nobody_once_the_time_is_over(rig: Rig, ear: Ear) -> None:
    ear.listen(ALL, seconds=-1)

    talk.closed_by_client(rig)

    assert ear.hear() == []


def test_counts_what_a_full_ring_loses_and_goes_on(rig: Rig, ear: Ear) -> None:
    lost = int(rig.datapath.maps["listening"].lookup(0)["lost"])
    count = EVENT_BYTES // (rig.records.event.itemsize + 8) + 50
    packet = tcp(CLIENT, VIP, PORT, 82, "S")  # no backend

    rig.flood(packet, count)

    heard = 0
    while read := len(ear.hear()):
        heard += read
    lost = int(rig.datapath.maps["listening"].lookup(0)["lost"]) - lost
    assert heard + lost == count
    assert lost > 0
    rig.send(packet)
    assert len(ear.hear()) == 1


def test_last_dropped_packets_are_kept_though_nobody_listens(rig: Rig) -> None:
    for sport in range(PORT, PORT + 20):
        rig.send(tcp(CLIENT, VIP, sport, 80, "S", ttl=1))
    rig.send(tcp(BACKEND, SNAT, 8080, PORT + 99, "A"), PRIVATE)

    kept = events.last_drops(rig.datapath.maps, rig.records, rig.sync.installed())

    assert kept["refuse_ttl"][0]["source"] == at(CLIENT, PORT + 19)
    assert len(kept["refuse_ttl"]) >= 4
    assert [each["time"] for each in kept["refuse_ttl"]] == sorted(
        (each["time"] for each in kept["refuse_ttl"]), reverse=True
    )
    assert kept["drop_unknown_answer"][0]["source"] == at(BACKEND, 8080)


def test_nothing_of_an_earlier_packet_is_told_of_one_that_was_not_read(rig: Rig) -> None:
    rig.send(tcp(CLIENT, VIP, 5000, 82, "S"))

    rig.send(tagged(to_frame(from_client("S"), PUBLIC), 0, 0, 0))

    kept = events.last_drops(rig.datapath.maps, rig.records, rig.sync.installed())
    last = kept["drop_extensions"][0]
    nowhere = at("0.0.0.0", 0)
    assert (last["source"], last["destination"]) == (nowhere, nowhere)
    assert last["bytes"] > 0
    assert last["interface"] == rig.public_index


def test_tells_of_an_idle_connection_that_is_collected(rig: Rig, ear: Ear) -> None:
    talk.established(rig)
    rig.pass_time(7201)

    rig.sync.collect()

    assert [(each["kind"], each.get("reason")) for each in ear.hear()][-1] == ("closed", "idle")


def test_tells_why_a_connection_is_removed_that_nobody_closed(rig: Rig, ear: Ear) -> None:
    talk.established(rig)
    rig.sync.end_connections(rig.dnat.snapshot()[0])

    assert [(each["kind"], each.get("reason")) for each in ear.hear()][-1] == ("closed", "ordered")


def test_tells_nothing_twice_of_what_has_closed(rig: Rig, ear: Ear) -> None:
    talk.closed_by_client(rig)
    rig.sync.end_connections(rig.dnat.snapshot()[0])

    assert [each["kind"] for each in ear.hear()] == ["opened", "closed"]


def test_counts_drops_by_service_backend_and_reason(rig: Rig) -> None:
    before = rig.datapath.counters().drops

    def counted() -> dict[tuple[str, str, str], int]:
        installed, now = rig.sync.installed(), rig.datapath.counters(rig.sync.installed())
        new = {key: number - before.get(key, 0) for key, number in now.drops.items()}
        since = Counters(now.verdicts, {}, {}, {key: n for key, n in new.items() if n})
        return drops_by_name([(installed, since)])

    backend = at(BACKEND, 8080)
    for _ in range(3):
        rig.send(from_client("S", ttl=1))
    assert counted() == {("refuse_ttl", "web", backend): 3}
    talk.established(rig)
    rig.send(from_client("A", ttl=1))
    rig.send(tcp(BACKEND, SNAT, 8080, PORT + 1, "A"), PRIVATE)
    rig.put_backend(BACKEND, 8080, mode=BackendMode.DRAINING)
    rig.send(tcp(CLIENT, VIP, PORT + 2, 80, "S"))
    assert counted() == {
        ("refuse_ttl", "web", backend): 4,
        ("drop_unknown_answer", "", ""): 1,
        ("drop_no_backend", "web", ""): 1,
    }


def test_drops_of_who_had_a_slot_before_are_not_told_of_who_has_it_now(rig: Rig) -> None:
    rig.send(from_client("S", ttl=1))
    (slot,) = (s for s, each in rig.sync.installed().services.items() if each.name == "web")

    def own() -> list[tuple[int, int, Verdict]]:
        return [key for key in rig.datapath.counters().drops if key[0] == slot]

    assert own()
    rig.sync.forget_drops("service", [slot])
    assert own() == []
