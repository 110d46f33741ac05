"""What the daemon answers on its control socket, and the orders that it takes there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass

from llb_core.api import reading_process
from llb_core.api.page.live import Look
from llb_core.api.views import View
from llb_core.core_loop import register
from llb_core.ending import Ended, end_those_of_backends, end_those_of_client
from llb_core.errors import NotCarriedOut, NotThere
from llb_core.event_hub import Listener
from llb_core.model import Address, Endpoint, Order, OrderKind, ServiceBackend
from llb_core.observer import Observer
from llb_core.orders import Selection
from llb_core.past_connections import PastConnection, Seen
from llb_core.preview import installed_backends
from llb_core.running import Running

log = logging.getLogger(__name__)

_ORDERED = {
    OrderKind.DRAIN: "drained",
    OrderKind.DISABLE: "disabled",
    OrderKind.WEIGHT: "given the weight {weight}",
}
_TAKEN_BACK = {
    OrderKind.DRAIN: "undrained",
    OrderKind.DISABLE: "enabled again",
    OrderKind.WEIGHT: "given its provider's weight again",
}
_LACKING = {
    OrderKind.DRAIN: "is not drained by an order",
    OrderKind.DISABLE: "is not disabled by an order",
    OrderKind.WEIGHT: "has no weight by an order",
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a reload changed, or would: settings, and the maps, a line each. `complaints` are of
    providers that can't answer."""

    settings: tuple[str, ...]
    changes: tuple[str, ...]
    complaints: tuple[str, ...]


Reload = Callable[[], Awaitable[Outcome]]


