"""What is changed in the maps, step by step, and how each step reads in a plan. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from llb_core.model import (
    Endpoint,
    InstalledBackend,
    Policy,
    ServiceKey,
    Table,
    Timeouts,
)
from llb_core.rules import Rules


def _service(name: str, slot: int) -> str:
    """Write a service as whoever reads a plan knows it; by its slot where no name is known."""
    return f"service {name or slot}"


@dataclass(frozen=True, slots=True)
class PutService:
    """Write the record of a service. No packet finds it before `PutServiceKey`."""

    slot: int
    name: str
    key: ServiceKey
    timeouts: Timeouts
    policy: Policy = field(default_factory=Policy)

    def __str__(self) -> str:
        return f"put {_service(self.name, self.slot)} on {self.key}"


@dataclass(frozen=True, slots=True)
class PutRules:
    """Write prefixes of clients, each allowed or denied, in this order: see `rules.changes`."""

    service_slot: int
    rules: Rules
    service: str = ""

    def __str__(self) -> str:
        whose = _service(self.service, self.service_slot)
        return f"put prefixes of clients of {whose}: {self.rules}"


@dataclass(frozen=True, slots=True)
class DeleteRules:
    """Delete prefixes of clients, in this order."""

    service_slot: int
    rules: Rules
    service: str = ""

    def __str__(self) -> str:
        whose = _service(self.service, self.service_slot)
        return f"delete prefixes of clients of {whose}: {self.rules}"


@dataclass(frozen=True, slots=True)
class PutBackend:
    """Write the record of a backend: a new one, or one whose mode, route or weight changed."""

    backend: InstalledBackend
    service: str = ""

    @property
    def slot(self) -> int:
        """The backend's slot."""
        return self.backend.slot

    def __str__(self) -> str:
        it = self.backend
        way = f"via {it.route.next_hop or 'a gateway'}" if it.route else "without a route"
        return (
            f"put backend {it.endpoint}: {it.mode} in {_service(self.service, it.service_slot)}, "
            f"weight {it.weight}, {way}{', slow start' if it.started else ''}"
        )


@dataclass(frozen=True, slots=True, eq=False)
class PutTable:
    """Put a whole new table in place of the one that the service has, if any."""

    service_slot: int
    table: Table
    service: str = ""

    def __str__(self) -> str:
        whose = _service(self.service, self.service_slot)
        return f"put table of {whose}: {len(self.table)} places"


@dataclass(frozen=True, slots=True, eq=False)
class WriteTable:
    """Write some places of the table that the service has: backends' `slots` into `places`."""

    service_slot: int
    places: npt.NDArray[np.uint32]
    slots: Table
    service: str = ""

    def __str__(self) -> str:
        whose = _service(self.service, self.service_slot)
        return f"write table of {whose}: {len(self.places)} places changed"


@dataclass(frozen=True, slots=True)
class PutServiceKey:
    """Let packets find a service."""

    key: ServiceKey
    slot: int
    service: str = ""

    def __str__(self) -> str:
        return f"open {self.key} to {_service(self.service, self.slot)}"


@dataclass(frozen=True, slots=True)
class DeleteServiceKey:
    """Let packets find a service no longer."""

    key: ServiceKey

    def __str__(self) -> str:
        return f"close {self.key}"


@dataclass(frozen=True, slots=True)
class DropTable:
    """Take a service's table away."""

    service_slot: int
    service: str = ""

    def __str__(self) -> str:
        return f"drop table of {_service(self.service, self.service_slot)}"


@dataclass(frozen=True, slots=True)
class DeleteBackend:
    """Free the slot of a retired backend that no connection uses."""

    slot: int
    endpoint: Endpoint
    service: str = ""

    def __str__(self) -> str:
        whose = f" of service {self.service}" if self.service else ""
        return f"delete backend {self.endpoint}{whose}"


@dataclass(frozen=True, slots=True)
class DeleteService:
    """Free the slot of a service that has no backends left."""

    slot: int
    name: str

    def __str__(self) -> str:
        return f"delete {_service(self.name, self.slot)}"


Change = (
    PutService
    | PutRules
    | DeleteRules
    | PutBackend
    | PutTable
    | WriteTable
    | PutServiceKey
    | DeleteServiceKey
    | DropTable
    | DeleteBackend
    | DeleteService
)


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes in the order in which they must be carried out. Without any it is falsy.

    `families` are the address families of the changes, where it is of more than one: each has slots
    of its own.
    """

    changes: tuple[Change, ...] = ()
    families: tuple[int, ...] = ()

    @classmethod
    def joined(cls, plans: Mapping[int, Plan]) -> Plan:
        """Return one plan of those for several address families."""
        changes = tuple(change for plan in plans.values() for change in plan)
        if len(plans) < 2:
            return cls(changes)
        return cls(changes, tuple(family for family, plan in plans.items() for _ in plan))

    @property
    def lines(self) -> Iterator[str]:
        """The changes, a line each."""
        if not self.families:
            return map(str, self.changes)
        pairs = zip(self.families, self.changes, strict=True)
        return (f"IPv{family}: {change}" for family, change in pairs)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __len__(self) -> int:
        return len(self.changes)

    def __str__(self) -> str:
        return "\n".join(self.lines)
