"""Say what stands behind each service after a turn, and put it into a sentence.

What is not here: how it came about (`planning`), and counters and connections (`datapath`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llb_core.health.state import HealthState
from llb_core.model import (
    Backend,
    BackendMode,
    DesiredService,
    Endpoint,
    Service,
    ServiceKey,
)
from llb_core.planning.changes import Plan
from llb_core.planning.resolve import Orders, as_ordered

_NAMED = 5
"""Backends that a sentence names before it counts."""


@dataclass(frozen=True, slots=True)
class BackendStatus:
    """A registered backend. `mode` is None while it waits for its first check; `is_healthy` is
    None while nothing is known, and `reason` says why it is not. `weight` is as ordered, where an
    operator has ordered one."""

    endpoint: Endpoint
    weight: int
    mode: BackendMode | None
    is_healthy: bool | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class ServiceStatus:
    """A service and its backends. `is_kept` says that a provider of it has given no good answer, so
    that what was installed before is taken for registered."""

    name: str
    keys: tuple[ServiceKey, ...]
    backends: tuple[BackendStatus, ...]
    is_kept: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What a turn did, for all address families. `registered` are all backends by service, for
    whoever checks them; `differing` are weights that the providers of a service differ about."""

    plan: Plan
    services: tuple[ServiceStatus, ...]
    sentences: tuple[str, ...]
    registered: Mapping[str, tuple[Backend, ...]]
    differing: Mapping[str, Mapping[Endpoint, Sequence[int]]] = field(default_factory=dict)


def service_status(
    service: Service,
    backends: Sequence[Backend],
    desired: Mapping[ServiceKey, DesiredService],
    health: Mapping[tuple[str, Endpoint], HealthState],
    verdicts: Mapping[tuple[str, Endpoint], bool | None],
    orders: Orders,
    *,
    is_kept: bool,
) -> ServiceStatus:
    """Put together what is known of a service's backends."""
    modes = {
        backend.endpoint: backend.mode
        for key in service.keys
        if key in desired
        for backend in desired[key].backends
    }
    statuses = []
    is_checked = bool(health)  # Else nothing is looked up, which hashes ten thousand names.
    for backend in sorted(backends, key=lambda each: each.endpoint.order):
        name = (service.name, backend.endpoint)
        state = health.get(name) if is_checked else None
        is_healthy, reason = verdicts.get(name) if is_checked else None, ""
        if backend.healthy is False:
            is_healthy, reason = False, "its provider says so"
        elif is_healthy is False and state is not None:
            reason = state.reason
        statuses.append(
            BackendStatus(
                endpoint=backend.endpoint,
                weight=as_ordered(service.name, backend, orders).weight,
                mode=modes.get(backend.endpoint),
                is_healthy=is_healthy,
                reason=reason,
            )
        )
    return ServiceStatus(service.name, service.keys, tuple(statuses), is_kept)


def sentence(status: ServiceStatus) -> str:
    """Return the service in one line: `web: 3 backends (10.0.0.7:80 unhealthy: refused)`."""
    count = len(status.backends)
    text = f"{status.name}: {count or 'no'} backend{'' if count == 1 else 's'}"
    if status.is_kept:
        text += ", as installed before, since a provider gave no good answer yet"
    remarks = [each for each in map(_remark, status.backends) if each]
    if not remarks:
        return text
    more = [f"and {len(remarks) - _NAMED} more"] if len(remarks) > _NAMED else []
    return f"{text} ({'; '.join(remarks[:_NAMED] + more)})"


def gist(status: ServiceStatus) -> object:
    """Return what must differ for a sentence to be worth saying again."""
    backends = [(b.endpoint, b.weight, b.mode, b.is_healthy) for b in status.backends]
    return status.keys, status.is_kept, backends


def _remark(backend: BackendStatus) -> str:
    if backend.is_healthy is False:
        why = f": {backend.reason}" if backend.reason else ""
        still = ", gets traffic all the same" if backend.mode is BackendMode.ACTIVE else ""
        return f"{backend.endpoint} unhealthy{why}{still}"
    if backend.mode is None:
        return f"{backend.endpoint} waits for its first check"
    if backend.mode is not BackendMode.ACTIVE:
        return f"{backend.endpoint} {backend.mode}"
    return ""
