"""End connections on purpose: those of a client, or of backends, and reset both their sides.

They are out of the tables first, and only then are both sides told, with the numbers that they
await. What is not here: who may order it (`api`), and what ends by itself (`map_sync.collect`).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from llb_core.datapath.connections import Connection
from llb_core.datapath.layout import Records, records
from llb_core.datapath.resets import send_resets
from llb_core.map_sync import MapSync
from llb_core.model import Endpoint, Installed, ServiceBackend
from llb_core.running import Running


@dataclass(frozen=True, slots=True)
class Ended:
    """Connections that were ended, with the names of their services, and how many of them were
    reset: those over TCP that had not closed already."""

    connections: tuple[tuple[str, Connection], ...] = ()
    resets: int = 0


def end_those_of_backends(running: Running, backends: Collection[ServiceBackend]) -> Ended:
    """End every connection to these. Blocks for as long as a look at the tables takes."""

    def choose(_: Records, installed: Installed, __: Any, values: Any) -> Any:
        slots = [
            slot
            for slot, backend in installed.backends.items()
            if (_owner(installed, backend.service_slot), backend.endpoint) in backends
        ]
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


def _end(running: Running, families: Collection[int], choose: Any) -> Ended:
    connections: list[tuple[str, Connection]] = []
    for number in sorted(families):
        map_sync = running.map_syncs.get(number)
        if map_sync is not None:
            installed = map_sync.installed()
            connections += [
                (_owner(installed, each.service_slot), each)
                for each in _end_in(map_sync, records(number), installed, choose)
            ]
    return Ended(tuple(connections), send_resets(each for _, each in connections))


def _end_in(map_sync: MapSync, of: Records, installed: Installed, choose: Any) -> list[Connection]:
    chosen = [keys[choose(of, installed, keys, values)] for keys, values in map_sync.connections()]
    return map_sync.end_connections(np.concatenate(chosen)) if chosen else []


def _is_at(of: Records, keys: Any, address: str, port: str, endpoint: Endpoint) -> Any:
    packed = np.array([of.pack(endpoint.address)], dtype=of.address)
    is_there = (of.words(keys[address]) == of.words(packed)).all(axis=1)
    return is_there & (keys[port] == endpoint.port)


def _owner(installed: Installed, service_slot: int) -> str:
    service = installed.services.get(service_slot)
    return service.name if service else f"(slot {service_slot})"
