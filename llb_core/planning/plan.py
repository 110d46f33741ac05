"""Work out which map changes turn *installed* into *desired*. Pure: no I/O, no clock.

The order makes a plan safe to cut anywhere: what is pointed to is put before what points to it,
and goes after it. A plan made anew from what a cut one left behind ends at the same place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from itertools import count

import numpy as np

from llb_core.model import (
    BackendMode,
    Desired,
    DesiredService,
    Endpoint,
    Installed,
    InstalledBackend,
    InstalledService,
    Scheduler,
    ServiceKey,
    Table,
    Ticks,
    empty_table,
)
from llb_core.planning.changes import (
    Change,
    DeleteBackend,
    DeleteRules,
    DeleteService,
    DeleteServiceKey,
    DropTable,
    Plan,
    PutBackend,
    PutRules,
    PutService,
    PutServiceKey,
    PutTable,
    WriteTable,
)
from llb_core.planning.interim import interim_table
from llb_core.planning.maglev import Owners, table_size
from llb_core.planning.turns import fill_table
from llb_core.rules import NO_RULES, Rules, changes

TableBuilder = Callable[[ServiceKey, Sequence[tuple[Endpoint, int]], int, Scheduler], Owners | None]
"""Fills a service's table as `fill_table` would, or returns None where it is not filled yet."""

_NO_CLOCK = Ticks()


def fill_at_once(
    _: ServiceKey, backends: Sequence[tuple[Endpoint, int]], size: int, scheduler: Scheduler
) -> Owners:
    """Fill any service's table by `fill_table`."""
    return fill_table(backends, size, scheduler)


@dataclass(slots=True)
class _Stages:
    """The changes so far, by the stage of the plan that they belong to."""

    close: list[Change] = field(default_factory=list)
    rules: list[Change] = field(default_factory=list)
    records: list[Change] = field(default_factory=list)
    old_rules: list[Change] = field(default_factory=list)
    before_tables: list[Change] = field(default_factory=list)
    tables: list[Change] = field(default_factory=list)
    after_tables: list[Change] = field(default_factory=list)
    open: list[Change] = field(default_factory=list)
    free: list[Change] = field(default_factory=list)

    def put(self, old: InstalledBackend | None, new: InstalledBackend, service: str) -> None:
        """Put a backend, if it changed: before the tables where they may point to it."""
        if new == old:
            return
        is_active = new.mode is BackendMode.ACTIVE
        (self.before_tables if is_active else self.after_tables).append(PutBackend(new, service))

    def in_order(self) -> tuple[Change, ...]:
        return (
            *self.close,
            *self.rules,
            *self.records,
            *self.old_rules,
            *self.before_tables,
            *self.tables,
            *self.after_tables,
            *self.open,
            *self.free,
        )


def make_plan(
    desired: Desired,
    installed: Installed,
    *,
    idle_slots: AbstractSet[int] = frozenset(),
    build: TableBuilder = fill_at_once,
    clock: Ticks = _NO_CLOCK,
    taken: Installed | None = None,
) -> Plan:
    """Order the changes that turn `installed` into `desired`.

    A backend that is deregistered keeps its slot as a retired one, and is deleted when its slot
    is in `idle_slots`: no connection uses it, as counted after it was retired. `build` fills
    tables (`fill_at_once`, or what stands before it); an interim table serves until it did. `clock`
    is the kernel's, for slow starts. Where both are of some services alone, `taken` is all that is
    installed, whose slots are not free; what is planned for one service does not depend on others.
    """
    taken = taken or installed
    stages = _Stages()
    names = {slot: service.name for slot, service in installed.services.items()}
    service_slots = {service.key: slot for slot, service in installed.services.items()}
    backend_slots = {
        (backend.service_slot, backend.endpoint): slot
        for slot, backend in installed.backends.items()
    }
    free_service_slots = _free(taken.services)
    free_backend_slots = _free(taken.backends)
    registered: set[int] = set()
    with_rules: set[int] = set()

    for key, service in sorted(desired.services.items()):
        service_slot = service_slots.get(key) or next(free_service_slots)
        old = installed.services.get(service_slot)
        _plan_record(stages, service_slot, service, old)
        _plan_rules(stages, service_slot, service.name, service.rules, installed)
        with_rules.add(service_slot)
        slots: list[int] = []
        for wanted in service.backends:
            known = backend_slots.get((service_slot, wanted.endpoint))
            slot = known or next(free_backend_slots)
            slots.append(slot)
            before = installed.backends.get(slot)
            stages.put(
                before,
                InstalledBackend(
                    slot=slot,
                    service_slot=service_slot,
                    endpoint=wanted.endpoint,
                    mode=wanted.mode,
                    route=wanted.route,
                    weight=wanted.weight,
                    started=_started(wanted.mode, before, service.policy.slow_start, clock),
                ),
                service.name,
            )
        registered.update(slots)
        old_table = old.table if old else empty_table()
        _plan_table(stages, service_slot, service, slots, old_table, build)

    withdrawn = [
        service
        for _, service in sorted(installed.services.items())
        if service.key not in desired.services
    ]
    for leaving in withdrawn:
        _plan_withdrawal(stages, leaving)
    for slot in sorted(installed.rules.keys() - with_rules):
        _plan_rules(stages, slot, names.get(slot, ""), NO_RULES, installed)

    staying: set[int] = set()
    for slot, backend in sorted(installed.backends.items()):
        owner = names.get(backend.service_slot, "")
        if slot in registered:
            staying.add(backend.service_slot)
        elif backend.mode is BackendMode.RETIRED and slot in idle_slots:
            stages.free.append(DeleteBackend(slot, backend.endpoint, owner))
        else:
            staying.add(backend.service_slot)
            route = desired.routes.get(backend.endpoint.address, backend.route)
            retired = replace(backend, mode=BackendMode.RETIRED, route=route, started=0)
            stages.put(backend, retired, owner)
    stages.free += [
        DeleteService(leaving.slot, leaving.name)
        for leaving in withdrawn
        if leaving.slot not in staying
    ]
    return Plan(stages.in_order())


