"""The load balancer as the core loop sees it: register backends, then commit.

What is registered in a turn is a draft; `commit` resolves it against health and orders, plans for
each address family, and has the plans carried out. What is not here: deciding (`planning`),
writing maps (`map_sync`), and asking providers (`source`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from llb_core.errors import MapError
from llb_core.health.state import Health, HealthState
from llb_core.model import (
    Address,
    Backend,
    BackendMode,
    DesiredService,
    Endpoint,
    Installed,
    InstalledBackend,
    Route,
    Service,
    ServiceKey,
    Ticks,
)
from llb_core.planning.capacity import refused_answers
from llb_core.planning.plan import Plan, make_plan
from llb_core.planning.resolve import Orders, merge, resolve
from llb_core.report import Report, ServiceStatus, gist, sentence, service_status
from llb_core.tables import Tables

log = logging.getLogger(__name__)

_VERDICTS = {Health.HEALTHY: True, Health.UNHEALTHY: False, Health.UNKNOWN: None}


class MapSyncLike(Protocol):
    """Whatever holds what is installed of an address family, and carries plans out on it."""

    def installed(self) -> Installed:
        """Return what is installed."""

    def apply(self, plan: Plan) -> None:
        """Carry a plan out; raise MapError where it fails, with part of it done."""


HealthStates = Mapping[tuple[str, Endpoint], HealthState]
FindRoutes = Callable[[Iterable[Address]], Mapping[Address, Route]]
Timed = Callable[[str], AbstractContextManager[object]]


def untimed(_: str) -> AbstractContextManager[object]:
    """Time nothing."""
    return nullcontext()


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
        self._idle_slots: dict[int, frozenset[int]] = {}
        self._said: dict[str, object] = {}
        self._remembered: dict[str, tuple[Backend, ...]] = {}
        self._refused: dict[str, str] = {}
        self._accepted: dict[str, tuple[Backend, ...]] = {}
        self.serve(services)

    def serve(self, services: Iterable[Service]) -> None:
        """Serve these from the next commit on, and no others."""
        self._services = {service.name: service for service in services}
        self._start_draft()

    @property
    def services(self) -> frozenset[str]:
        """The names of the services that are served."""
        return frozenset(self._services)

    def register_backend(self, service: str, backend: Backend) -> None:
        """Put a backend into the draft of a service; what is not put in is deregistered.

        Nothing happens where the service is not served: its source may outlive it by a turn.
        """
        draft = self._draft.get(service)
        if draft is None:
            return
        known = draft.get(backend.endpoint)
        draft[backend.endpoint] = merge(known, backend) if known else backend

    def keep(self, service: str) -> None:
        """Deregister none of a service's backends: a provider of it has never answered."""
        if service in self._services:
            self._kept.add(service)

    def note_idle(self, slots: Iterable[int], *, family: int = 4) -> None:
        """Say which retired backends no connection uses, so that the next commit frees them.

        To be called in the thread of the turns, so that no slot came back since they were counted.
        """
        self._idle_slots[family] = frozenset(slots)

    def plan(self) -> Plan:
        """Return what `commit` would do now, for all families, and begin a new draft."""
        try:
            return _joined(self._work_out()[0])
        finally:
            self._start_draft()

    def commit(self) -> Report:
        """Install the draft, and begin a new one.

        Raises MapError where a map can't be written: what is done then is safe, and the next
        commit goes on from there. A family that fails does not keep the other one waiting.
        """
        try:
            with self.timed("plan"):
                plans, statuses, registered = self._work_out()
            with self.timed("apply"):
                self._apply(plans)
        finally:
            self._start_draft()
            self._idle_slots = {}
        return Report(_joined(plans), statuses, self._news(statuses), registered)

    def _apply(self, plans: Mapping[int, Plan]) -> None:
        errors = []
        for family, plan in plans.items():
            try:
                self._map_syncs[family].apply(plan)
            except MapError as error:
                errors.append(error)
        if errors:
            raise errors[0]

    def _start_draft(self) -> None:
        self._draft: dict[str, dict[Endpoint, Backend]] = {name: {} for name in self._services}
        self._kept: set[str] = set()

    def _work_out(
        self,
    ) -> tuple[dict[int, Plan], tuple[ServiceStatus, ...], dict[str, tuple[Backend, ...]]]:
        installed = {number: each.installed() for number, each in sorted(self._map_syncs.items())}
        registered = self._fitting(self._registered(installed), installed)
        health, orders = self._health(), self._orders()
        verdicts = {name: _VERDICTS[state.status] for name, state in health.items()}
        routes = self._routes(_addresses(registered, installed.values()))
        desired: dict[ServiceKey, DesiredService] = {}
        plans: dict[int, Plan] = {}
        with self._tables as build:
            for number, own in installed.items():
                wanted = resolve(
                    self._services.values(),
                    registered,
                    verdicts,
                    orders,
                    routes,
                    own,
                    family=number,
                )
                idle = self._idle_slots.get(number, frozenset())
                plans[number] = make_plan(
                    wanted, own, idle_slots=idle, build=build, clock=self._clock()
                )
                desired |= wanted.services
        statuses = tuple(
            service_status(
                service,
                registered[name],
                desired,
                health,
                verdicts,
                orders,
                is_kept=name in self._kept,
            )
            for name, service in self._services.items()
        )
        return plans, statuses, registered

    def _registered(self, installed: Mapping[int, Installed]) -> dict[str, tuple[Backend, ...]]:
        """Return the draft, with what was installed before where a provider is still silent."""
        self._remembered = {
            name: self._remembered.get(name) or _remember(self._services[name], installed)
            for name in self._kept
        }
        result = {}
        for name, draft in self._draft.items():
            kept = (b for b in self._remembered.get(name, ()) if b.endpoint not in draft)
            result[name] = (*draft.values(), *kept)
        return result

    def _fitting(
        self, registered: dict[str, tuple[Backend, ...]], installed: Mapping[int, Installed]
    ) -> dict[str, tuple[Backend, ...]]:
        """Return for services whose backends find no room what was registered before, and tell."""
        refused = refused_answers(self._services.values(), registered, installed)
        for name, why in refused.items():
            if why != self._refused.get(name):
                log.error("%s: what is registered stays as it was: %s", name, why)
            before = self._accepted.get(name)
            if before is None:
                before = _remember(self._services[name], installed)
            registered[name] = before
        for name in self._refused.keys() - refused:
            log.info("%s: its backends find room again", name)
        self._refused, self._accepted = refused, registered
        return registered

    def _news(self, statuses: Sequence[ServiceStatus]) -> tuple[str, ...]:
        """Return a sentence for each service that is not as it was when it was last spoken of."""
        gists = {status.name: gist(status) for status in statuses}
        news = [s for s in statuses if self._said.get(s.name) != gists[s.name]]
        gone = [f"{name}: withdrawn" for name in self._said if name not in gists]
        self._said = gists
        return (*(sentence(status) for status in news), *gone)


