"""What the classifier tells of connections, of every address family that is open: for the hub."""

from __future__ import annotations

from collections.abc import Collection

from llb_core.datapath.events import Event, describe
from llb_core.datapath.layout import EVENT_BYTES, EventKind, records
from llb_core.datapath.ring import RingReader
from llb_core.running import Running

WANTED_FOR = 2.0
"""Seconds that the classifier goes on telling when nobody says any more that somebody listens."""
_AT_ONCE = 4_096


class ConnectionEvents:
    """Reads the rings. In one thread at a time."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._rings: dict[int, RingReader] = {}
        self._lost: dict[int, int] = {}

    def listen(self, kinds: Collection[str]) -> None:
        """Have the classifier tell of these kinds for a while from now; MapError where it can't."""
        wanted = EventKind(0)
        for kind in kinds:
            wanted |= EventKind[kind.upper()]
        for number, map_sync in list(self._running.map_syncs.items()):
            if number not in self._rings:
                maps = self._running.datapath.families[number].maps
                ring = RingReader(maps["events"].fd, EVENT_BYTES, records(number).event)
                ring.skip()  # what is in it was meant for somebody else, long ago
                self._rings[number] = ring
                self._lost[number] = self._count_lost(number)
            map_sync.listen(wanted, WANTED_FOR)

    def read(self) -> tuple[list[Event], int]:
        """Return what was told since, and how much could not be told."""
        events: list[Event] = []
        lost = 0
        for number, ring in self._rings.items():
            told = ring.read(_AT_ONCE)
            map_sync = self._running.map_syncs[number]
            ticks = self._running.datapath.families[number].ticks_per_second
            events += describe(records(number), told, map_sync.installed(), ticks)
            count = self._count_lost(number)
            lost += count - self._lost[number]
            self._lost[number] = count
        return events, lost

    def close(self) -> None:
        """Let go of the rings."""
        for ring in self._rings.values():
            ring.close()
        self._rings.clear()

    def _count_lost(self, number: int) -> int:
        record = self._running.datapath.families[number].maps["listening"].lookup(0)
        return int(record["lost"]) if record is not None else 0
