"""The form of what is said of services: how many backends each has in which mode, and its traffic.

Pure, and without what is said of each backend: a status needs none of that, of ten thousand.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from llb_core.api.views import (
    Observed,
    ObservedFamily,
    View,
    rates_view,
    traffic_view,
)
from llb_core.datapath.reading import Traffic
from llb_core.model import BackendMode, Endpoint
from llb_core.report import BackendStatus

_NAMED = 5
"""Backends of a service that are named: unhealthy ones with why, and those of differing weights."""


def service_views(observed: Observed) -> list[View]:
    """Return each service with the number of its backends by mode, and its traffic."""
    traffic: dict[str, list[Traffic | None]] = {}
    for family in observed.families:
        for slot, service in family.installed.services.items():
            traffic.setdefault(service.name, []).append(family.counters.services.get(slot))
    statuses = {status.name: status for status in observed.services or ()}
    standings = _standings(observed.families)
    views = []
    for name, keys in _addresses(observed).items():
        status, standing = statuses.get(name), standings.get(name, _Standing())
        backends = status.backends if status else ()
        differing = observed.differing.get(name, {})
        tally = _tally(backends, standing)
        disputed = [each.endpoint for each in backends if differing and each.endpoint in differing]
        views.append(
            {
                "name": name,
                "addresses": keys,
                "backends": tally.registered,
                "active": tally.active,
                "unhealthy": len(tally.unhealthy),
                "reasons": {str(each.endpoint): each.reason for each in tally.unhealthy[:_NAMED]},
                "differing": len(disputed),
                "provider_weights": {str(each): differing[each] for each in disputed[:_NAMED]},
                "is_kept": status is not None and status.is_kept,
                "unserved": [each for each in keys if _family(each) not in tally.served],
                "connections": tally.connections,
                **traffic_view(traffic.get(name, ())),
                "rates": rates_view(observed.rates.services, name),
            }
        )
    return views


@dataclass(slots=True)
class _Standing:
    """The installed backends of a service, and their connections: None where no family counts
    those."""

    modes: dict[Endpoint, BackendMode] = field(default_factory=dict)
    connections: int | None = None


def _standings(families: Iterable[ObservedFamily]) -> dict[str, _Standing]:
    """Return what is installed by the service's name."""
    found: dict[str, _Standing] = {}
    for family in families:
        by_slot = {
            slot: found.setdefault(service.name, _Standing())
            for slot, service in family.installed.services.items()
        }
        connections = family.connections
        for slot, backend in family.installed.backends.items():
            standing = by_slot.get(backend.service_slot)
            if standing is None:
                continue
            standing.modes.setdefault(backend.endpoint, backend.mode)
            if connections is not None:
                standing.connections = (standing.connections or 0) + connections.get(slot, 0)
    return found


@dataclass(slots=True)
class _Tally:
    """The backends of a service, counted. `served` are the families of which one is active and not
    known to be unhealthy: new connections of others fail, or are sent to a backend that is down."""

    connections: int | None
    registered: int = 0
    active: int = 0
    unhealthy: list[BackendStatus] = field(default_factory=list)
    served: set[int] = field(default_factory=set)


def _tally(backends: Iterable[BackendStatus], standing: _Standing) -> _Tally:
    """Count those that a service has registered, and those that are installed all the same."""
    tally, left = _Tally(standing.connections), dict(standing.modes)
    for each in backends:
        if left.pop(each.endpoint, None) is None:  # It has none yet.
            tally.connections = tally.connections or 0
        tally.registered += 1
        if each.is_healthy is False:
            tally.unhealthy.append(each)
        if each.mode is BackendMode.ACTIVE:
            tally.active += 1
            if each.is_healthy is not False:
                tally.served.add(each.endpoint.order[0])
    for endpoint, mode in left.items():
        tally.registered += mode is not BackendMode.RETIRED
        if mode is BackendMode.ACTIVE:
            tally.active += 1
            tally.served.add(endpoint.order[0])
    return tally


def _family(address: str) -> int:
    return 6 if address.startswith("[") else 4


def _addresses(observed: Observed) -> dict[str, list[str]]:
    if observed.services is not None:
        return {each.name: [str(key) for key in each.keys] for each in observed.services}
    found: dict[str, list[str]] = {}
    for family in observed.families:
        for service in family.installed.services.values():
            if service.is_reachable:
                found.setdefault(service.name, []).append(str(service.key))
    return found
