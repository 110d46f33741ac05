"""Where would a packet go? The classifier's own text, run on a copy of the maps and never attached.

Nothing is sent, and nothing that traffic uses is written: the copy holds the settings, services,
backends and what stands in the tables for the addresses concerned, and is gone afterwards.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from llb_core.datapath import bpf_map, pins
from llb_core.datapath import bpf_syscall as sys
from llb_core.datapath.bpf_map import MapReader, MapWriter
from llb_core.datapath.connections import Connection, from_halves
from llb_core.datapath.family import Family
from llb_core.datapath.layout import (
    STATE_MASK,
    ConnectionState,
    MapType,
    Verdict,
    compile_flags,
    map_specs,
    records,
)
from llb_core.datapath.loader import load_programs
from llb_core.model import Endpoint, Transport

_TABLES = ("dnat_table", "snat_table")
_FRESH = {
    *("opening_ring", "opening_cursor", "fragments", "refusal_buckets", "verdicts"),
    *("service_counters", "backend_counters", "drop_counters"),
    *("events", "listening", "drop_examples"),
}
"""Maps that tell what has been, and have no part in what will be."""
_ROOM = 4_096
"""Entries of the copied tables beside those that are copied."""
_SIZES = 16
"""By how much each size of copied tables is larger than the next one: for each is compiled once."""
_SK_BUFF_BYTES, _IFINDEX_AT = 192, 40
FLAGS = {"fin": 0x01, "syn": 0x02, "rst": 0x04, "ack": 0x10}


@dataclass(frozen=True, slots=True)
class Packet:
    """The packet that is asked about. `flag` is of TCP; `length` the payload's, in bytes."""

    protocol: Transport
    source: Endpoint
    destination: Endpoint
    flag: str = "syn"
    length: int = 0
    ttl: int = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """What would become of it. `before` is the connection that it belongs to, as it stands;
    `after` the same, or the one that it would open, after it. `way` is the interface's index, next
    hop (None where that is the destination itself) and MTU by which it would leave."""

    verdict: Verdict
    before: Connection | None
    after: Connection | None
    service_slot: int
    way: tuple[int, str | None, int] | None
    copied: int
    """Entries of the tables that were looked at."""


def dry_run(family: Family, packet: Packet, interface: int, mac: bytes) -> Outcome:
    """Run the classifier for one packet that arrives by an interface, which has that MAC address.

    Raises HostError where the copy can't be made or the classifier can't be compiled.
    """
    with _copied(family, packet) as (maps, program, copied):
        before = _connection(maps, family.number, packet)
        context = bytearray(_SK_BUFF_BYTES)
        struct.pack_into("=I", context, _IFINDEX_AT, interface)
        sys.prog_test_run(program, _frame(packet, mac), context=bytes(context))
        _, per_cpu = maps["verdicts"].read_all()
        verdict = Verdict(int(per_cpu.sum(axis=1).argmax()))
        after = _connection(maps, family.number, packet)
        return Outcome(
            verdict,
            before,
            after,
            service_slot=_service_slot(maps, family.number, packet),
            way=_way(maps, family.number, packet, after),
            copied=copied,
        )


@contextmanager
def _copied(family: Family, packet: Packet) -> Iterator[tuple[dict[str, MapWriter], int, int]]:
    """Yield a copy of the maps, the program that works on it, and how many entries it has."""
    with ExitStack() as stack:
        folder = stack.enter_context(pins.temporary_folder())
        entries = {name: _concerned(family, name, packet) for name in _TABLES}
        room = _size(max(len(each.keys) for each in entries.values()) + _ROOM)
        maps: dict[str, MapWriter] = {}
        for spec in map_specs(room, family.number):
            reader = pins.make(spec, folder / spec.name)
            stack.callback(reader.close)
            maps[spec.name] = MapWriter.of(reader)
            if spec.name in _FRESH:
                continue
            if spec.name in entries:
                entries[spec.name].copy_to(maps[spec.name])
                continue
            if spec.type is MapType.ARRAY_OF_MAPS:
                _copy_tables(family.maps[spec.name], maps)
            else:
                maps[spec.name].update_batch(*family.maps[spec.name].read_all())
        fds = load_programs(folder, compile_flags(room, family.number), programs=("classify",))
        for fd in fds.values():
            stack.callback(os.close, fd)
        yield maps, fds["classify"], sum(len(each.keys) for each in entries.values())


def _size(entries: int) -> int:
    """Return the least size of copied tables that has room for so many entries."""
    size = 2 * _ROOM
    while size < entries:
        size *= _SIZES
    return size


def _copy_tables(tables: MapReader, maps: Mapping[str, MapWriter]) -> None:
    """Put the services' own tables into the copy: nobody writes into them by it."""
    _, services = maps["services"].read_all()
    for slot in np.flatnonzero(services["proto"]).tolist():
        table = bpf_map.open_inner(tables, slot)
        if table is not None:
            try:
                maps[tables.spec.name].update(slot, table.fd)
            finally:
                table.close()


