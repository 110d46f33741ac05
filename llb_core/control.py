"""What the daemon answers on its control socket, and the orders that it takes there."""

from __future__ import annotations

from collections.abc import Callable

from llb_core.api.views import View
from llb_core.core_loop import register
from llb_core.errors import LLBError
from llb_core.observer import Observer
from llb_core.orders import Selection, ServiceBackend
from llb_core.running import Running


class DaemonControl:
    """Answers from the parts of a running daemon. On the event loop."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._observer = Observer(running)

    async def status(self) -> View:
        """Say how everything is."""
        return await self._observer.status()

    async def backends(self) -> View:
        """Say how each backend is."""
        return await self._observer.backends()

    async def metrics(self) -> bytes:
        """Return everything that Prometheus is told, as text."""
        return await self._observer.metrics()

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
