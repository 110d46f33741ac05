"""Say which clients stand, or stood, behind an address and port that a backend saw."""

from __future__ import annotations

import json
import time
from collections.abc import Collection
from typing import Any, Protocol

from llb_core.api.listing import Request, network_and_port
from llb_core.api.reading_process import Question
from llb_core.errors import NotThere
from llb_core.model import Address, Network
from llb_core.orders import Selection
from llb_core.past_connections import PastConnection, Seen

SHOWN = 1_000
"""Connections that an answer names, of those that there are and of those that there were."""
_AT_ONCE = 1.0
"""Seconds by which two accounts of when a connection was opened may differ."""


class Memory(Protocol):
    """What knows of connections."""

    async def read_tables(self, question: Question) -> bytes:
        """Return what the tables of connections say."""

    def snat_addresses(self) -> tuple[Address, ...]:
        """Return the addresses of ours that backends see."""

    async def past_connections(self, seen: Seen) -> tuple[list[PastConnection], float]:
        """Return those that there were, and since when none is missing among them."""


def wanted(address: str, backend: str | None) -> Request:
    """Return what to ask the tables for."""
    return Request(snat=address, backend=backend, sort="idle", limit=SHOWN, as_json=True)


def seen(address: str, backend: str | None) -> Seen:
    """Read what a backend saw; ConfigurationError where it is none."""
    network, port = network_and_port(address, "address")
    selection = Selection.parse(backend) if backend is not None else None
    return Seen(
        network,
        port,
        selection.address if selection else None,
        selection.port if selection else None,
    )


async def who(memory: Memory, address: str, backend: str | None) -> dict[str, Any]:
    """Return both, as JSON is made of it; NotThere where nobody can stand or have stood there."""
    wants = seen(address, backend)
    now = time.time()
    answer: dict[str, Any] = json.loads(await memory.read_tables(wanted(address, backend)))
    past, since = await memory.past_connections(wants)
    if not past and not answer["connections"]:
        refuse_stranger(wants.snat, memory.snat_addresses())
    standing = [(_tuple_of(each), now - each["age"]) for each in answer["connections"]]
    rows = [row for row in map(_view, past) if not _is_among(row, standing)]
    return {**answer, "ended": rows[:SHOWN], "ended_total": len(rows), "ended_since": since}


def refuse_stranger(network: Network, ours: Collection[Address]) -> None:
    """Raise NotThere where none of our addresses is in a network, or the one that it is."""
    if any(each in network for each in ours):
        return
    is_one = network.num_addresses == 1
    what = f"{network.network_address} is no" if is_one else f"{network} has no"
    has = ", ".join(map(str, ours))
    raise NotThere(f"{what} SNAT address of this balancer: it has {has}")


def _view(past: PastConnection) -> dict[str, Any]:
    return {
        "service": past.service,
        "protocol": str(past.protocol),
        "client": str(past.client),
        "vip": str(past.vip),
        "snat": str(past.snat),
        "backend": str(past.backend),
        "opened": round(past.opened, 3),
        "ended": round(past.ended, 3),
    }


def _is_among(row: dict[str, Any], standing: Collection[tuple[tuple[str, ...], float]]) -> bool:
    """Say whether a connection that has closed is still in the tables."""
    own = _tuple_of(row)
    return any(
        own == other and abs(row["opened"] - opened) < _AT_ONCE for other, opened in standing
    )


def _tuple_of(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row[name] for name in ("protocol", "client", "vip", "snat", "backend"))
