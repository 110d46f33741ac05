"""Say how the daemon and everything in its care is: for commands, Prometheus and the page.

All of it reads and none of it waits: each answer is worked out in a thread, so that ten thousand
backends hold up no turn and no health check. Whoever asks while an answer is being worked out gets
the same one.
"""

from __future__ import annotations

import asyncio
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeVar

from prometheus_client import generate_latest

from llb_core.api.drops import drop_views, drops_by_name
from llb_core.api.metrics import MetricsText, PortUse
from llb_core.api.page.live import Look, Moment, live
from llb_core.api.service_views import service_views
from llb_core.api.views import (
    Observed,
    ObservedFamily,
    View,
    backend_views,
    verdict_views,
)
from llb_core.collection import CollectReport
from llb_core.datapath.layout import MAX_BACKENDS, MAX_SERVICES
from llb_core.map_sync import MapSync
from llb_core.page_ear import PageEar
from llb_core.room import ports_in_use, ports_of_each, shortages
from llb_core.running import Running
from llb_core.source import Source
from llb_core.undisturbed import undisturbed

T = TypeVar("T")

_MOMENT = 1.0
"""Seconds for which what one page was told serves for another."""


class Observer:
    """Answers from the parts of a running daemon. To be asked on the event loop."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._text = MetricsText()
        self._ear = PageEar(running.hub)
        self._known_moment: Moment | None = None
        self._under_way: dict[str, asyncio.Task[Any]] = {}

    async def status(self) -> View:
        """Say how everything is."""
        return await self._once("status", lambda: self._status(self._observe()))

    async def backends(self) -> View:
        """Say how each backend is."""
        return await self._once(
            "backends", lambda: {"source": "daemon", "backends": backend_views(self._observe())}
        )

    async def drops(self) -> View:
        """Say which packets were dropped, and why."""
        return await self._once("drops", self._drops)

    async def metrics(self) -> bytes:
        """Return everything that Prometheus is told, as text."""
        return await self._once("metrics", self._metrics)

    async def page(self, look: Look) -> bytes:
        """Return what the status page shows, as JSON."""
        connections = self._ear.newest() if look.connections else []
        moment = await self._once("page", self._moment)
        return await asyncio.to_thread(live, moment, look, connections)

    def _moment(self) -> Moment:
        """Look at everything, at most once a second, however many pages are open."""
        known = self._known_moment
        if known is not None and 0 <= time.time() - known.now < _MOMENT:
            return known
        running, observed = self._running, self._observe()
        warnings = [
            shortage.text
            for family in observed.families
            for shortage in shortages(
                family.number,
                sum((family.connections or {}).values()),
                family.connections or {},
                (running.collected.get(family.number) or CollectReport()).refused,
                family.installed,
                running.config.loadbalancer,
            )
        ]
        self._known_moment = Moment(
            status=self._status(observed),
            backends=backend_views(observed),
            samples=running.samples,
            events=running.events.newest(),
            warnings=warnings,
            now=time.time(),
        )
        return self._known_moment

    async def _once(self, name: str, work: Callable[[], T]) -> T:
        """Work it out in a thread, once for all who ask meanwhile."""
        task: asyncio.Task[T] | None = self._under_way.get(name)
        if task is None:
            task = asyncio.create_task(asyncio.to_thread(_undisturbed, work))
            self._under_way[name] = task
            task.add_done_callback(lambda _: self._under_way.pop(name, None))
        # Shielded: one who goes away must not take the answer from the others.
        return await asyncio.shield(task)

    def _observe(self) -> Observed:
        running = self._running
        return Observed(
            families=[
                self._observe_family(number, map_sync)
                for number, map_sync in list(running.map_syncs.items())
            ],
            services=running.report.services if running.report else (),
            differing=running.report.differing if running.report else {},
            health=running.checker.states,
            unchecked=frozenset(
                each.service.name for each in running.config.services if not each.service.is_checked
            ),
            orders=running.orders.standing,
            rates=running.samples.latest(),
        )

    def _observe_family(self, number: int, map_sync: MapSync) -> ObservedFamily:
        running = self._running
        installed = map_sync.installed()
        collected = running.collected.get(number)
        return ObservedFamily(
            number,
            installed,
            running.datapath.families[number].counters(installed),
            collected.by_backend if collected else None,
        )

    def _drops(self) -> View:
        families = []
        for number, map_sync in list(self._running.map_syncs.items()):
            family, installed = self._running.datapath.families[number], map_sync.installed()
            families.append((number, family.maps, installed, family.counters(installed)))
        return {"source": "daemon", "drops": drop_views(families)}

    def _status(self, observed: Observed) -> View:
        running = self._running
        settings = running.config.loadbalancer
        services = service_views(observed)
        sources: dict[str, list[View]] = {}
        for each in running.sources:
            sources.setdefault(each.service, []).append(_source_view(each))
        for view in services:
            view["sources"] = sources.get(view["name"], [])
        collected = list(running.collected.values())
        return {
            "source": "daemon",
            "name": settings.name,
            "version": _version(),
            "pid": os.getpid(),
            "config": str(running.config.path.absolute()),
            "started": running.started,
            "turned": running.turned_at,
            "public_interfaces": settings.public_interfaces,
            "private_interface": settings.private_interface,
            "snat_addresses": [str(address) for address in settings.snat_addresses],
            "listen": str(running.config.api.listen) if running.config.api.listen else None,
            "listen_error": running.listen_error,
            "max_connections": settings.max_connections,
            "families": [each.number for each in observed.families],
            "connections": sum(each.connections for each in collected) if collected else None,
            "connections_by_state": _by_state(collected) if collected else None,
            "collection": _collection_view(collected) if collected else None,
            "services": services,
            "verdicts": verdict_views(observed),
        }

    def _metrics(self) -> bytes:
        running = self._running
        with running.meters.timed("scrape"):
            observed = self._observe()
            text = self._text.write(
                self._status(observed),
                backend_views(observed),
                [use for family in observed.families for use in self._ports(family)],
                {
                    (table, f"ipv{family.number}"): numbers
                    for family in observed.families
                    for table, numbers in self._tables(family).items()
                },
                drops_by_name((each.installed, each.counters) for each in observed.families),
                platform.release(),
            )
        return text.encode() + generate_latest(running.meters.registry)

    def _ports(self, family: ObservedFamily) -> list[PortUse]:
        settings = self._running.config.loadbalancer
        in_use = ports_in_use(family.connections or {}, family.installed)
        return [
            PortUse(str(endpoint), str(protocol), used, ports_of_each(endpoint, settings))
            for (endpoint, protocol), used in in_use.items()
        ]

    def _tables(self, family: ObservedFamily) -> dict[str, tuple[int | None, int]]:
        """Return the entries in use, and the room, by table."""
        running = self._running
        collected = running.collected.get(family.number)
        return {
            "connections": (
                collected.connections if collected else None,
                running.config.loadbalancer.max_connections,
            ),
            # Slot 0 is nobody's.
            "services": (len(family.installed.services), MAX_SERVICES - 1),
            "backends": (len(family.installed.backends), MAX_BACKENDS - 1),
        }


def _undisturbed(work: Callable[[], T]) -> T:
    with undisturbed():
        return work()


def _source_view(source: Source) -> View:
    return {
        "provider": source.provider,
        "is_ready": source.is_ready,
        "is_stale": source.is_stale,
        "age": source.age,
        "error": source.error,
    }


def _by_state(collected: Iterable[CollectReport]) -> dict[str, int]:
    total: Counter[str] = Counter()
    for each in collected:
        total.update(each.by_state)
    return dict(total)


def _collection_view(collected: Sequence[CollectReport]) -> View:
    return {
        "removed": sum(each.removed for each in collected),
        "lone_halves": sum(each.lone_halves for each in collected),
        "seconds": sum(each.seconds for each in collected),
    }


def _version() -> str:
    try:
        return version("llb")
    except PackageNotFoundError:
        return "unknown"