class DaemonControl:
    """Answers from the parts of a running daemon. On the event loop.

    `reload` takes the configuration's file over, `preview` says what that would change; both raise
    LLBError where the file can't be taken over, and then nothing is changed.
    """

    def __init__(self, running: Running, reload: Reload, preview: Reload) -> None:
        self._running = running
        self._observer = Observer(running)
        self._reload = reload
        self._preview = preview

    async def status(self) -> View:
        """Say how everything is."""
        return await self._observer.status()

    async def backends(self) -> View:
        """Say how each backend is."""
        return await self._observer.backends()

    async def drops(self) -> View:
        """Say which packets were dropped, and why."""
        return await self._observer.drops()

    async def metrics(self) -> bytes:
        """Return everything that Prometheus is told, as text."""
        return await self._observer.metrics()

    async def page(self, look: Look) -> bytes:
        """Return what the status page shows, as JSON."""
        return await self._observer.page(look)

    async def plan(self) -> View:
        """Say what the next turn would change; nothing, most of the time."""
        core = self._running.core
        sources = core.sources

        def make() -> list[str]:
            register(sources, core.llb)
            return list(core.llb.plan().lines)

        return {"source": "daemon", "changes": await core.in_turn(make)}

    async def order(self, selection: Selection, order: Order) -> frozenset[ServiceBackend]:
        """Give an order for backends that are registered; before the first turn, installed."""
        backends = selection.of(self._registered())
        await asyncio.to_thread(self._running.orders.give, backends, order)
        _tell(backends, _ORDERED[order.kind].format(weight=order.weight), order.by, order.why)
        await self._carry_out()
        if order.kind is OrderKind.DISABLE:
            await asyncio.to_thread(end_those_of_backends, self._running, backends)
        return backends

    async def kill_of_client(
        self, client: Endpoint, vip: Endpoint | None, by: str, why: str
    ) -> Ended:
        """End a client's connections."""
        ended = await asyncio.to_thread(end_those_of_client, self._running, client, vip)
        if not ended.count:
            where = f" to {vip}" if vip else ""
            raise NotThere(f"there is no connection from {client}{where}")
        for service, each in ended.first:
            whose = f"the connection of {each.client}"
            log.info("%s: %s is ended by %s", service, whose, _signed(by, why))
        return ended

    async def kill_of_backend(self, selection: Selection, by: str, why: str) -> Ended:
        """End the connections of backends, registered or retired."""
        backends = selection.of(self._installed())
        ended = await asyncio.to_thread(end_those_of_backends, self._running, backends)
        for service, endpoint in sorted(backends):
            whose = f"the connections of {endpoint}"
            log.info("%s: %s are ended by %s", service, whose, _signed(by, why))
        return ended

    async def take_back(
        self, selection: Selection, kind: OrderKind, by: str, why: str
    ) -> frozenset[ServiceBackend]:
        """Take orders back, also those for backends that are registered no more."""
        orders = self._running.orders
        backends = selection.among(orders.under(kind))
        if not backends:
            where = "" if selection.service is None else f" in {selection.service}"
            raise NotThere(
                f"{selection}{where} {_LACKING[kind]}: see llb backends for what is ordered"
            )
        await asyncio.to_thread(orders.take_back, backends, kind)
        _tell(backends, _TAKEN_BACK[kind], by, why)
        await self._carry_out()
        return backends

    async def reload(self, *, dry_run: bool) -> View:
        """Take over the configuration's file, or say what that would change."""
        outcome = await (self._preview() if dry_run else self._reload())
        return {
            "source": "daemon",
            "is_applied": not dry_run,
            "settings": list(outcome.settings),
            "changes": list(outcome.changes),
            "complaints": list(outcome.complaints),
        }

    async def read_tables(self, question: reading_process.Question) -> bytes:
        """Return what the tables of connections say, read by a process of its own."""
        return await reading_process.ask(self._running.config.loadbalancer.name, question)

    def tables_onto(
        self, connection: int, question: reading_process.Question
    ) -> AbstractAsyncContextManager[reading_process.Send]:
        """Have the same written onto a connection by the process that reads."""
        name = self._running.config.loadbalancer.name
        return reading_process.handing_over(name, question, connection)

    def services(self) -> frozenset[str]:
        """Return the names of all services."""
        return frozenset(each.service.name for each in self._running.config.services)

    def backends_known(self) -> frozenset[ServiceBackend]:
        """Return the backends that are registered or installed."""
        return frozenset(self._registered() | self._installed())

    def snat_addresses(self) -> tuple[Address, ...]:
        """Return the addresses of ours that backends see."""
        return self._running.config.loadbalancer.snat_addresses

    async def past_connections(self, seen: Seen) -> tuple[list[PastConnection], float]:
        """Return connections that there were, and since when none is missing among them."""
        map_sync = self._running.map_syncs.get(seen.snat.version)
        if map_sync is None:
            return [], self._running.started
        find = map_sync.past_connections.find
        return await asyncio.to_thread(
            lambda: find(seen, time.monotonic(), time_of_day=time.time())
        )

    def listening(self, kinds: Collection[str]) -> AbstractContextManager[Listener]:
        """Listen to events of some kinds for a while."""
        return self._running.hub.listening(kinds)

    def _registered(self) -> set[ServiceBackend]:
        report = self._running.report
        if report is None:  # Turns fail since the start, and what is installed serves meanwhile.
            return self._installed()
        return {(name, each.endpoint) for name, own in report.registered.items() for each in own}

    def _installed(self) -> set[ServiceBackend]:
        return installed_backends(each.installed() for each in self._running.map_syncs.values())

    async def _carry_out(self) -> None:
        if await self._running.core.turn() is None:
            raise NotCarriedOut(
                f"the order stands, but is not carried out yet: {self._running.core.complaint}: it "
                "is tried again"
            )


def _tell(backends: Iterable[ServiceBackend], what: str, by: str, why: str) -> None:
    for service, endpoint in sorted(backends):
        log.info("%s: %s is %s by %s", service, endpoint, what, _signed(by, why))


def _signed(by: str, why: str) -> str:
    return f"{by}: {why}" if why else by
