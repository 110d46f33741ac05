"""What was worked out for each service, and all that it came from: while that is the same, a turn
needs not look at the service again.

What is not here: working it out (`balancer`), and planning (`planning`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llb_core.health.state import Health, HealthState
from llb_core.model import Address, Backend, BackendOrders, Endpoint, Route, Service, ServiceKey
from llb_core.planning.parts import Part
from llb_core.planning.resolve import Orders

HealthStates = Mapping[str, Mapping[Endpoint, HealthState]]
"""By service and backend. What is said of a service is not written into any more."""
Unit = str | None
"""The name of a service; None stands for all that is installed and served no more."""
Slot = tuple[int, int]
"""An address family, and the slot of a service in its maps."""


_NO_STATES: Mapping[Endpoint, HealthState] = {}


@dataclass(frozen=True, slots=True)
class Inputs:
    """All that the plan for a service and its status follow from, but for three things that the
    balancer looks at besides: routes, which slots are idle, and the clock while a backend starts
    slowly.

    `families` are those that have maps, `parts` what is installed of the service.
    """

    service: Service | None
    families: frozenset[int]
    registered: tuple[Backend, ...] = ()
    is_kept: bool = False
    health: Mapping[Endpoint, tuple[Health, str]] = field(default_factory=dict)
    orders: Mapping[Endpoint, BackendOrders] = field(default_factory=dict)
    parts: Mapping[Slot, Part] = field(default_factory=dict)
    states: Mapping[Endpoint, HealthState] = field(default_factory=dict, compare=False)
    """What `health` was taken from."""

    @property
    def keys(self) -> frozenset[ServiceKey]:
        """What the service is found by in a packet."""
        return frozenset(self.service.keys if self.service else ())

    @property
    def is_starting(self) -> bool:
        """Whether a backend starts slowly: then the plan follows from the time as well."""
        return any(each.started for part in self.parts.values() for each in part.backends.values())

    def addresses(self, before: frozenset[Address]) -> frozenset[Address]:
        """Return every address that a route may be needed to, those of retired backends included;
        the same set as `before` where it has the same."""
        installed = (each for part in self.parts.values() for each in part.backends.values())
        # By what they are in memory first, since to hash an address costs much more, and who is
        # registered and installed is the same one.
        found = {
            id(address): address
            for group in (self.registered, installed)
            for each in group
            for address in (each.endpoint.address,)
        }
        if len(found) == len(before) and found.keys() == {id(address) for address in before}:
            return before
        addresses = frozenset(found.values())
        return before if addresses == before else addresses


@dataclass(frozen=True, slots=True)
class Settled:
    """A service of which all is installed that followed from `inputs`."""

    inputs: Inputs
    addresses: frozenset[Address]


def inputs_of(
    services: Mapping[str, Service],
    registered: Mapping[str, tuple[Backend, ...]],
    kept: Iterable[str],
    health: HealthStates,
    orders: Orders,
    parts: Mapping[int, Mapping[int, Part]],
    before: Mapping[Unit, Settled],
) -> dict[Unit, Inputs]:
    """Sort what is known by service, and what is installed (by family and slot) too; what has not
    changed since `before` is the same object."""
    parts_of = by_unit(services, parts)
    orders_of: dict[str, dict[Endpoint, BackendOrders]] = {name: {} for name in services}
    for (name, endpoint), ordered in orders.items():
        if name in orders_of:
            orders_of[name][endpoint] = ordered
    kept, families = frozenset(kept), frozenset(parts)
    inputs: dict[Unit, Inputs] = {None: Inputs(None, families, parts=parts_of[None])}
    for name, service in services.items():
        states, known = health.get(name, _NO_STATES), before.get(name)
        inputs[name] = Inputs(
            service,
            families,
            registered[name],
            name in kept,
            known.inputs.health
            if known and known.inputs.states is states
            else {endpoint: (state.status, state.reason) for endpoint, state in states.items()},
            orders_of[name],
            parts_of[name],
            states,
        )
    return inputs


def by_unit(
    services: Mapping[str, Service], parts: Mapping[int, Mapping[int, Part]]
) -> dict[Unit, dict[Slot, Part]]:
    """Sort what is installed (by family and slot) by whose it is."""
    names = {key: name for name, service in services.items() for key in service.keys}
    parts_of: dict[Unit, dict[Slot, Part]] = {name: {} for name in (None, *services)}
    for family, of_family in parts.items():
        for slot, part in of_family.items():
            name = names.get(part.service.key) if part.service else None
            parts_of[name][family, slot] = part
    return parts_of


def moved(routes: Mapping[Address, Route], before: Mapping[Address, Route]) -> set[Address]:
    """Return the addresses whose route is another one."""
    if routes is before:
        return set()
    # What is in one alone is told without hashing any of them again.
    other = set(routes).symmetric_difference(before)
    other.update(
        address
        for address, known in before.items()
        if (route := routes.get(address)) is not known and route != known
    )
    return other
