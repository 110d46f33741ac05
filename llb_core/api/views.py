"""The form of what the daemon answers, and of what the command line reads from pinned maps. Pure.

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
from llb_core.report import BackendStatus, ServiceStatus
from llb_core.samples import RATES, Latest

View = dict[str, Any]

_NAMED = 5
"""Backends of a service that are named: unhealthy ones with why, and those of differing weights."""
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


_Found = Sequence[tuple[ObservedFamily, InstalledBackend]]


def verdict_views(observed: Observed) -> dict[str, int]:
    """Return how many packets met each verdict, of all address families."""
    total: Counter[str] = Counter()
    for family in observed.families:
        total.update(family.counters.verdicts)
    return dict(total)


def backend_views(observed: Observed) -> list[View]:
    """Return each backend of each service, by service and endpoint."""
    slots = _slots(observed.families)
    views = []
    for service in observed.services or ():
        name = service.name
        health, differing = observed.health.get(name, {}), observed.differing.get(name, {})
        for status in service.backends:
            endpoint = status.endpoint
            is_checked = name not in observed.unchecked or status.is_healthy is not None
            views.append(
                _registered(
                    (name, endpoint),
                    status,
                    slots.pop((name, endpoint), ()),
                    observed,
                    health=_HEALTH[status.is_healthy] if is_checked else "unchecked",
                    state=health.get(endpoint) if health else None,
                    provider_weights=differing.get(endpoint, ()) if differing else (),
                )
            )
    views += [_left(key, found, observed) for key, found in slots.items()]
    return sorted(views, key=lambda view: (view["service"], view["mode"] == BackendMode.RETIRED))


def service_views(observed: Observed, of_backends: Iterable[View]) -> list[View]:
    """Return each service with the number of its backends by mode, and its traffic; `of_backends`
    is what `backend_views` gives for the same."""
    backends: dict[str, list[View]] = {}
    for view in of_backends:
        backends.setdefault(view["service"], []).append(view)
    traffic: dict[str, list[Traffic | None]] = {}
    for family in observed.families:
        for slot, service in family.installed.services.items():
            traffic.setdefault(service.name, []).append(family.counters.services.get(slot))
    kept = {status.name for status in observed.services or () if status.is_kept}
    views = []
    for name, keys in _addresses(observed).items():
        own = backends.get(name, [])
        registered = [view for view in own if view["mode"] != BackendMode.RETIRED]
        active = [view for view in registered if view["mode"] == BackendMode.ACTIVE]
        unhealthy = [view for view in registered if view["health"] == "unhealthy"]
        differing = [view for view in registered if view["provider_weights"]]
        views.append(
            {
                "name": name,
                "addresses": keys,
                "backends": len(registered),
                "active": len(active),
                "unhealthy": len(unhealthy),
                "reasons": {view["backend"]: view["reason"] for view in unhealthy[:_NAMED]},
                "differing": len(differing),
                "provider_weights": {
                    view["backend"]: view["provider_weights"] for view in differing[:_NAMED]
                },
                "is_kept": name in kept,
                "unserved": _unserved(keys, active),
                "connections": _sum_known(view["connections"] for view in own),
                **_traffic(traffic.get(name, ())),
                "rates": _rates(observed.rates.services, name),
            }
        )
    return views


def _unserved(addresses: Sequence[str], active: Iterable[View]) -> list[str]:
    """Return the addresses for which no active backend of their family is not known to be
    unhealthy: new connections to these fail, or are sent to a backend that is down."""
    families = {_is_ipv6(view["backend"]) for view in active if view["health"] != "unhealthy"}
    return [address for address in addresses if _is_ipv6(address) not in families]


def _is_ipv6(written: str) -> bool:
    return written.startswith("[")


def _addresses(observed: Observed) -> dict[str, list[str]]:
    if observed.services is not None:
        return {each.name: [str(key) for key in each.keys] for each in observed.services}
    found: dict[str, list[str]] = {}
    for family in observed.families:
        for service in family.installed.services.values():
            if service.is_reachable:
                found.setdefault(service.name, []).append(str(service.key))
    return found


def _slots(families: Iterable[ObservedFamily]) -> dict[ServiceBackend, _Found]:
    """Return the installed backends by service and endpoint; one is there once for each key."""
    found: dict[ServiceBackend, list[tuple[ObservedFamily, InstalledBackend]]] = {}
    for family in families:
        installed = family.installed
        for backend in sorted(installed.backends.values(), key=lambda each: each.endpoint.order):
            service = installed.services.get(backend.service_slot)
            name = service.name if service else f"(slot {backend.service_slot})"
            found.setdefault((name, backend.endpoint), []).append((family, backend))
    return dict(found)


def _registered(
    key: ServiceBackend,
    status: BackendStatus,
    found: _Found,
    observed: Observed,
    *,
    health: str,
    state: HealthState | None,
    provider_weights: Sequence[int],
) -> View:
    service, endpoint = key
    return {
        "service": service,
        "backend": str(endpoint),
        "weight": status.weight,
        "provider_weights": provider_weights,
        "mode": str(status.mode or _NOT_INSTALLED),
        "health": health,
        "reason": status.reason,
        "since": state.since if state else None,
        "orders": _orders(observed, key),
        **_carried(found),
        "rates": _rates(observed.rates.backends, key),
    }


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
        "rates": _rates(observed.rates.backends, key),
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
        **_traffic(family.counters.backends.get(backend.slot) for family, backend in found),
    }


def _traffic(counted: Iterable[Traffic | None]) -> View:
    rows = [_numbers(each) for each in counted if each is not None]
    return dict(zip(_NAMES, map(sum, zip(*rows, strict=True)), strict=True)) if rows else _NOTHING


def _traffic_of(counted: Traffic | None) -> View:
    return _NOTHING if counted is None else dict(zip(_NAMES, _numbers(counted), strict=True))


def _rates(latest: Mapping[Hashable, Sequence[float]], key: Hashable) -> View | None:
    found = latest.get(key)
    return None if found is None else dict(zip(RATES, found, strict=True))


def _sum_known(numbers: Iterable[int | None]) -> int | None:
    known = [number for number in numbers if number is not None]
    return sum(known) if known else None
