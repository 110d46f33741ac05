"""What pinned maps hold of services and backends, as values. Read only."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from llb_core.datapath import bpf_map, layout
from llb_core.datapath.bpf_map import MapReader
from llb_core.datapath.mapped import read_table
from llb_core.model import (
    Access,
    Address,
    BackendMode,
    Endpoint,
    Installed,
    InstalledBackend,
    InstalledService,
    Limits,
    Policy,
    Route,
    Scheduler,
    ServiceKey,
    Table,
    Timeouts,
    Transport,
    empty_table,
)
from llb_core.rules import RECORD, Rules

MODE_NUMBERS = {
    BackendMode.ACTIVE: 1,
    BackendMode.DRAINING: 2,
    BackendMode.ENDING: 3,
    BackendMode.RETIRED: 4,
}
"""How the classifier knows a mode: `enum backend_mode` in bpf/types.h."""

SCHEDULER_NUMBERS = {
    Scheduler.MAGLEV: 0,
    Scheduler.ROUND_ROBIN: 1,
    Scheduler.LEAST_CONNECTIONS: 2,
    Scheduler.SOURCE: 3,
}
"""How the classifier knows a scheduler: `enum scheduler` in bpf/types.h."""

ACCESS_NUMBERS = {Access.OPEN: 0, Access.ALLOW: 1, Access.DENY: 2}
"""How the classifier knows them: `enum access` in bpf/types.h."""

_ACCESS_OF = {number: access for access, number in ACCESS_NUMBERS.items()}
_SCHEDULER_OF = {number: scheduler for scheduler, number in SCHEDULER_NUMBERS.items()}
_MODE_OF = {number: mode for mode, number in MODE_NUMBERS.items()}


def read_installed(
    maps: Mapping[str, MapReader], family: int = 4, *, with_tables: bool = True
) -> Installed:
    """Read what the pinned maps of an address family hold, without writing anything.

    Tables that are not held open take CAP_SYS_ADMIN to be opened.
    """
    unpack = layout.records(family).unpack
    keys, slots = maps["service_keys"].read_all()
    reachable = {int(slot): True for key, slot in zip(keys, slots, strict=True) if key["port"]}
    places, records = maps["services"].read_all()
    services = {
        int(places[row]): _read_service(
            int(places[row]),
            records[row],
            reachable,
            unpack,
            _read_table(maps["maglev_tables"], int(places[row])) if with_tables else empty_table(),
        )
        for row in np.flatnonzero(records["proto"])
    }
    places, records = maps["backends"].read_all()
    backends = {
        int(places[row]): _read_backend(int(places[row]), records[row], unpack)
        for row in np.flatnonzero(records["mode"])
    }
    rules: dict[int, Rules] = {}
    if "access_rules" in maps:  # Maps of an earlier layout have none.
        rules = _read_rules(maps["access_rules"], layout.records(family))
    return Installed(services=services, backends=backends, rules=rules)


def _read_rules(reader: MapReader, records: layout.Records) -> dict[int, Rules]:
    keys, values = reader.read_all()
    words = records.words(keys["address"]).astype(np.uint64)
    padded = np.zeros((len(keys), 4), dtype=np.uint64)
    padded[:, 4 - words.shape[1] :] = words
    rows = np.zeros(len(keys), dtype=RECORD)
    rows["length"] = keys["length"] - layout.RULE_SERVICE_BITS
    rows["allows"] = values == layout.RULE_ALLOW
    rows["high"] = padded[:, 0] << np.uint64(32) | padded[:, 1]
    rows["low"] = padded[:, 2] << np.uint64(32) | padded[:, 3]
    slots = np.unique(keys["service"]).tolist()
    return {slot: Rules.sorted(rows[keys["service"] == slot]) for slot in slots}


def _read_service(
    slot: int,
    record: Any,
    reachable: Mapping[int, bool],
    unpack: Callable[[Any], Address],
    table: Table,
) -> InstalledService:
    seconds = [int(each) / 1000 for each in record["milliseconds"]]
    return InstalledService(
        slot=slot,
        name=bytes(record["name"]).decode(errors="replace"),
        key=ServiceKey(
            Endpoint(unpack(record["address"]), int(record["port"])),
            Transport.TCP if record["proto"] == Transport.TCP.number else Transport.UDP,
        ),
        timeouts=Timeouts(**dict(zip(layout.TIMEOUT_NAMES, seconds, strict=True))),
        table=table,
        is_reachable=slot in reachable,
        policy=Policy(
            scheduler=_SCHEDULER_OF[int(record["scheduler"])],
            affinity_prefix=int(record["affinity_prefix"]),
            slow_start=int(record["slow_start"]) / 1000,
            access=_ACCESS_OF[int(record["access"])],
            limits=Limits(*(int(each) for each in record["limits"])),
        ),
    )


def _read_table(tables: MapReader, slot: int) -> Table:
    inner = bpf_map.open_inner(tables, slot)
    if inner is None:
        return empty_table()
    try:
        return read_table(inner)
    finally:
        inner.close()


def _read_backend(slot: int, record: Any, unpack: Callable[[Any], Address]) -> InstalledBackend:
    route = None
    if record["ifindex"]:
        route = Route(
            interface=int(record["ifindex"]),
            next_hop=unpack(record["next_hop"]) if record["next_hop"].any() else None,
            mtu=int(record["mtu"]),
        )
    return InstalledBackend(
        slot=slot,
        service_slot=int(record["service"]),
        endpoint=Endpoint(unpack(record["address"]), int(record["port"])),
        mode=_MODE_OF[int(record["mode"])],
        route=route,
        weight=int(record["weight"]),
        started=int(record["started"]),
    )