@dataclass(frozen=True, slots=True)
class _Concerned:
    """The entries of a table that have to do with a packet, and how many more it has room for."""

    keys: Any
    values: Any
    free: int

    def copy_to(self, table: MapWriter) -> None:
        """Put them into a table, and leave no more room in it than there is."""
        table.update_batch(self.keys, self.values)
        surplus = table.spec.entries - len(self.keys) - self.free
        if surplus > 0:
            others = np.zeros(surplus, dtype=table.spec.key)
            # No packet that is judged is of protocol 0.
            others["sport"], others["dport"] = np.divmod(np.arange(surplus), 1 << 16)
            table.update_batch(others, table.value_room(surplus))


def _concerned(family: Family, name: str, packet: Packet) -> _Concerned:
    """Return the entries of a table that have to do with a packet: those of its service, which
    share SNAT ports, and those of its two ends."""
    of = records(family.number)
    slot = _service_slot(family.maps, family.number, packet)
    ends = [
        np.array(of.pack(end.address), dtype=np.uint32)
        for end in (packet.source, packet.destination)
    ]
    table = family.maps[name]
    parts, count = [(np.zeros(0, table.spec.key), table.value_room(0))], 0
    for keys, values in table.chunks():
        count += len(keys)
        sources = of.words(keys["src"])
        is_wanted = (values["service"] == slot) & (slot != 0)
        for end in ends:
            is_wanted |= (sources == end).all(axis=1)
            is_wanted |= (of.words(values["new_dst"]) == end).all(axis=1)
        parts.append((keys[is_wanted], values[is_wanted]))
    return _Concerned(
        np.concatenate([keys for keys, _ in parts]),
        np.concatenate([values for _, values in parts]),
        max(0, table.spec.entries - count),
    )


def _key(of: Any, protocol: Transport, source: Endpoint, destination: Endpoint) -> Any:
    key = np.zeros((), dtype=of.flow_key)
    key["src"], key["dst"] = of.pack(source.address), of.pack(destination.address)
    key["sport"], key["dport"] = source.port, destination.port
    key["proto"] = protocol.number
    return key


def _connection(maps: Mapping[str, MapReader], family: int, packet: Packet) -> Connection | None:
    """Return the connection that a packet belongs to, of which both halves stand."""
    of = records(family)
    key = _key(of, packet.protocol, packet.source, packet.destination)
    dnat = maps["dnat_table"].lookup(key)
    if dnat is None:
        snat = maps["snat_table"].lookup(key)
        if snat is None:
            return None
        client = Endpoint(of.unpack(snat["new_dst"]), int(snat["new_dport"]))
        vip = Endpoint(of.unpack(snat["new_src"]), int(snat["new_sport"]))
        key = _key(of, packet.protocol, client, vip)
        dnat = maps["dnat_table"].lookup(key)
        if dnat is None:
            return None
    ours = Endpoint(of.unpack(dnat["new_src"]), int(dnat["new_sport"]))
    backend = Endpoint(of.unpack(dnat["new_dst"]), int(dnat["new_dport"]))
    snat = maps["snat_table"].lookup(_key(of, packet.protocol, backend, ours))
    if snat is None or (int(snat["state"]) & STATE_MASK) == ConnectionState.CLAIMED:
        return None
    return from_halves(of, key, dnat, snat)


def _service_slot(maps: Mapping[str, MapReader], family: int, packet: Packet) -> int:
    of = records(family)
    key = np.zeros((), dtype=of.service_key)
    key["address"] = of.pack(packet.destination.address)
    key["port"], key["proto"] = packet.destination.port, packet.protocol.number
    slot = maps["service_keys"].lookup(key)
    return int(slot) if slot is not None else 0


def _way(
    maps: Mapping[str, MapReader], family: int, packet: Packet, connection: Connection | None
) -> tuple[int, str | None, int] | None:
    if connection is None:
        return None
    of = records(family)
    if packet.source == connection.backend:
        key = _key(of, packet.protocol, connection.backend, connection.snat)
        record = maps["snat_table"].lookup(key)
    else:
        record = maps["backends"].lookup(connection.backend_slot)
    if record is None or not record["ifindex"]:
        return None
    hop = str(of.unpack(record["next_hop"])) if record["next_hop"].any() else None
    return int(record["ifindex"]), hop, int(record["mtu"])


def _frame(packet: Packet, mac: bytes) -> bytes:
    """Return the packet with an Ethernet header; nobody looks at its sums."""
    ports = struct.pack("!HH", packet.source.port, packet.destination.port)
    if packet.protocol is Transport.TCP:
        flags = FLAGS[packet.flag]
        upper = ports + struct.pack("!IIBBHHH", 0, 0, 0x50, flags, 65_535, 0, 0)
    else:
        upper = ports + struct.pack("!HH", 8 + packet.length, 0xFFFF)
    upper += bytes(packet.length)
    source, destination = packet.source.address.packed, packet.destination.address.packed
    number = packet.protocol.number
    if packet.source.address.version == 4:
        length = 20 + len(upper)
        head = struct.pack("!BBHHHBBH", 0x45, 0, length, 0, 0x4000, packet.ttl, number, 0)
        kind = b"\x08\x00"
    else:
        head = struct.pack("!IHBB", 0x60000000, len(upper), number, packet.ttl)
        kind = b"\x86\xdd"
    return mac + bytes(6) + kind + head + source + destination + upper
