"""A connection as a value: what the records of its two halves say of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llb_core.datapath.layout import ASSURED, STATE_MASK, ConnectionState, Records
from llb_core.model import Endpoint, Transport


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection, from its client to its backend.

    `*_next` is the sequence number of the next new byte of that side, `*_awaits` the one that it
    awaits, as it last said; 0 where it has said nothing yet, and over UDP.
    """

    protocol: Transport
    client: Endpoint
    vip: Endpoint
    snat: Endpoint
    """Our own address and port, as the backend sees the client."""
    backend: Endpoint
    state: ConnectionState
    is_assured: bool
    """The client has shown that it hears the backend; TCP: it is or was established."""
    service_slot: int
    backend_slot: int
    client_next: int
    client_awaits: int
    backend_next: int
    backend_awaits: int
    packets_in: int
    """From the client; over TCP and UDP alike, as far as 32 bits count."""
    bytes_in: int
    packets_out: int
    bytes_out: int


def from_ended(records: Records, ended: Any) -> list[Connection]:
    """Return connections that were ended, of their records (`Records.ended`)."""
    return [from_halves(records, each["key"], each["dnat_half"], each["snat_half"])
            for each in ended]  # fmt: skip


def from_halves(records: Records, key: Any, dnat: Any, snat: Any) -> Connection:
    """Return the connection of a DNAT half, found by `key`, and of its SNAT half."""

    def endpoint(record: Any, address: str, port: str) -> Endpoint:
        return Endpoint(records.unpack(record[address]), int(record[port]))

    state = int(snat["state"])
    return Connection(
        protocol=Transport.TCP if key["proto"] == Transport.TCP.number else Transport.UDP,
        client=endpoint(key, "src", "sport"),
        vip=endpoint(key, "dst", "dport"),
        snat=endpoint(dnat, "new_src", "new_sport"),
        backend=endpoint(dnat, "new_dst", "new_dport"),
        state=ConnectionState(state & STATE_MASK),
        is_assured=bool(state & ASSURED),
        service_slot=int(dnat["service"]),
        backend_slot=int(dnat["backend"]),
        client_next=int(dnat["next"]),
        client_awaits=int(dnat["ack"]),
        backend_next=int(snat["next"]),
        backend_awaits=int(snat["ack"]),
        packets_in=int(dnat["packets"]),
        bytes_in=int(dnat["bytes"]),
        packets_out=int(snat["packets"]),
        bytes_out=int(snat["bytes"]),
    )
