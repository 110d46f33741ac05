"""The connections in the tables as columns: chosen, joined from their halves, put in order.

A million of them are read in a second or two, a chunk at a time: what is wanted of each is kept in
some 70 bytes. Read only, and free of locks, so that nobody waits for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.datapath.ahead import ahead
from llb_core.datapath.answers import AT_ONCE, Answers, flow_hashes, read_answers, room_for
from llb_core.datapath.bpf_map import MapReader
from llb_core.datapath.layout import STATE_MASK, ConnectionState, Records
from llb_core.model import Network

Columns = npt.NDArray[Any]
"""Connections, as records of `columns(…)`."""

SORTS = ("age", "idle", "bytes", "packets", "client", "backend")
"""What connections can be sorted by: the oldest, the longest idle, the most, and in order."""

_SORTED_BY_ONE_HALF = ("age", "client", "backend")
FEW = 1_000
"""Connections whose other halves are sooner looked up than found among all."""
_THREADS = 2
"""CPUs that the joining of halves takes."""


def columns(of: Records) -> np.dtype[Any]:
    """Return the record of a connection: endpoints, a service's slot, times in ticks before now."""
    address = of.address
    return np.dtype(
        [
            ("client", address),
            ("vip", address),
            ("snat", address),
            ("backend", address),
            ("client_port", ">u2"),
            ("vip_port", ">u2"),
            ("snat_port", ">u2"),
            ("backend_port", ">u2"),
            ("service_slot", "u2"),
            ("age", "u4"),
            ("idle", "u4"),
            ("packets_in", "u4"),
            ("packets_out", "u4"),
            ("bytes_in", "u8"),
            ("bytes_out", "u8"),
            ("state", "u1"),
            ("proto", "u1"),
        ]
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which connections; what is None leaves nothing out. Slots are those of the maps."""

    services: frozenset[int] | None = None
    backends: frozenset[int] | None = None
    states: frozenset[ConnectionState] | None = None
    client: Network | None = None
    client_port: int | None = None
    snat: Network | None = None
    snat_port: int | None = None


def read_connections(
    maps: Mapping[str, MapReader], of: Records, now: int, wanted: Wanted | None = None
) -> Columns:
    """Return the connections that are wanted, in no order.

    `now` is the kernel's clock in ticks. Both tables are read at once, each by a thread: most of
    that is the kernel's, which waits for memory. Those that come or go meanwhile may be missing, or
    what their backends sent; one being removed is left out. Raises MapError where the kernel
    refuses.
    """
    with ThreadPoolExecutor(_THREADS) as threads:
        reading = threads.submit(read_answers, maps["snat_table"])
        found = _read_halves(maps["dnat_table"], of, now, wanted or Wanted())
        answers = Answers(reading.result())

        def add(start: int) -> None:
            part = found[start : start + AT_ONCE]
            _put_answers(part, *answers.find(flow_hashes(_answer_keys(of, part))), now)

        list(threads.map(add, range(0, len(found), AT_ONCE)))
    return found


def read_first(
    maps: Mapping[str, MapReader], of: Records, now: int, wanted: Wanted, by: str, limit: int
) -> tuple[Columns, int]:
    """Return the first of those that are wanted, in no order, and how many are wanted in all.

    As `read_connections`; where one half is enough to tell the first few, the rest is not kept, and
    their other halves are looked up one by one.
    """
    if limit > FEW or by not in _SORTED_BY_ONE_HALF:
        found = read_connections(maps, of, now, wanted)
        return found, len(found)
    first, count = np.zeros(0, dtype=columns(of)), 0
    for keys, values in _chosen(maps["dnat_table"], of, wanted):
        more = np.zeros(len(first) + len(keys), dtype=first.dtype)
        more[: len(first)] = first
        _put_halves(more[len(first) :], keys, values, now)
        first = more[order([(of, more)], by)[:limit]]
        count += len(keys)
    for row, key in enumerate(_answer_keys(of, first)):
        half = maps["snat_table"].lookup(key)
        if half is not None:
            _put_answers(first, np.array([row]), np.array([half]), now)
    return first, count


def order(parts: Sequence[tuple[Records, Columns]], by: str) -> npt.NDArray[np.intp]:
    """Return the rows of all parts, counted through, in order by one of `SORTS`.

    What is most comes first, endpoints in their order, IPv4 before IPv6.
    """
    if by in ("client", "backend"):
        firsts = np.cumsum([0, *(len(found) for _, found in parts)])
        rows = [
            first + np.lexsort((found[f"{by}_port"], *of.words(found[by])[:, ::-1].T))
            for first, (of, found) in zip(firsts, parts, strict=False)
        ]
        return np.concatenate(rows) if rows else np.zeros(0, dtype=np.intp)
    names = (f"{by}_in", f"{by}_out") if by in ("bytes", "packets") else (by,)
    keys = [sum(found[name].astype(np.uint64) for name in names) for _, found in parts]
    return _falling(np.concatenate([*keys, np.zeros(0, dtype=np.uint64)]))


def _falling(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
    """Return the rows in order, those of the largest keys first, of equal ones the first."""
    for_rows = np.uint64(len(keys).bit_length())
    largest = keys.max(initial=0)
    if largest >> (np.uint64(64) - for_rows):
        return np.argsort(largest - keys, kind="stable")
    # A key and its row in one word: to sort these takes a third of the time.
    words = (largest - keys) << for_rows
    words |= np.arange(len(keys), dtype=np.uint64)
    words.sort()
    words &= (np.uint64(1) << for_rows) - np.uint64(1)
    rows: npt.NDArray[np.intp] = words.view(np.intp)
    return rows


def _read_halves(table: MapReader, of: Records, now: int, wanted: Wanted) -> Columns:
    room = room_for(table, columns(of))
    count = 0
    for keys, values in _chosen(table, of, wanted):
        _put_halves(room[count : count + len(keys)], keys, values, now)
        count += len(keys)
    return room[:count]


def _chosen(table: MapReader, of: Records, wanted: Wanted) -> Iterator[tuple[Columns, Columns]]:
    for keys, values in ahead(table.chunks(AT_ONCE)):
        is_wanted = (values["state"] & STATE_MASK) != ConnectionState.CLAIMED
        if wanted.states is not None:
            is_wanted &= np.isin(values["state"] & STATE_MASK, [int(s) for s in wanted.states])
        if wanted.services is not None:
            is_wanted &= np.isin(values["service"], list(wanted.services))
        if wanted.backends is not None:
            is_wanted &= np.isin(values["backend"], list(wanted.backends))
        if wanted.client is not None:
            is_wanted &= within(of, keys["src"], wanted.client)
        if wanted.client_port is not None:
            is_wanted &= keys["sport"] == wanted.client_port
        if wanted.snat is not None:
            is_wanted &= within(of, values["new_src"], wanted.snat)
        if wanted.snat_port is not None:
            is_wanted &= values["new_sport"] == wanted.snat_port
        if is_wanted.all():
            yield keys, values
        elif is_wanted.any():
            yield keys[is_wanted], values[is_wanted]


def within(of: Records, column: Columns, network: Network) -> npt.NDArray[np.bool_]:
    """Return which addresses of a column are in a network; none is in one of the other family."""
    if network.version != of.family:
        return np.zeros(len(column), dtype=bool)
    mask = np.array(of.pack(network.netmask), dtype=np.uint32)
    address = np.array(of.pack(network.network_address), dtype=np.uint32)
    is_within: npt.NDArray[np.bool_] = ((of.words(column) & mask) == address).all(axis=1)
    return is_within


def _put_halves(part: Columns, keys: Columns, values: Columns, now: int) -> None:
    part["client"], part["client_port"] = keys["src"], keys["sport"]
    part["vip"], part["vip_port"] = keys["dst"], keys["dport"]
    part["snat"], part["snat_port"] = values["new_src"], values["new_sport"]
    part["backend"], part["backend_port"] = values["new_dst"], values["new_dport"]
    part["service_slot"], part["state"] = values["service"], values["state"] & STATE_MASK
    part["proto"] = keys["proto"]
    part["age"], part["idle"] = _since(values["opened"], now), _since(values["seen"], now)
    part["packets_in"], part["bytes_in"] = values["packets"], values["bytes"]


def _put_answers(part: Columns, rows: npt.NDArray[np.intp], halves: Columns, now: int) -> None:
    """Add what the other halves know: what backends sent, and when they were last heard of."""
    part["packets_out"][rows], part["bytes_out"][rows] = halves["packets"], halves["bytes"]
    part["idle"][rows] = np.minimum(part["idle"][rows], _since(halves["seen"], now))


def _answer_keys(of: Records, found: Columns) -> Columns:
    keys = np.zeros(len(found), dtype=of.flow_key)
    keys["src"], keys["dst"] = found["backend"], found["snat"]
    keys["sport"], keys["dport"] = found["backend_port"], found["snat_port"]
    keys["proto"] = found["proto"]
    return keys


def _since(ticks: Columns, now: int) -> npt.NDArray[np.uint32]:
    """Return ticks before now; a packet may have come since now was read."""
    ago = np.uint32(now & 0xFFFFFFFF) - ticks.astype(np.uint32)
    return np.where(ago >= np.uint32(1 << 31), np.uint32(0), ago)
