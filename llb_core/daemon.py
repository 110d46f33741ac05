"""The daemon: puts the parts together, starts and stops them, and reloads the configuration.

Whatever ends it, maps and filters stay: traffic goes on, and the next daemon takes over what it
finds. What is not here: what the parts do.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import signal
import socket
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from llb_core import capabilities, heap, init_system, upkeep
from llb_core.api.listener import ReadOnlyListener
from llb_core.api.server import answering, bound, owner_ids
from llb_core.balancer import LoadBalancer
from llb_core.config import Config
from llb_core.connection_events import ConnectionEvents
from llb_core.control import DaemonControl
from llb_core.core_loop import CoreLoop
from llb_core.datapath import Datapath, bpffs, is_installed
from llb_core.datapath.compiling import helped
from llb_core.health.checker import HealthChecker, Schedule, Transition
from llb_core.health.source_ports import source_ports
from llb_core.health.state import Health
from llb_core.installing import (
    install,
    put_settings,
    take_away,
)
from llb_core.known_routes import KnownRoutes
from llb_core.map_sync import MapSync
from llb_core.meters import Meters
from llb_core.migration import Migration
from llb_core.model import Backend, Endpoint
from llb_core.orders import Orders
from llb_core.plugins import Loaded, load_whole
from llb_core.reloading import Reloading
from llb_core.report import Report
from llb_core.run_folder import RUN, RunFolder
from llb_core.running import Running
from llb_core.self_repair import SelfRepair
from llb_core.sources import close_together, make_sources, start_together
from llb_core.tables import Tables
from llb_core.undisturbed import spare_what_is_there

log = logging.getLogger(__name__)

SETTLE_LIMIT = 3.0
"""Seconds that the daemon waits, before it says that it is ready, for providers that have not
answered and for backends that have not been checked."""

_GOES_WITH_US = (
    f"{bpffs.BPFFS} is of this mount namespace alone, so what is installed goes with its last "
    "process"
)


def run(path: Path, *, root: Path = RUN) -> None:
    """Run until SIGTERM or SIGINT. Raises LLBError where it can't start."""
    capabilities.leave_no_core()
    config, providers = load_whole(path)
    owner_ids(config.api.socket_owner, config.api.socket_group)
    folder = RunFolder(config.loadbalancer.name, root)
    heap.set_up()
    _allow_many_descriptors()
    settings = config.loadbalancer
    remedy = "stop it, or set another loadbalancer.name"
    with helped(settings.name, settings.max_connections), folder.locked(remedy):
        asyncio.run(Daemon(config, providers, folder).run())


