"""The form in which dropped packets are told of: how many by reason, the last ones, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from llb_core.datapath.bpf_map import MapReader
from llb_core.datapath.events import last_drops
from llb_core.datapath.layout import Verdict, records
from llb_core.datapath.reading import Counters
from llb_core.model import Installed
from llb_core.verdict_words import meaning, remedy

View = dict[str, Any]

Family = tuple[int, Mapping[str, MapReader], Installed, Counters]
"""The number of an address family, its maps, and what is in them."""


def drops_by_name(
    families: Iterable[tuple[Installed, Counters]],
) -> dict[tuple[str, str, str], int]:
    """Return how many packets were dropped, by verdict's name, service and backend: empty where a
    packet was for nobody. What was counted for those who are not there any more is left out."""
    found: dict[tuple[str, str, str], int] = {}
    for installed, counters in families:
        for (service_slot, backend_slot, verdict), packets in counters.drops.items():
            service = installed.services.get(service_slot)
            backend = installed.backends.get(backend_slot)
            if (service_slot and not service) or (backend_slot and not backend):
                continue
            name = service.name if service else ""
            endpoint = str(backend.endpoint) if backend else ""
            key = verdict.name.lower(), name, endpoint
            found[key] = found.get(key, 0) + packets
    return found


def drop_views(families: Iterable[Family]) -> list[View]:
    """Return each reason for which packets were not sent on, the most frequent first."""
    families = list(families)
    by_name = drops_by_name((installed, counters) for _, _, installed, counters in families)
    by: dict[str, list[View]] = {}
    for (name, service, backend), packets in sorted(by_name.items(), key=lambda each: -each[1]):
        own = {"service": service or None, "backend": backend or None, "packets": packets}
        by.setdefault(name, []).append(own)
    counts: dict[Verdict, int] = {}
    last: dict[Verdict, list[View]] = {}
    for number, maps, installed, counters in families:
        kept = last_drops(maps, records(number), installed)
        for verdict in Verdict:
            name = verdict.name.lower()
            if name.startswith(("drop_", "refuse_")):
                counts[verdict] = counts.get(verdict, 0) + counters.verdicts[name]
                last.setdefault(verdict, []).extend(kept.get(name, ()))
    met = sorted((each for each in counts if counts[each]), key=counts.__getitem__, reverse=True)
    return [
        {
            "reason": verdict.name.lower(),
            "packets": counts[verdict],
            "meaning": meaning(verdict),
            "remedy": remedy(verdict),
            "by": by.get(verdict.name.lower(), []),
            "last": sorted(last[verdict], key=lambda each: each["time"], reverse=True),
        }
        for verdict in met
    ]
