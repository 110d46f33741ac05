"""Sequence numbers of a connection that are not known, or can't be: they are found again, and until
then no ICMP error is dropped that its end might need."""

from __future__ import annotations

import pytest

from llb_core.datapath.layout import BACKEND_FIN, CLIENT_FIN, STATE_MASK, ConnectionState, Verdict
from tests.bpf.cases.errors import error
from tests.bpf.harness import talk
from tests.bpf.harness.packets import at_backend, at_client, from_backend, from_client
from tests.bpf.harness.rig import Outcome, Rig
from tests.bpf.harness.world import BACKEND, CLIENT, PRIVATE, PUBLIC, SNAT, VIP

pytestmark = pytest.mark.root

MIB = 1 << 20
SIDES = ("client", "backend")


@pytest.fixture(params=SIDES)
def side(request: pytest.FixtureRequest) -> str:
    """Whose segments it is about."""
    return str(request.param)


def other(side: str) -> str:
    """Who hears them."""
    return SIDES[side == "client"]


def send(rig: Rig, side: str, flags: str, seq: int, ack: int) -> Outcome:
    """Send one side's segment."""
    leg, arrives_on = (from_client, PUBLIC) if side == "client" else (from_backend, PRIVATE)
    return rig.send(leg(flags, seq=seq % 2**32, ack=ack % 2**32), arrives_on)


def tell(rig: Rig, side: str, seq: int) -> Verdict:
    """Report to one side that its segment was too big; return what became of that."""
    seq %= 2**32
    if side == "client":
        packet, arrives_on = error(BACKEND, SNAT, "too big", at_backend("A", seq=seq)), PRIVATE
    else:
        packet, arrives_on = error(CLIENT, VIP, "too big", at_client("A", seq=seq)), PUBLIC
    return rig.send(packet, arrives_on).verdict


def number(rig: Rig, side: str) -> tuple[int, int]:
    """Return what is kept of a side: its next number, and the one that it awaits."""
    half = rig.pair()[side == "backend"]
    return half.next, half.ack


def forget_numbers(rig: Rig) -> None:
    """Leave a connection as it is carried over from maps that kept none."""
    talk.established(rig)
    for table in (rig.dnat, rig.snat):
        for flow in table.halves():
            table.edit(flow, next=0, ack=0)
    rig.pass_time(1)


def miss(rig: Rig, side: str, gone_by: int) -> None:
    """Have a side send so many bytes past us, and the other one acknowledge them."""
    talk.established(rig)
    send(rig, side, "A", 1000 + gone_by, 1000)
    send(rig, other(side), "A", 1000, 1000 + gone_by)


@pytest.mark.parametrize("seq", [1000, 77, 2**31 + 5, 2**32 - 3])
def test_connection_without_numbers_hears_errors_and_ends(rig: Rig, side: str, seq: int) -> None:
    forget_numbers(rig)
    assert tell(rig, side, seq) is Verdict.FORWARD_ERROR

    send(rig, side, "FA", seq, 5000)
    assert number(rig, side) == ((seq + 1) % 2**32, 5000)
    send(rig, other(side), "FA", 5000, seq + 1)

    both = CLIENT_FIN | BACKEND_FIN
    state = rig.pair()[0].state
    assert (state & STATE_MASK, state & both) == (ConnectionState.CLOSING, both)
    assert tell(rig, side, seq - 5 * MIB) is Verdict.DROP_STALE_ERROR


@pytest.mark.parametrize("gone_by", [2 * MIB, 100 * MIB])
def test_numbers_are_found_again_when_much_was_missed(rig: Rig, side: str, gone_by: int) -> None:
    """Lost before us in one piece, and sent anew by another way; or by a filter that was away."""
    miss(rig, side, gone_by)
    assert number(rig, side)[0] == 1000

    rig.pass_time(1)
    send(rig, side, "A", 1000 + gone_by + 3 * MIB, 1000)

    assert number(rig, side) == (1000 + gone_by + 3 * MIB, 1000)
    assert tell(rig, side, 1000 + gone_by) is Verdict.FORWARD_ERROR
    assert tell(rig, side, 999 + gone_by - MIB) is Verdict.DROP_STALE_ERROR


def test_fin_counts_though_much_was_missed(rig: Rig, side: str) -> None:
    miss(rig, side, 2 * MIB)

    send(rig, side, "FA", 1000 + 2 * MIB, 1000)

    assert rig.pair()[0].state & (CLIENT_FIN if side == "client" else BACKEND_FIN)


def test_numbers_are_not_found_by_what_nobody_acknowledged(rig: Rig, side: str) -> None:
    """A made-up segment far ahead, and one behind what was sent, move nothing."""
    talk.established(rig)
    rig.pass_time(1)
    send(rig, side, "A", 1000 + 2 * MIB, 1000)
    rig.pass_time(1)
    send(rig, side, "A", 500, 1000)

    assert number(rig, side) == (1000, 1000)


def test_made_up_acknowledgement_keeps_no_error_from_its_end(rig: Rig) -> None:
    """Anybody may write a client's address on a packet, and so an ACK of what was never sent."""
    talk.established(rig)
    send(rig, "client", "A", 1000, 1000 + 2**30)
    assert number(rig, "client") == (1000, 1000 + 2**30)

    assert tell(rig, "backend", 1000) is Verdict.FORWARD_ERROR
    assert tell(rig, "backend", 1000 - 17 * MIB) is Verdict.DROP_STALE_ERROR
    assert tell(rig, "backend", 1000 + 2**30) is Verdict.DROP_STALE_ERROR

    rig.pass_time(1)
    send(rig, "client", "A", 1000, 1000)
    assert number(rig, "client") == (1000, 1000)
    assert tell(rig, "backend", 1000 - MIB) is Verdict.DROP_STALE_ERROR


def test_what_the_backend_acknowledged_is_believed_of_what_was_missed(rig: Rig) -> None:
    miss(rig, "client", 2 * MIB)

    assert tell(rig, "client", 1000 + 2 * MIB) is Verdict.FORWARD_ERROR
    assert tell(rig, "client", 1000) is Verdict.DROP_STALE_ERROR
    assert tell(rig, "client", 1000 + 20 * MIB) is Verdict.DROP_STALE_ERROR