def _joined(plans: Mapping[int, Plan]) -> Plan:
    return Plan(tuple(change for plan in plans.values() for change in plan))


def _remember(
    service: Service, installed_by_family: Mapping[int, Installed]
) -> tuple[Backend, ...]:
    """Return a service's installed backends, found by its address, or by its name if that is new.

    Why one took no new connections is not remembered; so it drains until its provider speaks.
    """
    families = {key.endpoint.address.version for key in service.keys}
    found: list[InstalledBackend] = []
    for family in families & installed_by_family.keys():
        installed = installed_by_family[family]
        services = installed.services.values()
        slots = [each.slot for each in services if each.key in service.keys]
        slots = slots or [each.slot for each in services if each.name == service.name]
        found += [each for each in installed.backends.values() if each.service_slot in slots]
    return tuple(
        Backend(each.endpoint, each.weight, draining=each.mode is not BackendMode.ACTIVE)
        for each in found
        if each.mode is not BackendMode.RETIRED
    )


def _addresses(
    registered: Mapping[str, Sequence[Backend]], installed: Iterable[Installed]
) -> frozenset[Address]:
    """Return every address that a route may be needed to, those of retired backends included."""
    new = {backend.endpoint.address for each in registered.values() for backend in each}
    old = {each.endpoint.address for own in installed for each in own.backends.values()}
    return frozenset(new | old)
