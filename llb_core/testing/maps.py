"""The maps in memory: takes plans as `map_sync` does, and refuses what would break a packet."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from llb_core.errors import MapError
from llb_core.model import (
    BackendMode,
    Installed,
    InstalledBackend,
    InstalledService,
    ServiceKey,
    Table,
    empty_table,
)
from llb_core.planning.plan import (
    Change,
    DeleteBackend,
    DeleteService,
    DeleteServiceKey,
    DropTable,
    Plan,
    PutBackend,
    PutService,
    PutServiceKey,
    PutTable,
    WriteTable,
)


class CutOffError(MapError):
    """The plan was cut off, as the test asked."""


class MemoryMaps:
    """What is installed, in memory.

    After every change it checks that no place of a table points to a backend that is not there,
    is of another service or takes no connections, and raises AssertionError otherwise.
    `cut_after` changes, counted over all plans, `apply` raises CutOffError.
    """

    def __init__(self, *, cut_after: int | None = None) -> None:
        self.cut_after = cut_after
        self.applied: list[Change] = []
        self.places_written = 0
        self._services: dict[int, InstalledService] = {}
        self._keys: dict[ServiceKey, int] = {}
        self._backends: dict[int, InstalledBackend] = {}

    def installed(self) -> Installed:
        """Return what the maps hold."""
        return Installed(services=dict(self._services), backends=dict(self._backends))

    def apply(self, plan: Plan) -> None:
        """Carry a plan out, change by change."""
        for change in plan:
            if self.cut_after is not None and len(self.applied) >= self.cut_after:
                raise CutOffError(f"cut off after {self.cut_after} changes")
            self._carry_out(change)
            self.applied.append(change)
            self.check()

    def check(self) -> None:
        """Raise AssertionError where a packet could be led astray."""
        for service in self._services.values():
            for slot in np.unique(service.table[service.table != 0]).tolist():
                backend = self._backends.get(slot)
                assert backend, f"service {service.name}: its table points to no backend ({slot})"
                assert backend.service_slot == service.slot, f"{backend} is of another service"
                assert backend.mode is BackendMode.ACTIVE, f"{backend} is in the table"
        for key, slot in self._keys.items():
            assert slot in self._services, f"{key} leads to no service ({slot})"
        for backend in self._backends.values():
            assert backend.service_slot in self._services, f"{backend} is of no service"

    def _carry_out(self, change: Change) -> None:
        match change:
            case PutService(slot, name, key, timeouts):
                old = self._services.get(slot)
                self._services[slot] = InstalledService(
                    slot=slot,
                    name=name,
                    key=key,
                    timeouts=timeouts,
                    table=old.table if old else empty_table(),
                    is_reachable=self._keys.get(key) == slot,
                )
            case PutBackend(backend):
                self._backends[backend.slot] = backend
            case PutTable(slot, table):
                self._put_table(slot, table.copy())
            case WriteTable(slot, places, slots):
                table = self._services[slot].table.copy()
                table[places] = slots
                self.places_written += len(places)
                self._put_table(slot, table)
            case PutServiceKey(key, slot):
                self._keys[key] = slot
                self._services[slot] = replace(self._services[slot], is_reachable=True)
            case DeleteServiceKey(key):
                slot = self._keys.pop(key)
                self._services[slot] = replace(self._services[slot], is_reachable=False)
            case DropTable(slot):
                self._put_table(slot, empty_table())
            case DeleteBackend(slot):
                assert self._backends[slot].mode is BackendMode.RETIRED
                del self._backends[slot]
            case DeleteService(slot):
                assert slot not in self._keys.values()
                del self._services[slot]

    def _put_table(self, slot: int, table: Table) -> None:
        table.setflags(write=False)
        self._services[slot] = replace(self._services[slot], table=table)
