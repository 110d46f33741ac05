"""What the daemon answers on its control socket, and the orders that it takes there."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version

from llb_core.api.views import Observed, View, backend_views, service_views
from llb_core.core_loop import register
from llb_core.errors import LLBError
from llb_core.map_sync import CollectReport
from llb_core.orders import Selection, ServiceBackend
from llb_core.running import Running
from llb_core.source import Source


class DaemonControl:
    """Answers from the parts of a running daemon. On the event loop."""

    def __init__(self, running: Running) -> None:
        self._running = running

    async def status(self) -> View:
        """Say how everything is."""
        running = self._running
        settings = running.config.loadbalancer
        observed = await self._observe()
        services = service_views(observed)
        for view in services:
            view["sources"] = [
                _source_view(each) for each in running.sources if each.service == view["name"]
            ]
        collected = running.collected
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
            "max_connections": settings.max_connections,
            "connections": collected.connections if collected else None,
            "connections_by_state": dict(collected.by_state) if collected else None,
            "collection": _collection_view(collected) if collected else None,
            "services": services,
            "verdicts": dict(observed.counters.verdicts),
        }

    async def backends(self) -> View:
        """Say how each backend is."""
        return {"source": "daemon", "backends": backend_views(await self._observe())}

    async def plan(self) -> View:
        """Say what the next turn would change; nothing, most of the time."""
        core = self._running.core
        sources = core.sources

        def make() -> list[str]:
            register(sources, core.llb)
            return [str(change) for change in core.llb.plan()]

        return {"source": "daemon", "changes": await core.in_turn(make)}

    async def drain(self, selection: Selection) -> View:
        """Drain backends that are registered."""
        registered = self._running.report.registered if self._running.report else {}
        known = {(name, each.endpoint) for name, own in registered.items() for each in own}
        return await self._order(selection.of(known), self._running.orders.drain, "drained")

    async def undrain(self, selection: Selection) -> View:
        """Take orders back, also those for backends that are registered no more."""
        orders = self._running.orders
        return await self._order(selection.of(orders.drained), orders.undrain, "undrained")

    async def _order(
        self,
        backends: frozenset[ServiceBackend],
        give: Callable[[frozenset[ServiceBackend]], None],
        done: str,
    ) -> View:
        give(backends)
        if await self._running.core.turn() is None:
            raise LLBError("the order stands, but it can't be carried out now: see the log")
        return {
            done: [
                {"service": name, "backend": str(endpoint)} for name, endpoint in sorted(backends)
            ]
        }

    async def _observe(self) -> Observed:
        running = self._running
        return Observed(
            installed=await asyncio.to_thread(running.map_sync.installed),
            counters=await asyncio.to_thread(running.datapath.counters),
            connections=running.collected.by_backend if running.collected else None,
            services=running.report.services if running.report else (),
            health=running.checker.states,
            unchecked=frozenset(
                each.service.name for each in running.config.services if not each.service.is_checked
            ),
        )


def _source_view(source: Source) -> View:
    return {
        "provider": source.provider,
        "is_ready": source.is_ready,
        "is_stale": source.is_stale,
        "age": source.age,
        "error": source.error,
    }


def _collection_view(collected: CollectReport) -> View:
    kept = ("removed", "lone_halves", "seconds")
    return {key: value for key, value in asdict(collected).items() if key in kept}


def _version() -> str:
    try:
        return version("llb")
    except PackageNotFoundError:
        return "unknown"
