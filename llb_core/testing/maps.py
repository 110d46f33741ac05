"""The maps in memory: takes plans as `map_sync` does, and refuses what would break a packet."""

from __future__ import annotations

import numpy as np

from llb_core.errors import MapError
from llb_core.model import BackendMode, Installed
from llb_core.planning.changes import Change, Plan, WriteTable
from llb_core.planning.mirror import Mirror


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
        self._mirror = Mirror()

    def installed(self) -> Installed:
        """Return what the maps hold."""
        return self._mirror.installed()

    def apply(self, plan: Plan) -> None:
        """Carry a plan out, change by change."""
        for change in plan:
            if self.cut_after is not None and len(self.applied) >= self.cut_after:
                raise CutOffError(f"cut off after {self.cut_after} changes")
            if isinstance(change, WriteTable):
                self.places_written += len(change.places)
            self._mirror.carry_out(change)
            self.applied.append(change)
            self.check()

    def check(self) -> None:
        """Raise AssertionError where a packet could be led astray."""
        services, backends = self._mirror.services, self._mirror.backends
        for service in services.values():
            for slot in (np.flatnonzero(np.bincount(service.table)[1:]) + 1).tolist():
                backend = backends.get(slot)
                assert backend, f"service {service.name}: its table points to no backend ({slot})"
                assert backend.service_slot == service.slot, f"{backend} is of another service"
                assert backend.mode is BackendMode.ACTIVE, f"{backend} is in the table"
        for key, slot in self._mirror.keys.items():
            assert slot in services, f"{key} leads to no service ({slot})"
        for backend in backends.values():
            assert backend.service_slot in services, f"{backend} is of no service"
