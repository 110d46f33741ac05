"""Follow backends that are drained by an order: say when the last connection of one has gone, and
end those that are left at the deadline.
"""

from __future__ import annotations

import asyncio
import logging
import time

from llb_core.ending import end_those_of_backends
from llb_core.model import BackendMode, Order, ServiceBackend
from llb_core.running import Running

log = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds between two looks; connections are counted every second or more."""


async def follow_drains(running: Running) -> None:
    """Look once at each; to be called again and again."""
    drains = {
        backend: orders.traffic
        for backend, orders in running.orders.standing.items()
        if orders.is_drained and orders.traffic is not None
    }
    for backend in running.drained.keys() - drains.keys():
        del running.drained[backend]
    late: dict[ServiceBackend, Order] = {}
    for backend, order in drains.items():
        live = live_connections(running, backend, since=order.at or 0.0)
        known, _ = running.drained.get(backend, (None, 0.0))
        if live == 0 and known != order:
            running.drained[backend] = (order, time.time())
            service, endpoint = backend
            log.info("%s: %s is drained: it has no connections left", service, endpoint)
        elif live and known == order:
            del running.drained[backend]  # Counted late: it was not so yet.
        if live and order.deadline is not None and time.time() >= order.deadline:
            late[backend] = order
    if late:
        ended = await asyncio.to_thread(end_those_of_backends, running, late.keys())
        for service, endpoint in sorted(late):
            count = sum(
                (name, each.backend) == (service, endpoint) for name, each in ended.connections
            )
            log.info(
                "%s: %s: the deadline of its drain has come: %d connections are ended",
                service,
                endpoint,
                count,
            )


def live_connections(running: Running, backend: ServiceBackend, *, since: float) -> int | None:
    """Return how many connections a backend has that have not closed, None where they have not
    been counted since that time, or while it may still get new ones."""
    service, endpoint = backend
    family = endpoint.address.version
    map_sync, collected = running.map_syncs.get(family), running.collected.get(family)
    if map_sync is None:
        return 0
    installed = map_sync.installed()
    found = [
        each
        for each in installed.backends.values()
        if each.endpoint == endpoint
        and (owner := installed.services.get(each.service_slot)) is not None
        and owner.name == service
    ]
    if not found:
        return 0
    if any(each.mode is BackendMode.ACTIVE for each in found):
        return None
    if collected is None or collected.began < since:
        return None
    return sum(collected.live_by_backend.get(each.slot, 0) for each in found)
