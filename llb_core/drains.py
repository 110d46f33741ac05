"""Follow backends that are drained by an order: say when the last connection of one has gone, and
end those that are left at the deadline.

A deadline is a time of day, so that it outlives the daemon; while one runs it counts the seconds
until then by a clock that nobody sets.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from llb_core.ending import end_those_of_backends
from llb_core.errors import HostError
from llb_core.model import BackendMode, Installed, InstalledBackend, Order, ServiceBackend
from llb_core.running import Running

log = logging.getLogger(__name__)

PAUSE = 0.5
"""Seconds between two looks; connections are counted every second or more."""


@dataclass(frozen=True, slots=True)
class _Drain:
    """An order to drain, since when it is followed, and when its deadline comes, both by the
    clock that nobody sets."""

    order: Order
    since: float
    due: float | None


class Drains:
    """The drains that this daemon follows. `clock` tells seconds that nobody sets, `time_of_day`
    those since 1970."""

    def __init__(
        self,
        running: Running,
        *,
        clock: Callable[[], float] = time.monotonic,
        time_of_day: Callable[[], float] = time.time,
    ) -> None:
        self._running = running
        self._clock = clock
        self._time_of_day = time_of_day
        self._followed: dict[ServiceBackend, _Drain] = {}
        self._sorted: dict[int, tuple[Installed, dict[ServiceBackend, list[InstalledBackend]]]] = {}

    async def follow(self) -> None:
        """Look once at each; to be called again and again."""
        now, orders = self._clock(), self._running.orders
        self._followed = {
            backend: self._drain(backend, standing.traffic, now)
            for backend, standing in orders.standing.items()
            if standing.is_drained and standing.traffic is not None
        }
        late: set[ServiceBackend] = set()
        for backend, drain in self._followed.items():
            live = self._live(backend, since=drain.since)
            if live is None:
                continue
            traffic = orders.standing[backend].traffic if backend in orders.standing else None
            is_known = traffic is not None and traffic.done is not None
            if bool(live) is is_known:  # Where it was known, some were counted late.
                await self._note(backend, is_done=not live)
            if live and drain.due is not None and now >= drain.due:
                late.add(backend)
        if late:
            await self._end(late)

    def _drain(self, backend: ServiceBackend, order: Order, now: float) -> _Drain:
        order = replace(order, done=None)
        known = self._followed.get(backend)
        if known is not None and known.order == order:
            return known
        due = order.due
        if due is None and order.deadline is not None:
            due = now + order.deadline - self._time_of_day()
        return _Drain(order, since=now, due=due)

    async def _note(self, backend: ServiceBackend, *, is_done: bool) -> None:
        service, endpoint = backend
        if is_done:
            log.info("%s: %s is drained: it has no connections left", service, endpoint)
        done = self._time_of_day() if is_done else None
        try:
            await asyncio.to_thread(self._running.orders.note_done, backend, done)
        except HostError as error:
            log.warning("%s", error)

    async def _end(self, late: set[ServiceBackend]) -> None:
        ended = await asyncio.to_thread(end_those_of_backends, self._running, late)
        for service, endpoint in sorted(late):
            count = ended.by_backend.get((service, endpoint), 0)
            if not count:  # Those that were counted have ended meanwhile.
                continue
            log.info(
                "%s: %s: the deadline of its drain has come: %d connections are ended",
                service,
                endpoint,
                count,
            )

    def _live(self, backend: ServiceBackend, *, since: float) -> int | None:
        """Return how many connections a backend has that have not closed, None where they have not
        been counted since that time (`time.monotonic`), or while it may still get new ones."""
        family = backend[1].address.version
        map_sync = self._running.map_syncs.get(family)
        collected = self._running.collected.get(family)
        if map_sync is None:
            return 0
        found = self._installed_as(family, map_sync.installed()).get(backend, ())
        if not found:
            return 0
        if any(each.mode is BackendMode.ACTIVE for each in found):
            return None
        if collected is None or collected.began < since:
            return None
        return sum(collected.live_by_backend.get(each.slot, 0) for each in found)

    def _installed_as(
        self, family: int, installed: Installed
    ) -> Mapping[ServiceBackend, list[InstalledBackend]]:
        """Return what is installed of each backend; sorted anew where that has changed."""
        known = self._sorted.get(family)
        if known is None or known[0] is not installed:
            by_backend: dict[ServiceBackend, list[InstalledBackend]] = {}
            for each in installed.backends.values():
                owner = installed.services.get(each.service_slot)
                if owner is not None:
                    by_backend.setdefault((owner.name, each.endpoint), []).append(each)
            known = self._sorted[family] = installed, by_backend
        return known[1]
