"""The load balancer as the core loop sees it: register backends, then commit.

What is registered in a turn is a draft; `commit` resolves it against health and orders, plans for
each address family, and has the plans carried out. A service is looked at only where something of
it is not as it was in the turn before (`settled`); after a turn that failed, all are. What is not
here: deciding (`planning`), writing maps (`map_sync`), and asking providers (`source`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Protocol

from llb_core.drafts import Drafts, Parts, remembered
from llb_core.errors import MapError
from llb_core.health.state import Health
from llb_core.model import (
    Address,
    Backend,
    DesiredService,
    Installed,
    Route,
    Service,
    ServiceKey,
    Ticks,
)
from llb_core.planning.capacity import refused_answers
from llb_core.planning.changes import Plan
from llb_core.planning.parts import Part, joined, split, split_again
from llb_core.planning.plan import make_plan
from llb_core.planning.resolve import Orders, resolve
from llb_core.report import Report, ServiceStatus, gist, sentence, service_status
from llb_core.settled import HealthStates, Inputs, Settled, Unit, by_unit, inputs_of, moved
from llb_core.tables import Tables

log = logging.getLogger(__name__)

_NO_ADDRESSES: frozenset[Address] = frozenset()
_VERDICTS = {Health.HEALTHY: True, Health.UNHEALTHY: False, Health.UNKNOWN: None}


class MapSyncLike(Protocol):
    """Whatever holds what is installed of an address family, and carries plans out on it."""

    def installed(self) -> Installed:
        """Return what is installed."""

    def apply(self, plan: Plan) -> None:
        """Carry a plan out; raise MapError where it fails, with part of it done."""


FindRoutes = Callable[[Iterable[Address]], Mapping[Address, Route]]
Timed = Callable[[str], AbstractContextManager[object]]


def untimed(_: str) -> AbstractContextManager[object]:
    """Time nothing."""
    return nullcontext()


@dataclass(frozen=True, slots=True)
class _Work:
    """What a turn has worked out, and what will hold once it is carried out."""

    plans: Mapping[int, Plan]
    statuses: Mapping[str, ServiceStatus]
    registered: dict[str, tuple[Backend, ...]]
    inputs: Mapping[Unit, Inputs]
    addresses: Mapping[Unit, frozenset[Address]]
    changed: AbstractSet[Unit]
    routes: Mapping[Address, Route]


class LoadBalancer:
    """Services and the draft of their backends. To be used by one thread at a time.

    `map_syncs` are by address family (4, 6); one that is added is used from the next commit on.
    `health`, `orders`, `routes` and `clock` are asked once a commit: the states of the backends
    that are checked, what operators have ordered, and the kernel's routes and clock. `tables` fills
    tables; by itself it does so within the commit, whatever their size.
    """

    def __init__(
        self,
        map_syncs: Mapping[int, MapSyncLike],
        services: Iterable[Service],
        *,
        health: Callable[[], HealthStates] = dict,
        orders: Callable[[], Orders] = dict,
        routes: FindRoutes = lambda _: {},
        clock: Callable[[], Ticks] = Ticks,
        timed: Timed = untimed,
        tables: Tables | None = None,
    ) -> None:
        self.timed = timed
        """Times a step of a turn, by its name."""
        self._map_syncs = map_syncs
        self._health = health
        self._orders = orders
        self._routes = routes
        self._clock = clock
        self._tables = tables or Tables()
        self._drafts = Drafts()
        self._idle_slots: dict[int, frozenset[int]] = {}
        self._said: dict[str, tuple[ServiceStatus, object]] = {}
        self._refused: dict[str, str] = {}
        self._accepted: dict[str, tuple[Backend, ...]] = {}
        self._parts: dict[int, tuple[Installed, Mapping[int, Part]]] = {}
        self._settled: Mapping[Unit, Settled] = {}
        self._statuses: Mapping[str, ServiceStatus] = {}
        self._routes_then: Mapping[Address, Route] = {}
        self._addresses: Mapping[Unit, frozenset[Address]] = {}
        self._all_addresses: frozenset[Address] = frozenset()
        self.serve(services)

    def serve(self, services: Iterable[Service]) -> None:
        """Serve these from the next commit on, and no others."""
        self._services = {service.name: service for service in services}
        self._drafts.begin(self._services)

    @property
    def services(self) -> frozenset[str]:
        """The names of the services that are served."""
        return frozenset(self._services)

    def register_backend(self, service: str, backend: Backend) -> None:
        """Put a backend into the draft of a service; what is not put in is deregistered.

        Nothing happens where the service is not served: its source may outlive it by a turn.
        """
        self._drafts.add(service, backend)

    def register_again(self, service: str, answer: Sequence[Backend]) -> bool:
        """Put all of an answer into the draft, if it is one of the turn before, the same object;
        return whether it is."""
        return self._drafts.add_again(service, answer)

    def keep(self, service: str) -> None:
        """Deregister none of a service's backends: a provider of it has never answered."""
        self._drafts.keep(service)

    def note_idle(self, slots: Iterable[int], *, family: int = 4) -> None:
        """Say which retired backends no connection uses, so that the next commit frees them.

        To be called in the thread of the turns, so that no slot came back since they were counted.
        """
        self._idle_slots[family] = frozenset(slots)

    def plan(self) -> Plan:
        """Return what `commit` would do now, for all families, and begin a new draft."""
        try:
            return Plan.joined(self._work_out().plans)
        finally:
            self._drafts.begin(self._services)

    def commit(self) -> Report:
        """Install the draft, and begin a new one.

        Raises MapError where a map can't be written: what is done then is safe, and the next
        commit goes on from there. A family that fails does not keep the other one waiting.
        """
        try:
            with self.timed("plan"):
                work = self._work_out()
            with self.timed("apply"):
                self._settled = {}  # Where it fails, nobody knows what is installed.
                self._apply(work.plans)
            self._settle(work)
        finally:
            self._drafts.begin(self._services)
            self._idle_slots = {}
        news = self._news(work.statuses)
        return Report(
            Plan.joined(work.plans),
            tuple(work.statuses.values()),
            news,
            work.registered,
            self._drafts.differing,
        )

    def _apply(self, plans: Mapping[int, Plan]) -> None:
        errors = []
        for family, plan in plans.items():
            try:
                self._map_syncs[family].apply(plan)
            except MapError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _work_out(self) -> _Work:
        installed = {number: each.installed() for number, each in sorted(self._map_syncs.items())}
        parts = self._split(installed)
        registered = self._fitting(self._drafts.registered(self._services, parts), installed, parts)
        health, orders = self._health(), self._orders()
        inputs = inputs_of(
            self._services, registered, self._drafts.kept, health, orders, parts, self._settled
        )
        changed = self._changed(inputs, installed)
        addresses = {
            name: self._addresses_of(name, now)
            if name in changed
            else self._settled[name].addresses
            for name, now in inputs.items()
        }
        routes = self._routes(self._joined(addresses))
        others = moved(routes, self._routes_then)
        changed |= {name for name, own in addresses.items() if not others.isdisjoint(own)}

        services = [each for name, each in self._services.items() if name in changed]
        parts_of = [now.parts for name, now in inputs.items() if name in changed]
        states = {
            (each.name, endpoint): state
            for each in services
            for endpoint, state in health.get(each.name, {}).items()
        }
        verdicts = {backend: _VERDICTS[state.status] for backend, state in states.items()}
        desired: dict[ServiceKey, DesiredService] = {}
        plans: dict[int, Plan] = {}
        with self._tables.turn(keeping=self._keys_of(self._services.keys() - changed)) as build:
            for number, whole in installed.items():
                own = joined(
                    (slot, each[number, slot])
                    for each in parts_of
                    for family, slot in each
                    if family == number
                )
                wanted = resolve(services, registered, verdicts, orders, routes, own, family=number)
                plans[number] = make_plan(
                    wanted,
                    own,
                    idle_slots=self._idle_slots.get(number, frozenset()),
                    build=build,
                    clock=self._clock(),
                    taken=whole,
                )
                desired |= wanted.services
        worked_out = {
            each.name: service_status(
                each,
                registered[each.name],
                desired,
                states,
                verdicts,
                orders,
                is_kept=inputs[each.name].is_kept,
            )
            for each in services
        }
        statuses = {name: worked_out.get(name) or self._statuses[name] for name in self._services}
        return _Work(plans, statuses, registered, inputs, addresses, changed, routes)

    def _addresses_of(self, name: Unit, inputs: Inputs) -> frozenset[Address]:
        """Return a unit's addresses; the same object as before where they are the same."""
        return inputs.addresses(self._addresses.get(name, _NO_ADDRESSES))

    def _joined(self, addresses: Mapping[Unit, frozenset[Address]]) -> frozenset[Address]:
        """Return all addresses; the same object as before where no unit has others."""
        before, self._addresses = self._addresses, addresses
        is_same = len(before) == len(addresses) and all(
            before.get(name) is own for name, own in addresses.items()
        )
        if not is_same:
            self._all_addresses = frozenset[Address]().union(*addresses.values())
        return self._all_addresses

    def _settle(self, work: _Work) -> None:
        """Note what is installed now that the plans are carried out: of a service of which nothing
        is other than that in the next turn, nothing is to be done then."""
        missing = self._tables.missing
        installed = {number: each.installed() for number, each in sorted(self._map_syncs.items())}
        parts = by_unit(self._services, self._split(installed))
        settled = {}
        for name, inputs in work.inputs.items():
            if name not in work.changed:
                settled[name] = Settled(inputs, work.addresses[name])
                continue
            now = replace(inputs, parts=parts[name])
            if not (now.is_starting or now.keys & missing):
                settled[name] = Settled(now, self._addresses_of(name, now))
        self._settled, self._statuses = settled, work.statuses
        self._routes_then = work.routes

    def _keys_of(self, names: Iterable[str]) -> frozenset[ServiceKey]:
        return frozenset(key for name in names for key in self._services[name].keys)

    def _changed(
        self, inputs: Mapping[Unit, Inputs], installed: Mapping[int, Installed]
    ) -> set[Unit]:
        """Return whose inputs are not those of the turn before, or who has slots that are idle."""
        changed = {
            name
            for name, now in inputs.items()
            if (before := self._settled.get(name)) is None or before.inputs != now
        }
        owners = {slot: name for name, now in inputs.items() for slot in now.parts}
        for number, slots in self._idle_slots.items():
            backends = installed[number].backends if number in installed else {}
            changed |= {
                owners[number, backends[slot].service_slot] for slot in slots if slot in backends
            }
        return changed

    def _split(self, installed: Mapping[int, Installed]) -> Parts:
        """Return what is installed by service; taken apart again only where it has changed."""
        self._parts = {
            number: (each, self._parts_of(number, each)) for number, each in installed.items()
        }
        return {number: parts for number, (_, parts) in self._parts.items()}

    def _parts_of(self, number: int, installed: Installed) -> Mapping[int, Part]:
        if number not in self._parts:
            return split(installed)
        before, parts = self._parts[number]
        return parts if before is installed else split_again(installed, before, parts)

    def _fitting(
        self,
        registered: dict[str, tuple[Backend, ...]],
        installed: Mapping[int, Installed],
        parts: Parts,
    ) -> dict[str, tuple[Backend, ...]]:
        """Return for services whose backends find no room what was registered before, and tell."""
        refused = refused_answers(self._services.values(), registered, installed)
        for name, why in refused.items():
            if why != self._refused.get(name):
                log.error("%s: what is registered stays as it was: %s", name, why)
            before = self._accepted.get(name)
            if before is None:
                before = remembered(self._services[name], parts)
            registered[name] = before
        for name in self._refused.keys() - refused:
            log.info("%s: its backends find room again", name)
        self._refused, self._accepted = refused, registered
        return registered

    def _news(self, statuses: Mapping[str, ServiceStatus]) -> tuple[str, ...]:
        """Return a sentence for each service that is not as it was when it was last spoken of."""
        news = []
        said: dict[str, tuple[ServiceStatus, object]] = {}
        for name, status in statuses.items():
            before = self._said.get(name)
            if before is not None and before[0] is status:
                said[name] = before
                continue
            said[name] = status, gist(status)
            if before is None or before[1] != said[name][1]:
                news.append(sentence(status))
        gone = [f"{name}: withdrawn" for name in self._said if name not in said]
        self._said = said
        return (*news, *gone)