class Daemon:
    """One balancer's daemon; the lock of its name must be held."""

    def __init__(self, config: Config, providers: Loaded, folder: RunFolder) -> None:
        self._config = config
        self._providers = providers
        self._folder = folder
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()
        self._settled = asyncio.Event()
        self._is_ready = False
        self._watched: dict[str, tuple[Schedule | None, frozenset[Endpoint]]] = {}
        self._registered: Mapping[str, tuple[Backend, ...]] = {}

    async def run(self) -> None:
        """Start, serve until told to stop, and stop."""
        loop = asyncio.get_running_loop()
        for number, event in (
            (signal.SIGTERM, self._stop),
            (signal.SIGINT, self._stop),
            (signal.SIGHUP, self._reload),
        ):
            loop.add_signal_handler(number, event.set)
        name = self._config.loadbalancer.name
        was_installed = is_installed(name)
        try:
            await self._run()
        except BaseException:
            if not (was_installed or self._is_ready):  # Nothing stays half-installed.
                with ThreadPoolExecutor(1) as executor:  # The loop's own may have come to its end.
                    await loop.run_in_executor(executor, take_away, name)
            raise
        if bpffs.is_apart():
            log.warning("stopped: %s: don't count on traffic from now on", _GOES_WITH_US)
        else:
            log.info("stopped: traffic goes on without the daemon; llb detach would end it")

    async def _run(self) -> None:
        api = self._config.api
        with bound(self._folder.socket, api.socket_owner, api.socket_group) as listener:
            async with self._started() as running:
                await self._serve(running, listener)

    @asynccontextmanager
    async def _started(self) -> AsyncIterator[Running]:
        """Make the parts and install what belongs to no service; let go of them afterwards."""
        loop = asyncio.get_running_loop()
        settings = self._config.loadbalancer
        orders = Orders(self._folder.orders, before=self._folder.old_orders)
        ports = source_ports(settings.snat_ports)
        executor = ThreadPoolExecutor(1, thread_name_prefix="turns")
        async with AsyncExitStack() as stack:
            stack.callback(executor.shutdown)
            filler = ThreadPoolExecutor(1, thread_name_prefix="tables")
            stack.callback(filler.shutdown, cancel_futures=True)
            families = self._config.families
            datapath = await loop.run_in_executor(executor, Datapath.open, settings, families)
            stack.callback(datapath.close)
            if bpffs.is_apart():
                log.warning(
                    "%s, and no command outside finds it, as after ip netns exec: start it by "
                    "nsenter --net=/run/netns/NAME llb run",
                    _GOES_WITH_US,
                )
            stack.callback(executor.shutdown)  # No thread may go on with descriptors given back.
            map_syncs = {number: MapSync(each) for number, each in datapath.families.items()}
            routes = KnownRoutes(datapath.routes)
            meters = Meters()
            checker = HealthChecker(ports, self._on_transition)
            stack.callback(checker.close)
            llb = LoadBalancer(
                map_syncs,
                [each.service for each in self._config.services],
                health=lambda: checker.states,
                orders=lambda: orders.standing,
                routes=routes,
                clock=datapath.clock,
                timed=meters.timed,
                tables=Tables(filler, on_filled=lambda: core.wake()),
            )
            core = CoreLoop(
                llb,
                (),
                executor,
                on_turn=self._on_turn,
                on_failure=lambda: meters.turns.labels("failed").inc(),
            )
            running = Running(
                self._config, datapath, map_syncs, orders, checker, routes, core, meters
            )
            self._running = running
            stack.enter_context(running.events.hearing_logs())
            name = settings.name
            migration = await core.in_turn(lambda: Migration.begin(name, map_syncs))
            for map_sync in map_syncs.values():
                await core.in_turn(map_sync.installed)  # Tables are opened while we may.
            await core.in_turn(capabilities.keep_only)
            capabilities.keep_only()  # These two threads are all that there are yet.
            vips = self._config.vips
            await core.in_turn(lambda: install(datapath, map_syncs, settings, vips, migration))
            if migration:
                await core.in_turn(migration.catch_up)
                await core.in_turn(lambda: put_settings(datapath, map_syncs))
                await core.in_turn(migration.finish)
            running.sources = make_sources(self._config, self._providers, on_change=core.wake)
            core.sources = tuple(running.sources)
            stack.callback(lambda: close_together(running.sources, 0.1))
            await start_together(running.sources)
            yield running

    async def _serve(self, running: Running, listener: socket.socket) -> None:
        """Make turns, collect, answer and reload until told to stop."""
        spare_what_is_there()
        self._reloading = Reloading(running, lambda wanted: read_only.opened(wanted))
        control = DaemonControl(running, self._reloading.carry_out, self._reloading.preview)
        read_only = ReadOnlyListener(
            control, lambda: running.config.api.listen, running.complain_of_listening
        )
        stop = asyncio.create_task(self._stop.wait())
        connection_events = ConnectionEvents(running)
        work = (
            running.core.run(),
            upkeep.collect_again_and_again(running),
            SelfRepair(running).run(),
            upkeep.sample_again_and_again(running),
            upkeep.follow_drains_again_and_again(running),
            upkeep.follow_host_ports(running),
            upkeep.give_memory_back(),
            upkeep.feed_watchdog(running),
            self._reload_when_told(),
            running.hub.run(connection_events),
        )
        tasks = [stop, *map(_task, work)]
        try:
            settled = asyncio.create_task(self._settled.wait())
            done, _ = await asyncio.wait(
                [*tasks, settled], timeout=SETTLE_LIMIT, return_when=asyncio.FIRST_COMPLETED
            )
            settled.cancel()
            if done <= {settled}:
                async with answering(listener, control):
                    tasks.append(_task(read_only.run()))
                    self._is_ready = True
                    init_system.tell("READY=1")
                    log.info("%s is ready", running.config.loadbalancer.name)
                    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            init_system.tell("STOPPING=1")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            connection_events.close()
            # Those that count, collect and sample come to their end before the maps are closed.
            await asyncio.get_running_loop().shutdown_default_executor()
        for task in done - {stop, settled}:
            task.result()  # A fault of ours: tell it, and let the init system start us anew.

    def _on_transition(self, transition: Transition) -> None:
        running, state = self._running, transition.state
        running.meters.transitions.labels(str(state.status)).inc()
        for service, endpoint in sorted(transition.backends):
            running.hub.on_health(service, endpoint, state)
            why = f": {state.reason}" if state.reason else ""
            running.events.add(
                f"{service}: {endpoint} turned {state.status}{why}",
                level="info" if state.status is Health.HEALTHY else "warning",
            )
        self._running.core.wake()  # The turn says what became of it.

    def _on_turn(self, report: Report) -> None:
        running = self._running
        running.report = report
        running.turned_at = time.time()
        running.installs += bool(report.plan)
        self._reloading.on_turn(report)
        running.hub.on_registered(report.registered)
        running.meters.turns.labels("changed" if report.plan else "unchanged").inc()
        self._watch(report)
        if not self._settled.is_set() and not any(
            service.is_kept or any(backend.mode is None for backend in service.backends)
            for service in report.services
        ):
            self._settled.set()

    def _watch(self, report: Report) -> None:
        """Have the backends of the last turn checked."""
        schedules = {
            each.service.name: Schedule.of(each.health) for each in self._running.config.services
        }
        watched = {
            name: (schedules.get(name), self._endpoints(name, backends))
            for name, backends in report.registered.items()
        }
        self._registered = report.registered
        if watched != self._watched:
            self._watched = watched
            self._running.checker.watch(watched)

    def _endpoints(self, service: str, backends: tuple[Backend, ...]) -> frozenset[Endpoint]:
        """Return where they are; the same object where they are those of the turn before."""
        if self._registered.get(service) is backends:
            return self._watched[service][1]
        return frozenset(each.endpoint for each in backends)

    async def _reload_when_told(self) -> None:
        while True:
            await self._reload.wait()
            self._reload.clear()
            with suppress(Exception):  # It is logged, and ends the reload, not the daemon.
                for complaint in (await self._reloading.carry_out()).complaints:
                    log.warning("%s", complaint)


def _allow_many_descriptors() -> None:
    """Raise the soft limit: each service's table is held open, and each check has a socket."""
    now, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    if now != most:
        with suppress(OSError, ValueError):  # Where it may not, what there is must do.
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _task(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    return asyncio.create_task(work)
