"""Every state that a connection comes to, how, and how many seconds it may then be idle."""

from __future__ import annotations

from dataclasses import dataclass

from llb_core.datapath.layout import (
    ANSWERED,
    ASSURED,
    BACKEND_CLOSED_FIRST,
    BACKEND_FIN,
    CLIENT_FIN,
    RESET,
    ConnectionState,
)
from tests.bpf.harness import talk
from tests.bpf.harness.packets import from_backend, from_client
from tests.bpf.harness.world import PRIVATE, TIMEOUTS

Given = talk.Given


@dataclass(frozen=True, slots=True)
class Reached:
    """A state and the way to it; `idle` is its timeout."""

    name: str
    by: Given
    state: int
    idle: float


def _then_client(given: Given, flags: str, seq: int, ack: int) -> Given:
    def sequence(rig: talk.Sender) -> None:
        given(rig)
        rig.send(from_client(flags, seq=seq, ack=ack))

    return sequence


def _then_backend(given: Given, flags: str, seq: int, ack: int) -> Given:
    def sequence(rig: talk.Sender) -> None:
        given(rig)
        rig.send(from_backend(flags, seq=seq, ack=ack), PRIVATE)

    return sequence


_BOTH = CLIENT_FIN | BACKEND_FIN
_OPENING, _ESTABLISHED = ConnectionState.OPENING, ConnectionState.ESTABLISHED
_CLOSING, _CLOSED, _UDP = ConnectionState.CLOSING, ConnectionState.CLOSED, ConnectionState.UDP
_HEARD = ANSWERED | ASSURED
_HALF_CLOSED = _ESTABLISHED | _HEARD
_T = TIMEOUTS

STATES = [
    Reached("syn", talk.opening, _OPENING, _T.opening),
    Reached("syn-ack", talk.answered, _OPENING | ANSWERED, _T.opening),
    Reached("established", talk.established, _ESTABLISHED | _HEARD, _T.established),
    Reached("ack without an answer", _then_client(talk.opening, "A", 1000, 1000), _OPENING,
            _T.opening),
    Reached("ack of the backend", _then_backend(talk.opening, "A", 1000, 1000), _OPENING,
            _T.opening),
    Reached("fin without an answer", _then_client(talk.opening, "FA", 1000, 1000),
            _OPENING | CLIENT_FIN, _T.opening),
    Reached("syn again", _then_client(talk.answered, "S", 999, 0), _OPENING | ANSWERED,
            _T.opening),
    Reached("syn on established", _then_client(talk.established, "S", 999, 0),
            _ESTABLISHED | _HEARD, _T.established),
    Reached("challenge ack", _then_backend(talk.established, "A", 1000, 1000),
            _ESTABLISHED | _HEARD, _T.established),
    Reached("client half closed", talk.client_half_closed, _HALF_CLOSED | CLIENT_FIN,
            _T.established),
    Reached("client half closed and acknowledged",
            _then_backend(talk.client_half_closed, "A", 1000, 1001), _HALF_CLOSED | CLIENT_FIN,
            _T.established),
    Reached("backend half closed", talk.backend_half_closed,
            _HALF_CLOSED | BACKEND_FIN | BACKEND_CLOSED_FIRST, _T.established),
    Reached("fin again", _then_backend(talk.backend_half_closed, "FA", 1000, 1000),
            _HALF_CLOSED | BACKEND_FIN | BACKEND_CLOSED_FIRST, _T.established),
    Reached("closing", talk.closing, _CLOSING | _HEARD | _BOTH, _T.closing),
    Reached("closing, an old ack", _then_client(talk.closing, "A", 1001, 1000),
            _CLOSING | _HEARD | _BOTH, _T.closing),
    Reached("closing, the other side's ack", _then_backend(talk.closing, "A", 1001, 1001),
            _CLOSING | _HEARD | _BOTH, _T.closing),
    Reached("crossed fins", talk.crossed_fins, _CLOSING | _HEARD | _BOTH, _T.closing),
    Reached("closing by the backend",
            _then_client(talk.backend_half_closed, "FA", 1000, 1001),
            _CLOSING | _HEARD | _BOTH | BACKEND_CLOSED_FIRST, _T.closing),
    Reached("closed by the client", talk.closed_by_client, _CLOSED | _HEARD | _BOTH,
            _T.closing),
    Reached("closed by the backend", talk.closed_by_backend,
            _CLOSED | _HEARD | _BOTH | BACKEND_CLOSED_FIRST, _T.closed),
    Reached("closed, and the fin once more", _then_backend(talk.closed_by_client, "FA", 1000, 1001),
            _CLOSED | _HEARD | _BOTH, _T.closing),
    Reached("backend in a hurry", talk.backend_in_a_hurry,
            _HALF_CLOSED | BACKEND_FIN | BACKEND_CLOSED_FIRST, _T.established),
    Reached("reset by the client", talk.reset_by_client, _CLOSED | _HEARD | RESET, _T.closing),
    Reached("reset by the backend", talk.reset_by_backend, _CLOSED | _HEARD | RESET, _T.closing),
    Reached("refused", _then_backend(talk.opening, "RA", 0, 1000), _CLOSED | RESET, _T.closing),
    Reached("reset after the backend's fin", _then_client(talk.backend_half_closed, "R", 1000, 0),
            _CLOSED | _HEARD | BACKEND_FIN | RESET, _T.closing),
    Reached("alive after a reset", talk.alive_after_reset, _ESTABLISHED | _HEARD,
            _T.established),
    Reached("reset while opening, then an ack",
            _then_client(talk.reset_while_opening, "A", 1000, 1), _OPENING, _T.opening),
    Reached("reset while closing, then an ack",
            _then_backend(talk.reset_while_closing, "A", 1001, 1001),
            _CLOSING | _HEARD | _BOTH, _T.closing),
    Reached("asked", talk.asked, _UDP, _T.udp),
    Reached("replied", talk.replied, _UDP | ANSWERED, _T.udp),
]  # fmt: skip