def _plan_record(
    stages: _Stages, slot: int, service: DesiredService, old: InstalledService | None
) -> None:
    record = (service.name, service.key, service.timeouts, service.policy)
    if old is None or (old.name, old.key, old.timeouts, old.policy) != record:
        stages.records.append(PutService(slot, *record))
    if old is None or not old.is_reachable:
        stages.open.append(PutServiceKey(service.key, slot, service.name))


def _plan_rules(stages: _Stages, slot: int, name: str, wanted: Rules, installed: Installed) -> None:
    """Plan the prefixes: the record, which says what becomes of all others, lies between what is
    put and what is deleted."""
    put, deleted = changes(installed.rules.get(slot, NO_RULES), wanted)
    if put:
        stages.rules.append(PutRules(slot, put, name))
    if deleted:
        stages.old_rules.append(DeleteRules(slot, deleted, name))


def _started(
    mode: BackendMode, before: InstalledBackend | None, slow_start: float, clock: Ticks
) -> int:
    """Say when a backend's slow start began: once it takes new connections, having taken none.

    One that is over is forgotten, lest it come back when the clock has gone round.
    """
    if mode is not BackendMode.ACTIVE or not slow_start:
        return 0
    if before is None or before.mode is not BackendMode.ACTIVE:
        return clock.now or 1
    if before.started and clock.since(before.started) >= slow_start:
        return 0
    return before.started


def _plan_withdrawal(stages: _Stages, service: InstalledService) -> None:
    if service.is_reachable:
        stages.close.append(DeleteServiceKey(service.key))
    if service.table.size:
        stages.tables.append(DropTable(service.slot, service.name))


def _plan_table(
    stages: _Stages,
    service_slot: int,
    service: DesiredService,
    slots: Sequence[int],
    old: Table,
    build: TableBuilder,
) -> None:
    """Plan the table; its size follows all backends, so that it does not change with health."""
    active = [
        (slot, backend)
        for slot, backend in zip(slots, service.backends, strict=True)
        if backend.mode is BackendMode.ACTIVE
    ]
    if not active:
        if old.size:
            stages.tables.append(DropTable(service_slot, service.name))
        return
    size = table_size([backend.weight for backend in service.backends], old.size)
    shares = [(backend.endpoint, backend.weight) for _, backend in active]
    indices = build(service.key, shares, size, service.policy.scheduler)
    if indices is None:
        table = interim_table(old, [(slot, backend.weight) for slot, backend in active], size)
    else:
        table = np.array([slot for slot, _ in active], dtype=np.uint32)[indices]
    if old.size != table.size:
        stages.tables.append(PutTable(service_slot, table, service.name))
        return
    places = np.flatnonzero(table != old)
    if places.size:
        slots_there = table[places]
        stages.tables.append(
            WriteTable(service_slot, places.astype(np.uint32), slots_there, service.name)
        )


def _free(taken: Mapping[int, object]) -> Iterator[int]:
    """Yield the slots that are free, lowest first, from 1."""
    return (slot for slot in count(1) if slot not in taken)
