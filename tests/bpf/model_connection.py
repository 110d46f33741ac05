"""The model's idea of a connection: one thing with two sides, and how packets move it on.

Times are the kernel's ticks, compared as it does, by signed difference of 32 bits.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from llb_core.datapath import layout
from llb_core.datapath.layout import ConnectionState
from tests.bpf.harness.tables import Flow, Half
from tests.bpf.model_packet import ACK, FIN, RST, SYN, Parsed

_M = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Way:
    """A next hop; 0 for an MTU that isn't known."""

    next_hop: int
    interface: int
    mtu: int


@dataclass(slots=True)
class Side:
    """What was seen of one side's packets."""

    seen: int
    checked: int
    packets: int = 0
    bytes: int = 0
    fin_ack: int = 0
    """The acknowledgement that this side's FIN awaits."""
    has_closed: bool = False


@dataclass(slots=True)
class Connection:
    """One connection: the client's tuple as it arrives, and the tuple that the backend sees."""

    arrives: Flow
    becomes: Flow
    service: int
    backend: int
    opened: int
    to_client: Way
    client: Side
    server: Side
    state: ConnectionState
    is_answered: bool = False
    closed_first_by_backend: bool = False
    was_reset: bool = False

    @property
    def answer(self) -> Flow:
        """The tuple of the backend's packets."""
        return self.becomes.reverse

    def halves(self) -> tuple[Half, Half]:
        """Return the records that the two tables ought to hold."""
        word = self.state | layout.ANSWERED * self.is_answered | layout.RESET * self.was_reset
        word |= layout.CLIENT_FIN * self.client.has_closed
        word |= layout.BACKEND_FIN * self.server.has_closed
        word |= layout.BACKEND_CLOSED_FIRST * self.closed_first_by_backend
        way = self.to_client
        return (
            self._half(self.becomes, word, self.client, Way(0, 0, 0)),
            self._half(self.arrives.reverse, word, self.server, way),
        )

    def _half(self, becomes: Flow, word: int, side: Side, way: Way) -> Half:
        return Half(
            becomes=becomes,
            state=word,
            backend=self.backend,
            service=self.service,
            fin_ack=side.fin_ack,
            next_hop=way.next_hop,
            ifindex=way.interface,
            mtu=way.mtu,
            seen=side.seen,
            checked=side.checked,
            opened=self.opened,
            packets=side.packets,
            bytes=side.bytes,
        )


def follow(connection: Connection, packet: Parsed, own: Side, other: Side) -> None:
    """Follow TCP (RFC 9293, 3.3.2) as far as one who looks on can."""
    is_client = own is connection.client
    if packet.flags & RST:
        connection.state = ConnectionState.CLOSED
        connection.was_reset = True
        connection.closed_first_by_backend = False
        return
    if packet.flags & SYN:
        if not is_client and packet.flags & ACK and connection.state is ConnectionState.OPENING:
            connection.is_answered = True
        return
    if connection.state is ConnectionState.CLOSED and connection.was_reset:
        # The other side didn't take the reset for good: back to where it came from.
        connection.was_reset = False
        connection.state = (
            ConnectionState.CLOSING
            if own.has_closed and other.has_closed
            else ConnectionState.ESTABLISHED
            if connection.is_answered
            else ConnectionState.OPENING
        )
        return
    completes = is_client and connection.is_answered and packet.flags & ACK
    if connection.state is ConnectionState.OPENING and completes:
        connection.state = ConnectionState.ESTABLISHED
    if packet.flags & FIN and connection.state is not ConnectionState.CLOSED:
        own.fin_ack = (packet.seq + packet.payload + 1) & _M
        if not is_client and not own.has_closed and not other.has_closed:
            connection.closed_first_by_backend = True
        own.has_closed = True
        if other.has_closed:
            connection.state = ConnectionState.CLOSING
    has_closed_first = is_client != connection.closed_first_by_backend
    acknowledges = packet.flags & ACK and since(other.fin_ack, packet.ack) >= 0
    if connection.state is ConnectionState.CLOSING and has_closed_first and acknowledges:
        connection.state = ConnectionState.CLOSED


def is_free(connection: Connection) -> bool:
    """Whether its tuple may be used at once: where the backend closed first it's in TIME_WAIT."""
    return connection.state is ConnectionState.CLOSED and not connection.closed_first_by_backend


def since(earlier: int, later: int) -> int:
    """The signed difference of two numbers of 32 bits."""
    return int(struct.unpack("i", struct.pack("I", (later - earlier) & _M))[0])
