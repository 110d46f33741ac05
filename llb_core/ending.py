"""End connections on purpose: those of a client, or of backends, and reset both their sides.

They are out of the tables first, and only then are both sides told, with the numbers that they
await: a portion after the other, so that a million of them take no memory worth the name. What is
not here: who may order it (`api`), and what ends by itself (`map_sync.collect`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llb_core.datapath.connections import Connection, from_ended
from llb_core.datapath.layout import MAX_BACKENDS, Records, records
from llb_core.datapath.resets import send_resets
from llb_core.map_sync import MapSync
from llb_core.model import Endpoint, Installed, ServiceBackend
from llb_core.running import Running

AT_ONCE = 4096
"""Connections that are ended, and reset, before the next are: some 2 MB, and a tenth of a second
until the first of them hears of it."""
SHOWN = 100
"""Connections that are told one by one."""

_Choose = Callable[[Records, Installed, Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Ended:
    """How many connections were ended, of which backends, and how many of them were reset: those
    over TCP that had not closed already. `first` are the first of them, with their services."""

    count: int = 0
    resets: int = 0
    by_backend: Mapping[ServiceBackend, int] = field(default_factory=dict)
    first: tuple[tuple[str, Connection], ...] = ()


def end_those_of_backends(running: Running, backends: Collection[ServiceBackend]) -> Ended:
    """End every connection to these. Blocks for as long as that takes."""

    def choose(_: Records, installed: Installed, __: Any, values: Any) -> Any:
        slots = [slot for slot, each in _by_slot(installed) if each in backends]
        return np.isin(values["backend"], slots)

    families = {endpoint.address.version for _, endpoint in backends}
    return _end(running, families, choose)


def end_those_of_client(running: Running, client: Endpoint, vip: Endpoint | None = None) -> Ended:
    """End the connections from that address and port, those to one VIP where it is given."""

    def choose(of: Records, _: Installed, keys: Any, __: Any) -> Any:
        chosen = _is_at(of, keys, "src", "sport", client)
        if vip is not None:
            chosen &= _is_at(of, keys, "dst", "dport", vip)
        return chosen

    return _end(running, {client.address.version}, choose)


def _end(running: Running, families: Collection[int], choose: _Choose) -> Ended:
    count = resets = 0
    by_backend: Counter[ServiceBackend] = Counter()
    first: list[tuple[str, Connection]] = []
    for number in sorted(families):
        map_sync = running.map_syncs.get(number)
        if map_sync is None:
            continue
        of, installed = records(number), map_sync.installed()
        by_slot = np.zeros(MAX_BACKENDS, dtype=np.int64)
        for ended in _portions(map_sync, of, installed, choose):
            count += len(ended)
            resets += send_resets(of, ended)
            by_slot += np.bincount(ended["dnat_half"]["backend"], minlength=MAX_BACKENDS)
            first += [
                (_owner(installed, each.service_slot), each)
                for each in from_ended(of, ended[: SHOWN - len(first)])
            ]
        for slot, backend in _by_slot(installed):
            by_backend[backend] += int(by_slot[slot])
    return Ended(count, resets, +by_backend, tuple(first))


def _portions(
    map_sync: MapSync, of: Records, installed: Installed, choose: _Choose
) -> Iterator[Any]:
    """End those that are chosen; yield the records of so many at a time.

    All are chosen first: a client that is reset meanwhile and opens another is not meant.
    """
    chosen = [keys[choose(of, installed, keys, values)] for keys, values in map_sync.connections()]
    for keys in chosen:
        for start in range(0, len(keys), AT_ONCE):
            yield map_sync.end_connections(keys[start : start + AT_ONCE])


def _by_slot(installed: Installed) -> Iterator[tuple[int, ServiceBackend]]:
    for slot, backend in installed.backends.items():
        yield slot, (_owner(installed, backend.service_slot), backend.endpoint)


def _is_at(of: Records, keys: Any, address: str, port: str, endpoint: Endpoint) -> Any:
    packed = np.array([of.pack(endpoint.address)], dtype=of.address)
    is_there = (of.words(keys[address]) == of.words(packed)).all(axis=1)
    return is_there & (keys[port] == endpoint.port)


def _owner(installed: Installed, service_slot: int) -> str:
    service = installed.services.get(service_slot)
    return service.name if service else f"(slot {service_slot})"
