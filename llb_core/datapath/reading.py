"""What the maps say of traffic: counters, as values. Read only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from llb_core.datapath.bpf_map import MapReader
from llb_core.datapath.layout import Verdict
from llb_core.model import Installed

_CHUNK = 4_096
_VERDICTS = [(verdict.name.lower(), int(verdict)) for verdict in Verdict]


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was counted for a service or a backend; bytes are of IP packets."""

    packets_in: int = 0
    bytes_in: int = 0
    packets_out: int = 0
    bytes_out: int = 0
    connections: int = 0
    """Opened so far."""
    drops: int = 0
    no_port: int = 0
    """Of the drops: new connections for which no SNAT port was free."""
    opening_evicted: int = 0
    """Connections that had to make room before they became established."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Everything that the classifier counts, by verdict's name and by slot."""

    verdicts: Mapping[str, int]
    services: Mapping[int, Traffic]
    backends: Mapping[int, Traffic]
    drops: Mapping[tuple[int, int, Verdict], int] = field(default_factory=dict)
    """Packets dropped or refused, by service's slot, backend's slot (0 is nobody's) and verdict."""


def read_counters(
    maps: Mapping[str, MapReader], installed: Installed | None = None, *, with_drops: bool = True
) -> Counters:
    """Sum up the counters over the CPUs; slots that never counted anything are left out.

    With `installed`, what lies behind the last slot in use is not read at all.
    """
    _, per_cpu = maps["verdicts"].read_all()
    totals = per_cpu.sum(axis=1).tolist()
    services, backends = read_traffic(maps, installed)
    # Maps of an earlier layout have none.
    has_drops = with_drops and "drop_counters" in maps
    return Counters(
        verdicts={name: totals[place] for name, place in _VERDICTS},
        services=services,
        backends=backends,
        drops=_read_drops(maps["drop_counters"]) if has_drops else {},
    )


def read_traffic(
    maps: Mapping[str, MapReader], installed: Installed | None = None
) -> tuple[Mapping[int, Traffic], Mapping[int, Traffic]]:
    """Do so for services and backends alone, by slot."""
    return (
        _read_traffic(maps["service_counters"], installed.services if installed else None),
        _read_traffic(maps["backend_counters"], installed.backends if installed else None),
    )


def _read_drops(counters: MapReader) -> dict[tuple[int, int, Verdict], int]:
    return {
        (service, backend, Verdict(verdict)): packets
        for keys, per_cpu in counters.chunks(_CHUNK)
        for (service, backend, verdict), packets in zip(
            keys.tolist(), per_cpu.sum(axis=1).tolist(), strict=True
        )
    }


def _read_traffic(counters: MapReader, slots_in_use: Collection[int] | None) -> dict[int, Traffic]:
    found: dict[int, Traffic] = {}
    names = counters.spec.value.names or ()
    last = counters.spec.entries if slots_in_use is None else max(slots_in_use, default=0)
    # A value for each CPU: in smaller chunks, lest many CPUs make them large. In slots' order.
    for slots, per_cpu in counters.chunks(min(last + 1, _CHUNK)):
        sums = per_cpu.view(np.uint64).reshape(len(slots), -1, len(names)).sum(axis=1)
        rows = np.flatnonzero(sums.any(axis=1))
        for slot, row in zip(slots[rows].tolist(), sums[rows].tolist(), strict=True):
            found[slot] = Traffic(*row)
        if slots[-1] >= last:
            break
    return found


def ticks_per_second(maps: Mapping[str, MapReader]) -> int:
    """Return the kernel's tick rate, as the daemon has noted it for the classifier."""
    index = maps["config_index"].lookup(0)
    record = maps["configs"].lookup(int(index or 0))
    return int(record["ticks_per_second"]) if record is not None else 0
