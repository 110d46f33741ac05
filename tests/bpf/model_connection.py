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

WINDOW = 1 << 20
"""How far ahead of what was seen a sequence number is believed."""
FAR_WINDOW = 1 << 24
"""How far ahead of what is acknowledged, where that is more than was seen."""
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
    next: int = 0
    """The sequence number of this side's next new byte."""
    ack: int = 0
    """The sequence number that this side awaits."""
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
    is_assured: bool = False
    """The client has shown that it hears the backend."""
    place: int = 0
    """Of the ring of opening connections."""

    @property
    def answer(self) -> Flow:
        """The tuple of the backend's packets."""
        return self.becomes.reverse

    def halves(self) -> tuple[Half, Half]:
        """Return the records that the two tables ought to hold."""
        word = self.state | layout.ANSWERED * self.is_answered | layout.RESET * self.was_reset
        word |= layout.ASSURED * self.is_assured
        word |= layout.CLIENT_FIN * self.client.has_closed
        word |= layout.BACKEND_FIN * self.server.has_closed
        word |= layout.BACKEND_CLOSED_FIRST * self.closed_first_by_backend
        way = self.to_client
        return (
            self._half(self.becomes, word, self.client, Way(0, self.place, 0)),
            self._half(self.arrives.reverse, word, self.server, way),
        )

    def _half(self, becomes: Flow, word: int, side: Side, way: Way) -> Half:
        return Half(
            becomes=becomes,
            state=word,
            backend=self.backend,
            service=self.service,
            next=side.next,
            ack=side.ack,
            next_hop=way.next_hop,
            ifindex=way.interface,
            mtu=way.mtu,
            seen=side.seen,
            checked=side.checked & 0xFFFF,
            opened=self.opened,
            packets=side.packets,
            bytes=side.bytes,
        )


def follow(
    connection: Connection, packet: Parsed, own: Side, other: Side, *, is_steady: bool = False
) -> None:
    """Follow a connection by a packet of one side, as far as one who looks on can; by a steady one
    without a look at the other side."""
    is_client = own is connection.client
    if not packet.is_tcp:
        connection.is_assured |= is_client and connection.is_answered
        connection.is_answered |= not is_client
        return
    was_opening = connection.state is ConnectionState.OPENING
    if not (was_opening or is_steady or packet.flags & (SYN | RST)):
        _resume(own, other, packet)
    _follow_tcp(connection, packet, own, other, is_client=is_client)
    if packet.flags & RST:
        return
    if was_opening:
        _begin(connection, packet, own, other, is_client=is_client)
    elif not packet.flags & SYN:
        _advance(own, packet)


def _follow_tcp(
    connection: Connection, packet: Parsed, own: Side, other: Side, *, is_client: bool
) -> None:
    """Follow the state (RFC 9293, 3.3.2; RFC 5961, 3.2)."""
    if packet.flags & RST:
        if _reset_counts(connection, packet, own, other, is_client=is_client):
            connection.state = ConnectionState.CLOSED
            connection.was_reset = True
            connection.closed_first_by_backend = False
        return
    if packet.flags & SYN:
        if connection.state is ConnectionState.OPENING and not is_client:
            connection.is_answered |= _answers(packet, other)
        return
    if connection.state is ConnectionState.CLOSED and connection.was_reset:
        # The other side didn't take the reset for good: back to where it came from.
        connection.was_reset = False
        connection.state = (
            ConnectionState.CLOSING
            if own.has_closed and other.has_closed
            else ConnectionState.ESTABLISHED
            if connection.is_assured
            else ConnectionState.OPENING
        )
    if is_client:
        completes = bool(packet.flags & ACK) and packet.ack == other.next
    else:
        completes = bool(packet.payload or packet.flags & FIN)
    if connection.state is ConnectionState.OPENING and connection.is_answered and completes:
        connection.state = ConnectionState.ESTABLISHED
        connection.is_assured = True
    end = (packet.seq + packet.payload + 1) & _M
    is_fin = packet.flags & FIN and (end - own.next) & _M < WINDOW
    if is_fin and connection.state is not ConnectionState.CLOSED:
        if not is_client and not own.has_closed and not other.has_closed:
            connection.closed_first_by_backend = True
        own.has_closed = True
        if other.has_closed:
            connection.state = ConnectionState.CLOSING
    has_closed_first = is_client != connection.closed_first_by_backend
    acknowledges = packet.flags & ACK and since(other.next, packet.ack) >= 0
    if connection.state is ConnectionState.CLOSING and has_closed_first and acknowledges:
        connection.state = ConnectionState.CLOSED


def _reset_counts(
    connection: Connection, packet: Parsed, own: Side, other: Side, *, is_client: bool
) -> bool:
    """Whether a RST is one that the other side obeys, or will once all of its data has come."""
    is_opening = connection.state is ConnectionState.OPENING
    if is_opening and not is_client and not connection.is_answered:
        return bool(packet.flags & ACK) and packet.ack == other.next
    if connection.is_answered and packet.seq == other.ack:
        return True
    if packet.seq != own.next:
        return False
    is_plausible = since(own.ack, packet.ack) >= 0 and since(packet.ack, other.next) >= 0
    return is_opening or bool(packet.flags & ACK and is_plausible)


def _answers(packet: Parsed, other: Side) -> bool:
    """Whether a SYN+ACK is for this client's SYN."""
    return bool(packet.flags & ACK) and (other.next - packet.ack) & _M < WINDOW


def _begin(
    connection: Connection, packet: Parsed, own: Side, other: Side, *, is_client: bool
) -> None:
    """Note where the numbers begin: of a connection that was opening before the packet came."""
    is_opening = connection.state is ConnectionState.OPENING
    begins = (packet.seq + bool(packet.flags & SYN)) & _M
    end = (begins + packet.payload + bool(packet.flags & FIN)) & _M
    if is_client and packet.flags & SYN:
        own.next = (begins + packet.payload) & _M
    elif is_client and not is_opening:
        _advance(own, packet)
    elif not is_client and (_answers(packet, other) if packet.flags & SYN else not is_opening):
        other.ack, own.next, own.ack = begins, end, packet.ack


def _resume(own: Side, other: Side, packet: Parsed) -> None:
    """Put right numbers that can't be: carried over without, missed, or made up by somebody."""
    end = (packet.seq + packet.payload) & _M
    if not own.next:
        own.next, own.ack = end, packet.ack
        return
    if not other.next:
        return
    if since(own.next, other.ack) > 0 and (end - other.ack) & _M < FAR_WINDOW:
        own.next = end
    if packet.flags & ACK and since(other.next, own.ack) > 0 >= since(other.next, packet.ack):
        own.ack = packet.ack


def _advance(own: Side, packet: Parsed) -> None:
    """Note how far a side has sent and what it awaits: forwards, and no further than can be."""
    end = (packet.seq + packet.payload + bool(packet.flags & FIN)) & _M
    if (end - own.next) & _M < WINDOW:
        own.next = end
    if packet.flags & ACK and since(own.ack, packet.ack) > 0:
        own.ack = packet.ack


def is_free(connection: Connection) -> bool:
    """Whether its tuple may be used at once: where the backend closed first it's in TIME_WAIT."""
    return connection.state is ConnectionState.CLOSED and not connection.closed_first_by_backend


def since(earlier: int, later: int) -> int:
    """The signed difference of two numbers of 32 bits."""
    return int(struct.unpack("i", struct.pack("I", (later - earlier) & _M))[0])
