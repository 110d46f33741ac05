"""The NAT tables as a test sees them: each half as a value, and ways to age, edit and remove it.

Tests may write maps; the daemon does so in `llb_core.map_sync` alone.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from llb_core.datapath import layout
from llb_core.datapath.bpf_map import MapReader, MapWriter
from llb_core.datapath.bpf_map import Records as Entries
from llb_core.datapath.layout import Records
from llb_core.model import Address

_CLOCKS = ("seen", "checked", "opened")


class Flow(NamedTuple):
    """A packet's tuple: the key of both tables."""

    src: Address
    dst: Address
    sport: int
    dport: int
    protocol: int

    @property
    def reverse(self) -> Flow:
        """The tuple of the answer."""
        return Flow(self.dst, self.src, self.dport, self.sport, self.protocol)


class Half(NamedTuple):
    """One half of a connection, as its record says."""

    becomes: Flow
    state: int
    backend: int
    service: int
    next: int
    ack: int
    next_hop: int
    ifindex: int
    """Of the DNAT half: its place in the opening ring."""
    mtu: int
    seen: int
    checked: int
    opened: int
    packets: int
    bytes: int

    @property
    def kind(self) -> layout.ConnectionState:
        """The state without its flags."""
        return layout.ConnectionState(self.state & layout.STATE_MASK)


class NatTable:
    """One of the two tables."""

    def __init__(self, reader: MapReader, records: Records) -> None:
        self._writer = MapWriter.of(reader)
        self._records = records
        # Most are as they were when they were read last.
        self._entry = functools.lru_cache(maxsize=4096)(self._read_entry)

    def halves(self) -> dict[Flow, Half]:
        """Return all entries."""
        keys, records = self._writer.read_all()
        return dict(map(self._entry, _each(keys), _each(records)))

    def snapshot(self) -> tuple[Entries, Entries]:
        """Return all entries as they lie in the map."""
        return self._writer.read_all()

    def restore(self, entries: tuple[Entries, Entries]) -> None:
        """Make the table hold these entries and no others."""
        self.clear()
        if len(entries[0]):
            self.put(*entries)

    def clear(self) -> None:
        """Remove every entry."""
        for key in self._writer.read_all()[0]:
            self._writer.delete(key)

    def put(self, keys: Records, records: Records) -> None:
        """Write many entries."""
        self._writer.update_batch(keys, records)

    def remove(self, flow: Flow) -> None:
        """Remove one half, and leave its twin alone."""
        self._writer.delete(self._key(flow))

    def remove_all(self, keys: Records) -> None:
        """Remove many halves, and leave their twins alone."""
        self._writer.delete_batch(keys)

    def edit(self, flow: Flow, **fields: int | Address) -> None:
        """Change fields of one record."""
        record = self._writer.lookup(self._key(flow))
        assert record is not None, f"no entry {flow}"
        for name, value in fields.items():
            record[name] = value if isinstance(value, int) else self._records.pack(value)
        self._writer.update(self._key(flow), record)

    def age(self, ticks: int) -> None:
        """Make every entry look as if that many ticks more had gone by."""
        keys, records = self._writer.read_all()
        for clock in _CLOCKS:
            records[clock] -= np.array(ticks).astype(records[clock].dtype)
        if len(keys):
            self._writer.update_batch(keys, records)

    def _key(self, flow: Flow) -> tuple[Any, ...]:
        pack = self._records.pack
        return pack(flow.src), pack(flow.dst), flow.sport, flow.dport, flow.protocol, (0, 0, 0)

    def _read_entry(self, key_bytes: bytes, record_bytes: bytes) -> tuple[Flow, Half]:
        # What was read as a whole is in the host's byte order.
        spec = self._writer.spec
        key = np.frombuffer(key_bytes, dtype=spec.key.newbyteorder("="))[0]
        record = np.frombuffer(record_bytes, dtype=spec.value.newbyteorder("="))[0]
        return self._flow(key), self._half(key, record)

    def _flow(self, key: Any) -> Flow:
        return Flow(
            self._records.unpack(key["src"]),
            self._records.unpack(key["dst"]),
            int(key["sport"]),
            int(key["dport"]),
            int(key["proto"]),
        )

    def _half(self, key: Any, record: Any) -> Half:
        unpack = self._records.unpack
        becomes = Flow(
            unpack(record["new_src"]),
            unpack(record["new_dst"]),
            int(record["new_sport"]),
            int(record["new_dport"]),
            int(key["proto"]),
        )
        fields = {name: record[name] for name in Half._fields[1:]}
        fields["next_hop"] = unpack(record["next_hop"])
        return Half(becomes, **{name: int(value) for name, value in fields.items()})


def _each(entries: Entries) -> Iterator[bytes]:
    size, packed = entries.dtype.itemsize, entries.tobytes()
    return (packed[at : at + size] for at in range(0, len(packed), size))


def pairs_of(dnat_table: NatTable, snat_table: NatTable) -> dict[Flow, tuple[Half, Half]]:
    """Return both halves of each connection by the client's tuple, and check that they are pairs:
    each half has its twin, no two share a tuple, state and owner are the same."""
    dnat, snat = dnat_table.halves(), snat_table.halves()
    found = {}
    for flow, half in dnat.items():
        twin = snat.get(half.becomes.reverse)
        assert twin is not None, f"{flow} has no SNAT half"
        assert twin.becomes.reverse == flow, f"the twin of {flow} is {twin.becomes}'s"
        assert half.state == twin.state, f"{flow} is {half.state:#x} and {twin.state:#x}"
        assert (half.backend, half.service) == (twin.backend, twin.service)
        found[flow] = (half, twin)
    assert len(snat) == len(dnat), f"{len(snat) - len(dnat)} SNAT halves are alone"
    return found


class OpeningRing:
    """Where the next opening connection is noted."""

    def __init__(self, maps: Mapping[str, MapReader]) -> None:
        self._places = MapWriter.of(maps["opening_ring"])
        self._cursor = MapWriter.of(maps["opening_cursor"])

    def cursor(self) -> int:
        """Return how many were noted so far."""
        return int(self._cursor.lookup(0) or 0)

    def searched(self) -> int:
        """Return how many of these were searched for some that can give way."""
        return int(self._cursor.lookup(1) or 0)
