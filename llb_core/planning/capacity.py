"""Say whose backends no longer fit into the maps of a balancer. Pure.

What does not fit must not be planned: a plan that fails halfway holds up every service. So a
service's answer is taken whole or refused whole, and all others go on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from llb_core.model import Backend, Endpoint, Installed, Service, ServiceKey

SERVICE_SLOTS = 4_095
BACKEND_SLOTS = 32_767
"""Of one address family, over all services; slots count from 1. A backend takes one in each
service that it stands behind, and keeps it after it was deregistered while it has connections."""


def refused_answers(
    services: Iterable[Service],
    registered: Mapping[str, Sequence[Backend]],
    installed: Mapping[int, Installed],
) -> dict[str, str]:
    """Return why, by the name of each service whose backends don't all find a slot.

    `installed` is by family. Those that need no new slot are never refused, and of the others the
    first are served first, in the order of the configuration.
    """
    services = list(services)
    free = {family: BACKEND_SLOTS - len(own.backends) for family, own in installed.items()}
    at_most = sum(len(each.keys) * len(registered.get(each.name, ())) for each in services)
    if at_most <= min(free.values(), default=0):
        return {}  # Were all of them new, they would fit: there is nothing to look up.
    known = _endpoints(installed)
    refused = {}
    for service in services:
        new: Counter[int] = Counter()
        for key in service.keys:
            family = _family(key.endpoint)
            of_service = known.get(key, set[Endpoint]())
            new[family] += sum(
                _family(each.endpoint) == family and each.endpoint not in of_service
                for each in registered.get(service.name, ())
            )
        short = [family for family, own in free.items() if new[family] > max(own, 0)]
        for family in short[:1]:
            refused[service.name] = (
                f"{new[family]} new backends of IPv{family} find no room: all services together "
                f"may have {BACKEND_SLOTS}, and {max(free[family], 0)} are left; have fewer "
                "backends named, or serve some services by another balancer"
            )
        if not short:
            free = {family: left - new[family] for family, left in free.items()}
    return refused


def _endpoints(installed: Mapping[int, Installed]) -> dict[ServiceKey, set[Endpoint]]:
    """Return the endpoints that have a slot, by the key of their service."""
    found: dict[ServiceKey, set[Endpoint]] = {}
    for own in installed.values():
        for backend in own.backends.values():
            service = own.services.get(backend.service_slot)
            if service is not None:
                found.setdefault(service.key, set()).add(backend.endpoint)
    return found


def _family(endpoint: Endpoint) -> int:
    return endpoint.address.version
