"""Which RST ends a connection: one that its receiver obeys, and no other."""

from __future__ import annotations

import pytest
from scapy.packet import Packet

from llb_core.datapath.layout import ANSWERED, ASSURED, RESET, ConnectionState, Verdict
from tests.bpf.harness import talk
from tests.bpf.harness.packets import from_backend, from_client, tcp
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.world import BACKEND, CLIENT, PRIVATE, PUBLIC, SNAT, VIP

pytestmark = pytest.mark.root

WINDOW = 1 << 20
ENDED = ConnectionState.CLOSED | RESET | ANSWERED | ASSURED
ESTABLISHED = ConnectionState.ESTABLISHED | ANSWERED | ASSURED


def data(side: str, size: int, seq: int, ack: int, flags: str = "PA") -> Packet:
    """A segment with data of the client, or of the backend."""
    if side == "client":
        return tcp(CLIENT, VIP, 5000, 80, flags, b"x" * size, seq=seq, ack=ack)
    return tcp(BACKEND, SNAT, 8080, 5000, flags, b"x" * size, seq=seq, ack=ack)


def send(rig: Rig, side: str, packet: Packet) -> None:
    """Send it, and see that it is forwarded, whatever it is."""
    outcome = rig.send(packet, PUBLIC if side == "client" else PRIVATE)
    assert outcome.verdict.name.startswith("FORWARD")


def reset(side: str, seq: int, ack: int | None = None) -> Packet:
    """A RST; with an acknowledgement where one is given."""
    make = from_client if side == "client" else from_backend
    return make("R", seq=seq, ack=0) if ack is None else make("RA", seq=seq, ack=ack)


@pytest.fixture(params=["client", "backend"])
def side(request: pytest.FixtureRequest) -> str:
    """Who sends the RST."""
    name: str = request.param
    return name


def other(side: str) -> str:
    return "backend" if side == "client" else "client"


def test_reset_with_the_number_that_is_awaited_ends(rig: Rig, side: str) -> None:
    talk.established(rig)
    send(rig, side, data(side, 500, 1000, 1000))
    send(rig, other(side), data(other(side), 0, 1000, 1500, "A"))

    send(rig, side, reset(side, 1500))

    assert rig.pair()[0].state == ENDED


@pytest.mark.parametrize("seq", [999, 1001, 1499, 1501, 0, 1000 + 2**31, 0xFFFFFFFF])
def test_reset_with_another_number_changes_nothing(rig: Rig, side: str, seq: int) -> None:
    talk.established(rig)
    send(rig, side, data(side, 500, 1000, 1000))
    send(rig, other(side), data(other(side), 0, 1000, 1500, "A"))

    send(rig, side, reset(side, seq))
    send(rig, side, reset(side, seq, ack=1000))

    dnat, snat = rig.pair()
    own = dnat if side == "client" else snat
    assert (dnat.state, own.next) == (ESTABLISHED, 1500)


def test_reset_behind_data_on_their_way_ends(rig: Rig, side: str) -> None:
    """What the other side awaits is known from its last acknowledgement, which lags behind."""
    talk.established(rig)
    send(rig, side, data(side, 500, 1000, 1000))

    send(rig, side, reset(side, 1500, ack=1000))

    assert rig.pair()[0].state == ENDED


@pytest.mark.parametrize("ack", [999, 1001, 0, 1000 + 2**31])
def test_reset_behind_data_needs_an_acknowledgement_that_can_be(
    rig: Rig, side: str, ack: int
) -> None:
    talk.established(rig)
    send(rig, side, data(side, 500, 1000, 1000))

    send(rig, side, reset(side, 1500))
    send(rig, side, reset(side, 1500, ack=ack))

    assert rig.pair()[0].state == ESTABLISHED


def test_guessing_data_does_not_make_a_reset_count(rig: Rig, side: str) -> None:
    """Whoever knows the addresses alone can't move the numbers so that its RST fits."""
    talk.established(rig)
    for seq in (1000 + WINDOW, 1000 + 2**30, 1000 + 2**31, 5):
        send(rig, side, data(side, 1, seq, 1000))
        send(rig, side, reset(side, seq + 1))
        send(rig, side, reset(side, seq + 1, ack=1000))

    assert rig.pair()[0].state == ESTABLISHED


