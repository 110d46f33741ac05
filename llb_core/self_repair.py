"""See to it that what runs is what is wanted: somebody may delete a filter, take an address away,
write into a map. It is put right within a second or two, and said in one sentence. Neighbours are
told where an interface has another MAC address than they know.

What is looked at belongs to `datapath` and `map_sync`; when to look, and what to say, is here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from llb_core.datapath.announcing import Announcer
from llb_core.datapath.watch import Change, NetworkWatch
from llb_core.errors import HostError, LLBError
from llb_core.pauses import until_together
from llb_core.running import Running

log = logging.getLogger(__name__)

LOOK_PAUSE = 1.0
"""Seconds from one look at the maps to the next: they tell nobody of a change."""
HOST_PAUSE = 2.0
"""Seconds from one look at the host to the next where nothing is heard of a change: programs on TCX
and pins tell of none."""
BURST = 0.02
"""Seconds that a look waits for more to change: a network that restarts says a lot at once."""
TELL_PAUSE = 60.0
"""Seconds until the same thing is told again, where somebody undoes it over and over."""
ROUTES_PAUSE = 30.0
"""Seconds until routes are read anew though nothing was heard of a change, at least."""
ROUTES_SHARE = 0.002
"""How much of the time that may take: those to ten thousand backends are read less often."""
ROUTES_LIMIT = 300.0
"""Seconds until then at most."""


class SelfRepair:
    """Looks again and again, and at once where the kernel tells of a change."""

    def __init__(self, running: Running, clock: Callable[[], float] = time.monotonic) -> None:
        self._running = running
        self._heard = asyncio.Event()
        self._routes_heard = asyncio.Event()
        self._teller = Teller(clock)
        self._announcer = Announcer(clock)
        self._clock = clock
        self._host_seen = float("-inf")

    async def run(self) -> None:
        """Look until cancelled. Nothing that goes wrong ends it."""
        loop = asyncio.get_running_loop()
        with NetworkWatch() as watch:
            self._announce()  # As interfaces are now, their neighbours know them.
            loop.add_reader(watch.fileno(), self._hear, watch)
            try:
                await asyncio.gather(self._look_again_and_again(), self._follow_routes())
            finally:
                loop.remove_reader(watch.fileno())

    def _hear(self, watch: NetworkWatch) -> None:
        changed = watch.read()
        if Change.HOST in changed:
            self._heard.set()
        if Change.ROUTES in changed:
            self._routes_heard.set()

    async def _look_again_and_again(self) -> None:
        while True:
            if await _wait(self._heard, until_together(LOOK_PAUSE)):
                self._host_seen = float("-inf")
            await self._running.core.in_turn(self._look)

    def _look(self) -> None:
        """Look, put right, and tell; in the thread of the turns, so between two of them."""
        self._put_right()
        self._announce()
        self._teller.tell_suppressed()

    def _put_right(self) -> None:
        running = self._running
        done: list[str] = []
        missing: list[str] = []
        try:
            if self._clock() - self._host_seen >= HOST_PAUSE:
                self._host_seen = self._clock()
                done, missing = repair_host(running)
            for number, map_sync in list(running.map_syncs.items()):
                done += [f"wrote {each} of IPv{number} anew" for each in map_sync.repair()]
        except Exception as error:  # noqa: BLE001 - the next look is in a second
            is_ours = not isinstance(error, LLBError)
            self._teller.tell(f"what is installed can't be put right: {error}", traceback=is_ours)
            return
        for each in done:
            self._teller.tell(f"somebody changed what LLB has installed: {each}")
        for each in missing:
            self._teller.tell(f"what somebody changed can't be put right: {each}")

    def _announce(self) -> None:
        """Tell neighbours of an interface that has another MAC address, as often as is due."""
        running = self._running
        try:
            for said in self._announcer.look(running.datapath.settings, running.config.vips):
                self._teller.tell(said)
        except Exception as error:  # noqa: BLE001 - the next look is in a second
            is_ours = not isinstance(error, LLBError)
            self._teller.tell(f"neighbours can't be told: {error}", traceback=is_ours)

    async def _follow_routes(self) -> None:
        """Keep the next hops of backends true."""
        running, took = self._running, 0.0
        while True:
            pause = min(max(ROUTES_PAUSE, took / ROUTES_SHARE), ROUTES_LIMIT)
            await _wait(self._routes_heard, pause)
            began = self._clock()
            try:
                with running.meters.timed("routes"):
                    is_changed = await asyncio.to_thread(running.routes.refresh)
            except Exception as error:  # noqa: BLE001 - also a fault of ours
                took = 0.0
                is_ours = not isinstance(error, LLBError)
                self._teller.tell(
                    f"the routes to backends can't be read: {error}", traceback=is_ours
                )
            else:
                took = self._clock() - began
                if is_changed:
                    running.core.wake()


def repair_host(running: Running) -> tuple[list[str], list[str]]:
    """Put right what is not as it ought to be beside the maps of services and backends; return what
    was done and what can't be, a phrase each. In the thread of the turns."""
    datapath = running.datapath
    settings = datapath.settings
    try:
        done, missing = datapath.repair(running.config.vips)
        if missing:
            return done, missing
        index = datapath.private_index()
    except HostError as error:
        return [], [str(error)]
    for number, map_sync in running.map_syncs.items():
        is_served = settings.cidrs_of(number) and settings.snat_of(number)
        if is_served and map_sync.put_settings(settings, index):
            done.append(f"wrote the settings of IPv{number} anew")
    return done, missing


class Teller:
    """Says each thing at once, and over again once a minute at most, with how often it was."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._told: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def tell(self, text: str, *, traceback: bool = False) -> None:
        """Say it, unless it was said within the last minute: then count it."""
        if text in self._told:
            self._suppressed[text] = self._suppressed.get(text, 0) + 1
            return
        self._told[text] = self._clock()
        log.warning("%s", text, exc_info=traceback)

    def tell_suppressed(self) -> None:
        """Say how often what was said a minute ago has been since."""
        now = self._clock()
        for text in [text for text, at in self._told.items() if now - at >= TELL_PAUSE]:
            count = self._suppressed.pop(text, 0)
            if count:
                log.warning("%s (%d times in the last minute)", text, count)
                self._told[text] = now
            else:
                del self._told[text]


async def _wait(event: asyncio.Event, limit: float) -> bool:
    """Wait for an event, and a moment more, or until the limit; clear the event, and say whether
    it was there."""
    try:
        async with asyncio.timeout(limit):  # wait_for makes a task of what it waits for.
            await event.wait()
    except TimeoutError:
        return False
    await asyncio.sleep(BURST)
    event.clear()
    return True
