"""What the maps say of traffic: counters and connections, as values. Read only."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from llb_core.datapath.bpf_map import MapReader
from llb_core.datapath.layout import STATE_MASK, ConnectionState, Verdict
from llb_core.model import Endpoint, Transport


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


@dataclass(frozen=True, slots=True)
class Connection:
    """One connection, seen by its DNAT half. Times in seconds."""

    client: Endpoint
    vip: Endpoint
    snat: Endpoint
    backend: Endpoint
    protocol: Transport
    state: str
    age: float
    idle: float
    packets: int
    bytes: int


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


def read_connections(
    maps: Mapping[str, MapReader], now: int, ticks_per_second: int
) -> Iterator[Connection]:
    """Yield every connection that stands, in no order; those being removed are left out."""
    for keys, entries in maps["dnat_table"].chunks():
        kinds = entries["state"] & STATE_MASK
        for key, entry, kind in zip(keys, entries, kinds, strict=True):
            if kind == ConnectionState.CLAIMED:
                continue
            yield Connection(
                client=_endpoint(key["src"], key["sport"]),
                vip=_endpoint(key["dst"], key["dport"]),
                snat=_endpoint(entry["new_src"], entry["new_sport"]),
                backend=_endpoint(entry["new_dst"], entry["new_dport"]),
                protocol=Transport.TCP if key["proto"] == 6 else Transport.UDP,
                state=ConnectionState(int(kind)).name.lower(),
                age=_seconds(entry["opened"], now, ticks_per_second),
                idle=_seconds(entry["seen"], now, ticks_per_second),
                packets=int(entry["packets"]),
                bytes=int(entry["bytes"]),
            )


def _seconds(since: Any, now: int, ticks_per_second: int) -> float:
    ticks = (now - int(since)) & 0xFFFFFFFF
    return 0.0 if ticks >= 1 << 31 else ticks / ticks_per_second


def _endpoint(address: Any, port: Any) -> Endpoint:
    return Endpoint(ipaddress.IPv4Address(int(address)), int(port))