def test_numbers_never_go_back(rig: Rig, side: str) -> None:
    talk.established(rig)
    send(rig, side, data(side, 500, 1000, 1000))
    send(rig, side, data(side, 100, 1000, 1000))
    send(rig, side, data(side, 0, 1000, 900, "A"))

    dnat, snat = rig.pair()
    own = dnat if side == "client" else snat
    assert (own.next, own.ack) == (1500, 1000)


def test_numbers_wrap(rig: Rig, side: str) -> None:
    isn = 2**32 - 10
    rig.send(from_client("S", seq=isn, ack=0))
    rig.send(from_backend("SA", seq=isn, ack=isn + 1), PRIVATE)
    rig.send(from_client("A", seq=isn + 1, ack=isn + 1))
    send(rig, side, data(side, 500, isn + 1, isn + 1))
    send(rig, other(side), data(other(side), 0, isn + 1, 491, "A"))

    send(rig, side, reset(side, 491))

    assert rig.pair()[0].state == ENDED


def test_refusal_acknowledges_the_syn(rig: Rig) -> None:
    talk.opening(rig)

    send(rig, "backend", reset("backend", 0, ack=1000))

    assert rig.pair()[0].state == ConnectionState.CLOSED | RESET


@pytest.mark.parametrize("ack", [999, 1001, None])
def test_refusal_of_another_syn_changes_nothing(rig: Rig, ack: int | None) -> None:
    talk.opening(rig)

    send(rig, "backend", reset("backend", 0, ack=ack))

    assert rig.pair()[0].state == ConnectionState.OPENING


def test_client_gives_up_by_the_number_that_the_backend_awaits(rig: Rig) -> None:
    talk.answered(rig)

    send(rig, "client", reset("client", 1000))

    assert rig.pair()[0].state == ConnectionState.CLOSED | RESET | ANSWERED


@pytest.mark.parametrize("seq", [999, 1001, 77])
def test_made_up_reset_leaves_an_opening_connection_alone(rig: Rig, seq: int) -> None:
    talk.answered(rig)

    send(rig, "client", reset("client", seq))

    assert rig.pair()[0].state == ConnectionState.OPENING | ANSWERED


def test_reset_and_any_ack_is_no_way_to_be_established(rig: Rig) -> None:
    talk.answered(rig)
    rig.send(reset("client", 1000))

    rig.send(from_client("A", seq=1000, ack=5))

    assert rig.pair()[0].state == ConnectionState.OPENING | ANSWERED


@pytest.mark.parametrize("seq", [1000 + WINDOW, 1000 + 2**31, 500])
def test_made_up_fin_closes_nothing(rig: Rig, side: str, seq: int) -> None:
    talk.established(rig)

    send(rig, side, data(side, 0, seq, 1000, "FA"))

    assert rig.pair()[0].state == ESTABLISHED


@pytest.mark.parametrize("flags", ["FA", "R"])
def test_dropped_packet_moves_nothing(rig: Rig, flags: str) -> None:
    """Too old, or too long, to be sent on: its receiver never hears of it."""
    talk.established(rig)
    before = rig.pair()

    late = rig.send(from_client(flags, seq=1000, ack=1000, ttl=1))
    late_answer = rig.send(from_backend(flags, seq=1000, ack=1000, ttl=1), PRIVATE)
    long = rig.send(data("client", 1461, 1000, 1000, flags))

    assert (late.verdict, late_answer.verdict) == (Verdict.REFUSE_TTL, Verdict.REFUSE_TTL)
    assert long.verdict is Verdict.REFUSE_TOO_BIG
    assert rig.pair() == before


def test_dropped_syn_does_not_begin_anew(rig: Rig) -> None:
    talk.closed_by_client(rig)
    before = rig.pair()

    assert rig.send(from_client("S", seq=77, ttl=1)).verdict is Verdict.REFUSE_TTL

    assert rig.pair() == before
