"""Decide what ought to be installed, from what is known. Pure: no I/O, no clock.

Providers say what exists, health checks what works, operators what to spare. What is not here: how
to get there from what is installed (`plan`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from llb_core.model import (
    Address,
    Backend,
    BackendMode,
    BackendOrders,
    Desired,
    DesiredBackend,
    DesiredService,
    Endpoint,
    Installed,
    InstalledBackend,
    Route,
    Service,
    ServiceBackend,
    ServiceKey,
    WhenAllUnhealthy,
    WhenUnhealthy,
)

Health = Mapping[tuple[str, Endpoint], bool | None]
"""By service and backend; None, or not in it, where no check has come to a conclusion."""

Orders = Mapping[ServiceBackend, BackendOrders]
"""What operators have ordered, by service and backend."""

NO_ORDERS = BackendOrders()


def resolve(
    services: Iterable[Service],
    registered: Mapping[str, Sequence[Backend]],
    health: Health,
    orders: Orders,
    routes: Mapping[Address, Route],
    installed: Installed,
    *,
    family: int = 4,
) -> Desired:
    """Say what ought to be installed for one address family (4 or 6).

    `registered` has the backends of each service, each endpoint once; a service without any has
    none. A new backend of which the checks know nothing yet is left out until they do.
    """
    by_key: dict[ServiceKey, dict[Endpoint, InstalledBackend]] = {
        service.key: {} for service in installed.services.values()
    }
    for each in installed.backends.values():
        owner = installed.services.get(each.service_slot)
        if owner is not None:
            by_key[owner.key][each.endpoint] = each
    desired: dict[ServiceKey, DesiredService] = {}
    for service in services:
        backends = sorted(
            (
                as_ordered(service.name, backend, orders)
                for backend in registered.get(service.name, ())
                if backend.endpoint.address.version == family
            ),
            key=lambda backend: backend.endpoint.order,
        )
        for key in service.keys:
            if key.endpoint.address.version != family:
                continue
            modes = _modes(service, backends, health, orders, by_key.get(key, {}))
            desired[key] = DesiredService(
                name=service.name,
                key=key,
                timeouts=service.timeouts,
                policy=service.policy(family),
                rules=service.rules_of(family),
                backends=tuple(
                    DesiredBackend(
                        endpoint=backend.endpoint,
                        weight=backend.weight,
                        mode=modes[backend.endpoint],
                        route=routes.get(backend.endpoint.address),
                    )
                    for backend in backends
                    if backend.endpoint in modes
                ),
            )
    return Desired(services=desired, routes=routes)


def as_ordered(service: str, backend: Backend, orders: Orders) -> Backend:
    """Return the backend with the weight that an operator gave it, if one did."""
    order = _orders_of(service, backend.endpoint, orders).weight
    if order is None or order.weight is None:
        return backend
    return replace(backend, weight=order.weight)


def _orders_of(service: str, endpoint: Endpoint, orders: Orders) -> BackendOrders:
    """Return an operator's orders for a backend. Mostly there are none at all, and then nothing is
    looked up, which hashes ten thousand names."""
    return orders.get((service, endpoint), NO_ORDERS) if orders else NO_ORDERS


def merge(first: Backend, second: Backend) -> Backend:
    """Return one backend for two that providers of one service state of the same endpoint.

    The first one's weight counts; it drains, or is unhealthy, where either says so.
    """
    states = {first.healthy, second.healthy}
    return Backend(
        endpoint=first.endpoint,
        weight=first.weight,
        draining=first.draining or second.draining,
        healthy=False if False in states else True if True in states else None,
    )


def _modes(
    service: Service,
    backends: Sequence[Backend],
    health: Health,
    orders: Orders,
    installed: Mapping[Endpoint, InstalledBackend],
) -> dict[Endpoint, BackendMode]:
    """Say what to do with each backend; one that waits for its first check is left out."""
    modes: dict[Endpoint, BackendMode] = {}
    down: list[Endpoint] = []
    is_waiting = False
    for backend in backends:
        endpoint = backend.endpoint
        is_healthy = _is_healthy(service, backend, health)
        ordered = _orders_of(service.name, endpoint, orders)
        is_spared = backend.draining or backend.weight == 0 or ordered.is_drained
        if ordered.is_disabled:
            modes[endpoint] = BackendMode.ENDING
        elif is_healthy is False:
            is_ended = service.when_unhealthy is WhenUnhealthy.END
            modes[endpoint] = BackendMode.ENDING if is_ended else BackendMode.DRAINING
            if not is_spared:
                down.append(endpoint)
        elif is_spared:
            modes[endpoint] = BackendMode.DRAINING
        elif is_healthy:
            modes[endpoint] = BackendMode.ACTIVE
        else:
            known = installed.get(endpoint)
            if known is not None and known.mode is not BackendMode.RETIRED:
                modes[endpoint] = known.mode
            else:
                is_waiting = True
    if down and BackendMode.ACTIVE not in modes.values():
        # At the very start the first verdict must not draw all traffic to a dead backend while
        # the others are about to be found healthy; a service that serves must go on.
        serves = any(each.mode is BackendMode.ACTIVE for each in installed.values())
        if service.when_all_unhealthy is WhenAllUnhealthy.ALL and (serves or not is_waiting):
            modes.update(dict.fromkeys(down, BackendMode.ACTIVE))
    return modes


def _is_healthy(service: Service, backend: Backend, health: Health) -> bool | None:
    """Say whether both the provider and the checks take the backend for healthy."""
    if backend.healthy is False:
        return False
    if not service.is_checked:
        return True
    return health.get((service.name, backend.endpoint))
