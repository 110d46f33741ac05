"""Take a changed configuration over while the daemon runs, or refuse it with nothing changed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from llb_core import init_system
from llb_core.config import Config
from llb_core.control import Outcome
from llb_core.errors import ConfigurationError, LLBError, NotCarriedOut
from llb_core.health.source_ports import source_ports
from llb_core.installing import refuse_what_cannot_be, reinstall
from llb_core.model import Endpoint
from llb_core.plugins import Loaded, load_whole
from llb_core.preview import changed_settings, planned_changes
from llb_core.report import Report
from llb_core.running import Running
from llb_core.sources import (
    close_together,
    make_sources,
    own_addresses,
    refuse_own_backends,
    start_together,
)
from llb_core.strangers import aside

log = logging.getLogger(__name__)


class Reloading:
    """Reloads of a running daemon, one at a time. On the event loop.

    `opened` opens the read-only listener's new address, and gives it up where its block fails.
    """

    def __init__(
        self, running: Running, opened: Callable[[Endpoint | None], AbstractContextManager[None]]
    ) -> None:
        self._running = running
        self._opened = opened
        self._one_at_a_time = asyncio.Lock()
        self._changes: list[str] = []
        """What turns have changed since the reload that is under way took its file over."""

    def on_turn(self, report: Report) -> None:
        """Hear of a turn: what it changed belongs to the reload that is under way."""
        if self._one_at_a_time.locked():
            self._changes += report.plan.lines

    async def carry_out(self) -> Outcome:
        """Reload, one at a time, and return what changed; raise what is wrong, which is logged."""
        async with self._one_at_a_time:
            init_system.tell(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                outcome = await self._load_anew()
            except NotCarriedOut as error:
                log.error("%s", error)
                raise
            except LLBError as error:
                log.error("not reloaded, nothing is changed: %s", error)
                raise
            except Exception:
                log.exception("not reloaded: a fault in LLB, please report it")
                raise
            finally:
                init_system.tell("READY=1")
            log.info("reloaded %s", self._running.config.path)
            return outcome

    async def preview(self) -> Outcome:
        """Say what a reload would change; raise what is wrong with the file, or with the host."""
        new, providers = await self._read_anew()
        with self._opened(new.api.listen):
            pass  # It could listen there; nobody wants it yet.
        settings = changed_settings(self._running.config, new)
        complaints: list[str] = []
        changes = await aside(
            lambda: planned_changes(self._running, new, providers, complaints.append)
        )
        return Outcome(settings, changes, tuple(complaints))

    async def _read_anew(self) -> tuple[Config, Loaded]:
        """Read the configuration's file; refuse it as far as that can be without a change."""
        running = self._running
        old = running.config
        new, providers = await aside(lambda: load_whole(old.path))
        _refuse_what_needs_a_restart(old, new)
        await asyncio.to_thread(refuse_what_cannot_be, running, new)
        await asyncio.to_thread(refuse_own_backends, new, running.sources)
        return new, providers

    async def _load_anew(self) -> Outcome:
        """Take over a changed configuration; whatever is wrong with it, nothing is changed.

        NotCarriedOut where it is taken over, and the maps can't be written: turns try again.
        """
        new, providers = await self._read_anew()
        with self._opened(new.api.listen):
            return await self._take_over(new, providers)

    async def _take_over(self, new: Config, providers: Loaded) -> Outcome:
        """Put it in place of the configuration that there is; see `_load_anew`."""
        running = self._running
        old = running.config
        ports = source_ports(new.loadbalancer.snat_ports)
        sources = make_sources(
            new, providers, on_change=running.core.wake, previous=running.sources
        )
        await running.core.in_turn(lambda: reinstall(running, old, new))
        ours = own_addresses(new)
        for source in sources:
            source.ours = ours
        leaving = [source for source in running.sources if source not in sources]
        running.config, running.sources = new, sources
        running.checker.leave_from(ports)
        running.core.sources = tuple(sources)
        services = [each.service for each in new.services]
        # Handed over before any turn that knows the new sources can be.
        self._changes.clear()
        await running.core.in_turn(lambda: running.core.llb.serve(services))
        await start_together(sources)  # An answer brings a turn about, which may have it all.
        failure = "" if await running.core.turn() else running.core.complaint
        if not failure:
            try:
                await running.core.in_turn(lambda: running.datapath.prepare_host(new.vips))
            except LLBError as error:  # What is new is in force: it is too late to refuse it.
                log.warning("addresses that are not wanted any more stay until a reload: %s", error)
        await asyncio.to_thread(close_together, leaving, 1.0)
        complaints = tuple(told for source in sources if (told := source.complaint()))
        if failure:
            text = (
                f"{new.path}: taken over, but not carried out yet: {failure}: it is tried again; "
                "addresses that are not wanted any more stay until the next reload"
            )
            raise NotCarriedOut("\n".join([text, *complaints]))
        return Outcome(changed_settings(old, new), tuple(self._changes), complaints)


def _refuse_what_needs_a_restart(old: Config, new: Config) -> None:
    for key in ("name", "max_connections"):
        is_now = getattr(old.loadbalancer, key)
        if getattr(new.loadbalancer, key) != is_now:
            raise ConfigurationError(
                f"{new.path}: loadbalancer.{key}: can't be changed by a reload: set it back to "
                f"{is_now}, or stop the daemon, llb detach, and start it again"
            )
    for key in ("socket_owner", "socket_group"):
        if getattr(new.api, key) != getattr(old.api, key):
            raise ConfigurationError(
                f"{new.path}: api.{key}: can't be changed by a reload: restart the daemon"
            )
