"""What the daemon does again and again beside its turns: collecting connections that are over,
keeping rates. Nothing that goes wrong here ends it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial

from llb_core import heap, init_system, samples
from llb_core.datapath.host_ports import ports_in_use
from llb_core.datapath.layout import records
from llb_core.datapath.resets import send_resets
from llb_core.drains import PAUSE as DRAINS_PAUSE
from llb_core.drains import Drains
from llb_core.errors import LLBError
from llb_core.pauses import until_together
from llb_core.room import RELAXED, shortages
from llb_core.running import Running

log = logging.getLogger(__name__)

COLLECT_PAUSE = 1.0
"""Seconds from one pass over the connections to the next."""
HOST_PORTS_PAUSE = 2.0
"""Seconds from one look at the ports that the host uses itself to the next."""
MEMORY_PAUSE = 15.0
"""Seconds from one time that memory is given back to the next."""
COLLECT_SHARE = 0.05
"""How much of the time the passes may take: in large tables they are further apart."""


async def collect_again_and_again(running: Running) -> None:
    """Remove connections that are over, and tell the balancer of slots that are free."""

    told: dict[int, dict[str, str]] = {}

    async def collect() -> None:
        for number, map_sync in list(running.map_syncs.items()):
            before = running.installs
            with running.meters.timed("collect"):
                collected = await asyncio.to_thread(map_sync.collect, _reset_idle(running))
                if len(collected.to_reset):
                    await asyncio.to_thread(send_resets, records(number), collected.to_reset)
            running.collected[number] = collected
            running.meters.collected.inc(collected.removed)
            running.meters.lone_halves.inc(collected.lone_halves)
            running.meters.past_connections.labels(f"ipv{number}").set(
                len(map_sync.past_connections)
            )
            _tell_shortages(running, number, told)
            if collected.idle_slots and running.installs == before:
                # Nothing was installed since they were counted: none is in use again.
                note = partial(running.core.llb.note_idle, collected.idle_slots, family=number)
                await running.core.in_turn(note)
                running.core.wake()

    def pause() -> float:
        seconds = sum(each.seconds for each in running.collected.values())
        return max(COLLECT_PAUSE, seconds / COLLECT_SHARE)

    await _repeat(collect, pause, "connections that are over can't be removed")


async def sample_again_and_again(running: Running) -> None:
    """Keep the rates of the last minutes."""

    def sample() -> None:
        counted = []
        for number, map_sync in running.map_syncs.items():
            installed = map_sync.installed()
            family = running.datapath.families[number]
            counted.append((installed, family.counters(installed, with_drops=False)))
        running.samples.add(time.monotonic(), counted)

    async def take() -> None:
        with running.meters.timed("sample"):
            await asyncio.to_thread(sample)

    await _repeat(take, lambda: samples.PAUSE, "the counters can't be read")


async def follow_host_ports(running: Running) -> None:
    """Give no connection a SNAT port that the host has begun to use itself, and let go of those
    that it uses no more. Connections that have one go on."""

    def follow() -> None:
        settings = running.config.loadbalancer
        for number, map_sync in running.map_syncs.items():
            if map_sync.put_host_ports(ports_in_use(settings.snat_of(number))):
                log.info("the host's own ports have changed: IPv%d connections keep clear", number)

    await _repeat(
        lambda: asyncio.to_thread(follow),
        lambda: HOST_PORTS_PAUSE,
        "the host's own ports can't be read",
    )


async def follow_drains_again_and_again(running: Running) -> None:
    """Say which drained backends have no connections left, and keep deadlines."""
    drains = Drains(running)
    await _repeat(
        drains.follow,
        lambda: DRAINS_PAUSE,
        "drained backends can't be followed",
    )


async def give_memory_back() -> None:
    """Keep the heap as small as what is in it."""
    await _repeat(
        lambda: asyncio.to_thread(heap.give_back),
        lambda: MEMORY_PAUSE,
        "free memory can't be given back",
    )


async def feed_watchdog(running: Running) -> None:
    """Tell the init system's watchdog that the daemon is alive, for as long as it is: this loop
    runs, and so do the turns. One that hangs is ended then, and a new one takes over."""
    limit = init_system.watchdog_seconds()
    while limit is not None:
        began = running.core.oldest_turn
        if began is None or time.monotonic() - began < limit / 2:
            init_system.tell("WATCHDOG=1")
        await asyncio.sleep(limit / 4)
    await asyncio.Event().wait()  # Nobody wants to hear it.


def _reset_idle(running: Running) -> set[str]:
    """Return the services whose idle connections are to be reset."""
    return {each.service.name for each in running.config.services if each.service.reset_idle}


def _tell_shortages(running: Running, family: int, told: dict[int, dict[str, str]]) -> None:
    """Tell once of room that runs out, and again when it does so anew."""
    collected = running.collected[family]
    look = partial(
        shortages,
        family,
        collected.connections,
        collected.by_backend,
        collected.refused,
        running.map_syncs[family].installed(),
        running.config.loadbalancer,
    )
    known = told.setdefault(family, {})
    still_short = {each.of for each in look(RELAXED)}
    for what in [what for what, of in known.items() if of not in still_short]:
        del known[what]
    for shortage in look():
        if shortage.what not in known:
            log.warning("%s", shortage.text)
            known[shortage.what] = shortage.of


async def _repeat(
    work: Callable[[], Awaitable[None]], pause: Callable[[], float], complaint: str
) -> None:
    """Do something for ever; tell of what goes wrong once, until it is something else."""
    told = ""
    while True:
        try:
            await work()
            told = ""
        except Exception as error:
            if told != str(error):
                is_ours = not isinstance(error, LLBError)
                log.error("%s: %s", complaint, error, exc_info=is_ours)
            told = str(error)
        await asyncio.sleep(until_together(pause()))
