"""What the maps say of traffic: counters, as values. Read only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from llb_core.datapath.bpf_map import MapReader
from llb_core.datapath.layout import Verdict


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


@dataclass(frozen=True, slots=True)
class Counters:
    """Everything that the classifier counts, by verdict's name and by slot."""

    verdicts: Mapping[str, int]
    services: Mapping[int, Traffic]
    backends: Mapping[int, Traffic]


def read_counters(maps: Mapping[str, MapReader]) -> Counters:
    """Sum up the counters over the CPUs; slots that never counted anything are left out."""
    _, per_cpu = maps["verdicts"].read_all()
    totals = per_cpu.sum(axis=1)
    return Counters(
        verdicts={verdict.name.lower(): int(totals[verdict]) for verdict in Verdict},
        services=_read_traffic(maps["service_counters"]),
        backends=_read_traffic(maps["backend_counters"]),
    )


def _read_traffic(counters: MapReader) -> dict[int, Traffic]:
    found: dict[int, Traffic] = {}
    names = counters.spec.value.names or ()
    for slots, per_cpu in counters.chunks():
        sums = np.stack([per_cpu[name].sum(axis=1) for name in names], axis=1)
        for row in np.flatnonzero(sums.any(axis=1)):
            found[int(slots[row])] = Traffic(*(int(value) for value in sums[row]))
    return found
