"""The form of what is said of backends: by the daemon, and by the command line, which reads it from
pinned maps. Pure.

Without a daemon there is no health, no source and no order: only what is installed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from llb_core.datapath.reading import Counters, Traffic
from llb_core.health.state import HealthState
from llb_core.model import (
    BackendMode,
    BackendOrders,
    Endpoint,
    Installed,
    InstalledBackend,
    ServiceBackend,
)
from llb_core.report import ServiceStatus
from llb_core.samples import RATES, Latest

View = dict[str, Any]

_HEALTH = {True: "healthy", False: "unhealthy", None: "unknown"}
_NOT_INSTALLED = "waiting"
_NAMES = ("opened", "packets_in", "bytes_in", "packets_out", "bytes_out", "drops")
_NOTHING = dict.fromkeys(_NAMES, 0)
_numbers = attrgetter("connections", *_NAMES[1:])


@dataclass(frozen=True, slots=True)
class ObservedFamily:
    """What is known of one address family. `connections` is by the slot of a backend, None where
    they can't be counted."""

    number: int
    """4 or 6."""
    installed: Installed
    counters: Counters
    connections: Mapping[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """What is known. `services` are as of the last turn, None where nobody makes turns."""

    families: Sequence[ObservedFamily]
    services: Sequence[ServiceStatus] | None = None
    health: Mapping[str, Mapping[Endpoint, HealthState]] = field(default_factory=dict)
    unchecked: frozenset[str] = frozenset()
    """Services without health checks."""
    differing: Mapping[str, Mapping[Endpoint, Sequence[int]]] = field(default_factory=dict)
    """Weights that the providers of a service differ about."""
    orders: Mapping[ServiceBackend, BackendOrders] = field(default_factory=dict)
    """Those that stand, whether a turn has carried them out yet or not."""
    rates: Latest = field(default_factory=Latest)


_Found = list[tuple[ObservedFamily, InstalledBackend]]


def verdict_views(observed: Observed) -> dict[str, int]:
    """Return how many packets met each verdict, of all address families."""
    total: Counter[str] = Counter()
    for family in observed.families:
        total.update(family.counters.verdicts)
    return dict(total)


def backend_views(observed: Observed) -> list[View]:
    """Return each backend of each service, by service and endpoint."""
    installed = _installed(observed.families)
    rates = observed.rates.backends
    views = []
    for service in observed.services or ():
        name = service.name
        found, is_checked = installed.get(name, {}), name not in observed.unchecked
        health, differing = observed.health.get(name, {}), observed.differing.get(name, {})
        for status in service.backends:
            endpoint, is_healthy = status.endpoint, status.is_healthy
            key = (name, endpoint)
            state = health.get(endpoint) if health else None
            views.append(
                {
                    "service": name,
                    "backend": str(endpoint),
                    "weight": status.weight,
                    "provider_weights": differing.get(endpoint, ()) if differing else (),
                    "mode": str(status.mode or _NOT_INSTALLED),
                    "health": _HEALTH[is_healthy]
                    if is_checked or is_healthy is not None
                    else "unchecked",
                    "reason": status.reason,
                    "since": state.since if state else None,
                    "orders": _orders(observed, key),
                    **_carried(found.pop(endpoint, [])),
                    "rates": rates_view(rates, key),
                }
            )
    views += [
        _left((name, endpoint), found[endpoint], observed)
        for name, found in installed.items()
        for endpoint in sorted(found, key=lambda each: each.order)
    ]
    return sorted(views, key=lambda view: (view["service"], view["mode"] == BackendMode.RETIRED))


def _installed(families: Iterable[ObservedFamily]) -> dict[str, dict[Endpoint, _Found]]:
    """Return the installed backends by service and endpoint; one is there once for each key."""
    installed: dict[str, dict[Endpoint, _Found]] = {}
    for family in families:
        names = {slot: each.name for slot, each in family.installed.services.items()}
        for backend in family.installed.backends.values():
            name = names.get(backend.service_slot) or f"(slot {backend.service_slot})"
            found = installed.setdefault(name, {})
            found.setdefault(backend.endpoint, []).append((family, backend))
    return installed


def _orders(observed: Observed, key: ServiceBackend) -> list[View]:
    if not observed.orders:
        return []  # As mostly: nothing is looked up, which hashes ten thousand names.
    return [
        {
            "order": str(order.kind),
            "by": order.by,
            "at": order.at,
            "why": order.why,
            "weight": order.weight,
            "deadline": order.deadline,
            "done": order.done,
        }
        for order in observed.orders.get(key, ())
    ]


def _left(key: ServiceBackend, found: _Found, observed: Observed) -> View:
    """Return a backend that nobody registers, or of which only the maps tell."""
    (service, endpoint), (_, backend) = key, found[0]
    return {
        "service": service,
        "backend": str(endpoint),
        "weight": backend.weight,
        "provider_weights": (),
        "mode": str(backend.mode),
        "health": "unknown",
        "reason": "",
        "since": None,
        "orders": _orders(observed, key),
        **_carried(found),
        "rates": rates_view(observed.rates.backends, key),
    }


def _carried(found: _Found) -> View:
    if len(found) == 1:  # As most, of ten thousand.
        ((family, backend),) = found
        opened = None if family.connections is None else family.connections.get(backend.slot, 0)
        return {
            "connections": opened,
            **_traffic_of(family.counters.backends.get(backend.slot)),
        }
    connections = [
        None if family.connections is None else family.connections.get(backend.slot, 0)
        for family, backend in found
    ]
    return {
        "connections": sum(each or 0 for each in connections) if None not in connections else None,
        **traffic_view(family.counters.backends.get(backend.slot) for family, backend in found),
    }


def traffic_view(counted: Iterable[Traffic | None]) -> View:
    """Return what was counted, added up."""
    rows = [_numbers(each) for each in counted if each is not None]
    return dict(zip(_NAMES, map(sum, zip(*rows, strict=True)), strict=True)) if rows else _NOTHING


def _traffic_of(counted: Traffic | None) -> View:
    return _NOTHING if counted is None else dict(zip(_NAMES, _numbers(counted), strict=True))


def rates_view(latest: Mapping[Hashable, Sequence[float]], key: Hashable) -> View | None:
    """Return the newest rates of a service or a backend; None where there are none yet."""
    found = latest.get(key)
    return None if found is None else dict(zip(RATES, found, strict=True))
