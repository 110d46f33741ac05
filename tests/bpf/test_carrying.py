"""What the classifier does while connections of earlier maps may not all be in its own yet."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.packet import Packet

from llb_core.datapath.bpf_map import MapWriter
from llb_core.datapath.layout import CARRYING_SECONDS, Verdict
from tests.bpf.harness import talk
from tests.bpf.harness.packets import from_backend, from_client, question, reply, tcp
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.world import OTHER_CLIENT, PRIVATE, VIP

pytestmark = pytest.mark.root


def stranger() -> Packet:
    """A segment of a connection that nobody knows."""
    return tcp(OTHER_CLIENT, VIP, 5001, 80, "A")


def carry(rig: Rig, *, is_carrying: bool = True) -> None:
    """Begin, or end it."""
    rig.sync.put_settings(rig.settings, rig.index(PRIVATE), is_carrying=is_carrying)


def test_what_may_not_be_carried_over_yet_comes_again_and_is_not_reset(rig: Rig) -> None:
    carry(rig)
    for flags in ("A", "FA", "R", "SA"):
        assert rig.send(from_client(flags)).verdict is Verdict.DROP_ENDING
    assert rig.send(stranger()).verdict is Verdict.DROP_ENDING
    assert rig.send(tcp(OTHER_CLIENT, VIP, 5001, 9999, "A")).verdict is Verdict.PASS_NOT_OURS

    carry(rig, is_carrying=False)

    assert rig.send(stranger()).verdict is Verdict.PASS_NO_CONNECTION


@pytest.mark.parametrize("given", [talk.opening, talk.established, talk.client_half_closed])
def test_what_is_carried_over_goes_on(rig: Rig, given: talk.Given) -> None:
    given(rig)
    carry(rig)
    assert rig.send(from_client("A")).verdict is Verdict.FORWARD_TO_BACKEND
    assert rig.send(from_backend("A"), PRIVATE).verdict is Verdict.FORWARD_TO_CLIENT


def test_no_new_connection_is_given_a_tuple_that_one_of_the_earlier_maps_may_have(rig: Rig) -> None:
    carry(rig)
    assert rig.send(from_client("S")).verdict is Verdict.DROP_ENDING
    assert rig.pairs() == {}

    carry(rig, is_carrying=False)

    assert rig.send(from_client("S")).verdict is Verdict.FORWARD_NEW


def test_flows_of_datagrams_begin_since_nobody_sends_them_again(rig: Rig) -> None:
    carry(rig)
    assert rig.send(question()).verdict is Verdict.FORWARD_NEW
    assert rig.send(reply(), PRIVATE).verdict is Verdict.FORWARD_TO_CLIENT


@pytest.mark.parametrize(
    ("given", "idle"),
    [
        (talk.closed_by_backend, 0),
        (talk.closed_by_client, 0),
        (talk.reset_by_client, 0),
        (talk.opening, 3600),
        (talk.closing, 3600),
    ],
)
def test_a_connection_whose_tuple_another_may_have_by_now_leads_nobody_astray(
    rig: Rig, given: talk.Given, idle: float
) -> None:
    given(rig)
    rig.pass_time(idle)
    before = rig.pairs()
    carry(rig)

    for packet, side in (
        (from_backend("A", b"to another client"), {"arrives_on": PRIVATE}),
        (from_client("A"), {}),
        (from_client("S"), {}),
    ):
        assert rig.send(packet, **side).verdict is Verdict.DROP_ENDING
    assert rig.pairs() == before

    carry(rig, is_carrying=False)

    assert rig.send(from_client("S", seq=5_000_000)).verdict is Verdict.FORWARD_NEW


@pytest.mark.parametrize(
    ("seconds_ago", "verdict"),
    [(CARRYING_SECONDS // 2, Verdict.DROP_ENDING), (CARRYING_SECONDS, Verdict.PASS_NO_CONNECTION)],
)
def test_it_ends_by_itself_should_the_daemon_die_over_it(
    rig: Rig, seconds_ago: int, verdict: Verdict
) -> None:
    carry(rig)
    index, configs = (MapWriter.of(rig.datapath.maps[name]) for name in ("config_index", "configs"))
    in_force = int(index.lookup(0) or 0)
    record: Any = configs.lookup(in_force)
    since = int(record["carrying"]) - seconds_ago * rig.datapath.ticks_per_second
    record["carrying"] = since & 0xFFFFFFFF

    configs.update(in_force, record)

    assert rig.send(stranger()).verdict is verdict
