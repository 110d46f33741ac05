"""What the classifier tells: events of connections, and the last packets dropped. Read only.

Times are of `time.time()`; the classifier's own are of the monotonic clock.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from llb_core.datapath.bpf_map import MapReader
from llb_core.datapath.layout import (
    DROP_EXAMPLES,
    EndReason,
    EventKind,
    Records,
    Verdict,
)
from llb_core.model import Endpoint, Installed, Transport

Event = dict[str, Any]

_TRANSPORTS = {transport.number: str(transport) for transport in Transport}


def describe(
    of: Records, records: Any, installed: Installed, ticks_per_second: int
) -> Iterator[Event]:
    """Yield each record of the ring as a mapping of plain values."""
    offset = time.time() - time.monotonic()
    for record in records:
        kind = EventKind(int(record["kind"]))
        event: Event = {
            "time": round(int(record["time"]) / 1e9 + offset, 6),
            "kind": kind.name.lower() if kind.name else str(kind),
            **_flow(of, record["key"]),
            **_names(installed, record),
        }
        if kind is EventKind.DROPPED:
            event["reason"] = Verdict(int(record["reason"])).name.lower()
            event["bytes"] = int(record["bytes_in"])
            yield event
            continue
        event["backend"] = str(Endpoint(of.unpack(record["to"]), int(record["to_port"])))
        event["snat"] = str(Endpoint(of.unpack(record["from"]), int(record["from_port"])))
        if kind is EventKind.CLOSED:
            event["reason"] = EndReason(int(record["reason"])).name.lower()
            event["duration"] = round(int(record["ticks"]) / ticks_per_second, 3)
            for name in ("packets_in", "packets_out", "bytes_in", "bytes_out"):
                event[name] = int(record[name])
        yield event


def last_drops(
    maps: Mapping[str, MapReader], of: Records, installed: Installed
) -> dict[str, list[Event]]:
    """Return the last packets that were dropped, by the verdict's name, the newest first."""
    _, kept = maps["drop_examples"].read_all()
    offset = time.time() - time.monotonic()
    found: dict[str, list[Event]] = {}
    for verdict in Verdict:
        own = kept[verdict * DROP_EXAMPLES : (verdict + 1) * DROP_EXAMPLES].ravel()
        own = own[own["time"] > 0]
        if not len(own):
            continue
        found[verdict.name.lower()] = [
            {
                "time": round(int(example["time"]) / 1e9 + offset, 6),
                "interface": int(example["ifindex"]),
                "bytes": int(example["length"]),
                "flags": int(example["flags"]),
                **_flow(of, example["key"]),
                **_names(installed, example),
            }
            for example in own[np.argsort(own["time"])[::-1]]
        ]
    return found


def _flow(of: Records, key: Any) -> Event:
    return {
        "protocol": _TRANSPORTS.get(int(key["proto"]), str(int(key["proto"]))),
        "source": str(Endpoint(of.unpack(key["src"]), int(key["sport"]))),
        "destination": str(Endpoint(of.unpack(key["dst"]), int(key["dport"]))),
    }


def _names(installed: Installed, record: Any) -> Event:
    service = installed.services.get(int(record["service"]))
    backend = installed.backends.get(int(record["backend"]))
    return {
        "service": service.name if service else None,
        "backend": str(backend.endpoint) if backend else None,
    }
