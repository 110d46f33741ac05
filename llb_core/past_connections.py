"""Which connections there were, once they are none any more: for whoever asks who stood behind an
address and port that a backend saw some minutes ago.

The collection hands in what it finds closed and what it takes away, a chunk of records at a time,
so that a pass costs next to nothing more by it. In memory alone: it begins anew with each daemon.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.datapath.connection_columns import within
from llb_core.datapath.layout import Records, records
from llb_core.model import Address, Endpoint, InstalledService, Network, Ticks, Transport

KEPT = 250_000
"""Connections of one address family that are remembered at most: 14 MB of IPv4, 26 MB of IPv6."""
KEPT_SECONDS = 3_600.0
"""How long ago what is remembered was noted at most."""
_JOINED = 4_096
"""Connections up to which the newest chunk takes more."""

Columns = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class PastConnection:
    """A connection that there was; times in seconds. `ended` is when its client was last heard
    of."""

    service: str
    protocol: Transport
    client: Endpoint
    vip: Endpoint
    snat: Endpoint
    """Our own address and port, as the backend saw the client."""
    backend: Endpoint
    opened: float
    ended: float


@dataclass(frozen=True, slots=True)
class Seen:
    """What a backend saw: an address of ours, or a network of them, and a port, where it is told;
    `backend` and `backend_port` say which backend, where that is told."""

    snat: Network
    snat_port: int | None = None
    backend: Address | None = None
    backend_port: int | None = None


class PastConnections:
    """The connections of one address family that there were, the newest. From any thread."""

    def __init__(
        self, family: int, *, kept: int = KEPT, kept_seconds: float = KEPT_SECONDS
    ) -> None:
        self._of = records(family)
        self._identity, self._record = _columns(self._of)
        self._kept, self._kept_seconds = kept, kept_seconds
        self._chunks: deque[Columns] = deque()
        self._count = 0
        self._names: dict[str, int] = {}
        self._lock = threading.Lock()
        self._since = time.monotonic()

    def __len__(self) -> int:
        return self._count

    def note(
        self,
        keys: Columns,
        halves: Columns,
        services: Mapping[int, InstalledService],
        ticks: Ticks,
        now: float,
    ) -> None:
        """Note connections by their DNAT halves; `ticks` and `now`, by the clock that nobody sets,
        are the same moment."""
        if not len(keys):
            return
        noted = np.zeros(len(keys), dtype=self._record)
        for name, of, address, port in (
            ("client", keys, "src", "sport"),
            ("vip", keys, "dst", "dport"),
            ("snat", halves, "new_src", "new_sport"),
            ("backend", halves, "new_dst", "new_dport"),
        ):
            noted[name], noted[f"{name}_port"] = of[address], of[port]
        noted["proto"], noted["ticks"] = keys["proto"], halves["opened"]
        for name, ago in (
            ("opened", _since(halves["opened"], ticks)),
            ("ended", _since(halves["seen"], ticks)),
        ):
            noted[name] = now - ago / ticks.per_second
        noted["noted"] = now
        slots, places = np.unique(halves["service"], return_inverse=True)
        names = [services[slot].name if slot in services else "" for slot in slots.tolist()]
        with self._lock:
            numbers = [self._names.setdefault(name, len(self._names)) for name in names]
            noted["service"] = np.array(numbers)[places]
            self._add(noted)

    def find(
        self, seen: Seen, now: float, *, time_of_day: float | None = None
    ) -> tuple[list[PastConnection], float]:
        """Return those that a backend saw so, the newest first; and since when none is missing
        among them. In times of day, where `now` is told as one, too."""
        ahead = 0.0 if time_of_day is None else time_of_day - now
        with self._lock:
            self._forget(now)
            chunks, names, since = list(self._chunks), list(self._names), self._since
        found = [chunk[self._is_wanted(chunk, seen)] for chunk in chunks]
        rows = np.concatenate([np.zeros(0, dtype=self._record), *found])[::-1]
        rows = rows[np.argsort(-rows["ended"], kind="stable")]
        # One that had a late packet after it had closed is noted again.
        size = self._record.itemsize
        whole = np.ascontiguousarray(rows).view(np.uint8).reshape(len(rows), size)
        identity = np.ascontiguousarray(whole[:, : self._identity]).view(f"V{self._identity}")
        _, firsts = np.unique(identity.ravel(), return_index=True)
        return [self._value(row, names, ahead) for row in rows[np.sort(firsts)]], since + ahead

    def _add(self, noted: Columns) -> None:
        if self._chunks and len(self._chunks[-1]) + len(noted) <= _JOINED:
            last = self._chunks.pop()
            self._count -= len(last)
            noted = np.concatenate((last, noted))
        self._chunks.append(noted)
        self._count += len(noted)
        self._forget(float(noted["noted"][-1]))

    def _forget(self, now: float) -> None:
        """Let go of what is too old, and of the oldest where there are too many."""
        while self._chunks:
            oldest = self._chunks[0]
            until = int(np.searchsorted(oldest["noted"], now - self._kept_seconds))
            until = max(until, min(self._count - self._kept, len(oldest)))
            if until <= 0:
                return
            self._since = max(self._since, float(oldest["noted"][until - 1]))
            self._count -= until
            if until == len(oldest):
                self._chunks.popleft()
            else:
                self._chunks[0] = oldest[until:].copy()

    def _is_wanted(self, chunk: Columns, seen: Seen) -> npt.NDArray[np.bool_]:
        is_wanted = within(self._of, chunk["snat"], seen.snat)
        if seen.snat_port is not None:
            is_wanted &= chunk["snat_port"] == seen.snat_port
        if seen.backend is not None:
            backend = ipaddress.ip_network(seen.backend)
            is_wanted &= within(self._of, chunk["backend"], backend)
        if seen.backend_port is not None:
            is_wanted &= chunk["backend_port"] == seen.backend_port
        return is_wanted

    def _value(self, row: Any, names: Sequence[str], ahead: float) -> PastConnection:
        def endpoint(name: str) -> Endpoint:
            return Endpoint(self._of.unpack(row[name]), int(row[f"{name}_port"]))

        return PastConnection(
            service=names[int(row["service"])],
            protocol=Transport.TCP if row["proto"] == Transport.TCP.number else Transport.UDP,
            client=endpoint("client"),
            vip=endpoint("vip"),
            snat=endpoint("snat"),
            backend=endpoint("backend"),
            opened=float(row["opened"]) + ahead,
            ended=float(row["ended"]) + ahead,
        )


def bytes_each(family: int) -> int:
    """Return the memory that one connection of an address family takes."""
    return _columns(records(family))[1].itemsize


def _columns(of: Records) -> tuple[int, np.dtype[Any]]:
    """Return how many bytes tell a connection from all others, and the record that begins so."""
    names = ("client", "vip", "snat", "backend")
    identity: list[tuple[str, Any]] = [
        *((name, of.address) for name in names),
        *((f"{name}_port", ">u2") for name in names),
        ("ticks", "u4"),
        ("proto", "u1"),
    ]
    more = [("service", "u4"), ("opened", "f8"), ("ended", "f8"), ("noted", "f8")]
    return np.dtype(identity).itemsize, np.dtype(identity + more)


def _since(column: Columns, ticks: Ticks) -> npt.NDArray[np.int64]:
    """Return ticks before now. A packet may have come since now was read: that is none ago."""
    ago = (np.uint32(ticks.now) - column.astype(np.uint32)).astype(np.int64)
    return np.where(ago >= 0xFFFF0000, 0, ago)
