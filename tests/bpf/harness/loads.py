"""What the classifier counts of services, backends and clients: as values, and ways to change it.

Tests may write maps; the daemon does so in `llb_core.map_sync` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np

from llb_core.datapath import layout
from llb_core.datapath.bpf_map import MapReader, MapWriter, Records
from llb_core.model import Installed

Source = tuple[int, IPv4Address | IPv6Address]
TICK_BITS = 20


@dataclass(frozen=True, slots=True)
class Counted:
    """All of it, as it lies in the maps, for what is installed."""

    services: dict[int, Any]
    backends: dict[int, int]
    sources: tuple[Records, Records]


class LoadTables:
    """The maps of counts."""

    def __init__(
        self, maps: Mapping[str, MapReader], family: int, installed: Callable[[], Installed]
    ) -> None:
        self._records = layout.records(family)
        self._services = MapWriter.of(maps["service_loads"])
        self._backends = MapWriter.of(maps["backend_loads"])
        self._sources = MapWriter.of(maps["source_loads"])
        self._installed = installed

    def snapshot(self) -> Counted:
        """Return what is counted."""
        installed = self._installed()
        return Counted(
            {slot: _lookup(self._services, slot) for slot in installed.services},
            {slot: int(_lookup(self._backends, slot)) for slot in installed.backends},
            self._read_sources(),
        )

    def restore(self, counted: Counted) -> None:
        """Put it back."""
        for slot, load in counted.services.items():
            self._services.update(slot, load)
        for slot, count in counted.backends.items():
            self._backends.update(slot, count)
        self._sources.delete_batch(self._read_sources()[0])
        if len(counted.sources[0]):
            self._sources.update_batch(*counted.sources)

    def clear(self) -> None:
        """Count nothing for anybody."""
        installed = self._installed()
        nothing = np.zeros((), dtype=layout.SERVICE_LOAD)
        for slot in installed.services:
            self._services.update(slot, nothing)
        for slot in installed.backends:
            self._backends.update(slot, 0)
        self.forget_sources()

    def forget_sources(self) -> None:
        """Forget all clients, as the kernel does when others need the room."""
        self._sources.delete_batch(self._sources.read_all()[0])

    def age(self, ticks: int) -> None:
        """Let time go by for all buckets."""
        counted = self.snapshot()
        for record in counted.services.values():
            record["due"] -= min(int(record["due"]), ticks << TICK_BITS)
        dues = counted.sources[1]["due"]
        dues -= np.minimum(dues, np.uint64(ticks << TICK_BITS))
        self.restore(counted)

    def drift(self, by: int) -> None:
        """Count so many connections more than there are."""
        counted = self.snapshot()
        for record in counted.services.values():
            record["connections"] += by
        for slot in counted.backends:
            counted.backends[slot] += by
        counted.sources[1]["connections"] += by
        self.restore(counted)

    def connections(self, counted: Counted | None = None) -> tuple[dict[int, int], dict[int, int]]:
        """Return the connections of services and of backends, by slot."""
        counted = counted or self.snapshot()
        services = {slot: int(load["connections"]) for slot, load in counted.services.items()}
        return services, counted.backends

    def sources(self, counted: Counted | None = None) -> dict[Source, int]:
        """Return the connections of clients, or their networks, that have any."""
        keys, values = counted.sources if counted else self._read_sources()
        return {
            (int(key["service"]), self._records.unpack(key["network"])): int(value["connections"])
            for key, value in zip(keys, values, strict=True)
            if value["connections"]
        }

    def _read_sources(self) -> tuple[Records, Records]:
        limits = [each.policy.limits for each in self._installed().services.values()]
        if any(each.source_connections or each.source_new_per_second for each in limits):
            return self._sources.read_all()
        empty = np.zeros(0, dtype=self._records.source_key)
        return empty, np.zeros(0, dtype=layout.SOURCE_LOAD)


def _lookup(reader: MapReader, slot: int) -> Any:
    found = reader.lookup(slot)
    assert found is not None
    return found
