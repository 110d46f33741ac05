"""The tables of services: remembered, and the large ones filled beside the loop.

What is not here: how a table is filled (`planning.maglev`), and what stands in for one that is not
filled yet (`planning.interim`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Executor, Future
from contextlib import contextmanager

from llb_core.model import Endpoint, Scheduler, ServiceKey
from llb_core.planning.maglev import Owners
from llb_core.planning.plan import TableBuilder
from llb_core.planning.turns import fill_table

log = logging.getLogger(__name__)

LARGEST_AT_ONCE = 131_071
"""Places up to which a turn fills a table itself: some 40 ms, for up to 1,310 backends."""


class _Key:
    """What a table is filled from. Its hash is worked out once: that of ten thousand backends
    takes some milliseconds."""

    __slots__ = ("_hash", "of")

    def __init__(
        self, backends: Sequence[tuple[Endpoint, int]], size: int, scheduler: Scheduler
    ) -> None:
        self.of = (tuple(backends), size, scheduler)
        self._hash = hash(self.of)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._hash == other._hash and self.of == other.of

    @property
    def size(self) -> int:
        """Places of the table."""
        return self.of[1]


class Tables:
    """The tables that services have: what else changes of a service mostly leaves its table alone.

    With `aside` tables of more than `LARGEST_AT_ONCE` places are filled there, one at a time; the
    builder returns None for them until they are, and `on_filled` is called, from there, when one
    is. Used by one thread at a time.
    """

    def __init__(
        self, aside: Executor | None = None, on_filled: Callable[[], None] = lambda: None
    ) -> None:
        self._aside = aside
        self._on_filled = on_filled
        self._known: dict[_Key, Owners] = {}
        self._wanted: dict[ServiceKey, _Key] = {}
        self._asked: dict[ServiceKey, _Key] = {}
        self._under_way: tuple[_Key, Future[Owners]] | None = None

    @property
    def missing(self) -> frozenset[ServiceKey]:
        """The services whose table was asked for in the last turn, and is not filled yet."""
        return frozenset(key for key, of in self._asked.items() if of not in self._known)

    @contextmanager
    def turn(self, keeping: AbstractSet[ServiceKey] = frozenset()) -> Iterator[TableBuilder]:
        """Yield a builder for one turn. Tables that aren't asked for are forgotten at its end, but
        those of the services in `keeping`, which are as they were and not planned."""
        self._begin()
        try:
            yield self._build
        finally:
            kept = {key: of for key, of in self._wanted.items() if key in keeping}
            self._end(kept | self._asked)

    def _begin(self) -> None:
        self._asked = {}
        if self._under_way and self._under_way[1].done():
            key, future = self._under_way
            self._under_way = None
            try:
                self._known[key] = future.result()
            except Exception:  # No memory, or a fault of ours: an interim table serves.
                log.exception("a table of %d places can't be filled, and is tried again", key.size)

    def _end(self, wanted: dict[ServiceKey, _Key]) -> None:
        self._wanted = wanted
        self._known = {of: self._known[of] for of in wanted.values() if of in self._known}
        missing = (of for of in self._asked.values() if of not in self._known)
        if self._aside and not self._under_way and (key := next(missing, None)):
            future = self._aside.submit(fill_table, *key.of)
            self._under_way = (key, future)
            future.add_done_callback(lambda _: self._on_filled())

    def _build(
        self,
        service: ServiceKey,
        backends: Sequence[tuple[Endpoint, int]],
        size: int,
        scheduler: Scheduler,
    ) -> Owners | None:
        if scheduler is not Scheduler.ROUND_ROBIN:
            scheduler = Scheduler.MAGLEV  # all that draw places draw them of one table
        key = self._asked[service] = _Key(backends, size, scheduler)
        table = self._known.get(key)
        is_slow = size > LARGEST_AT_ONCE and scheduler is not Scheduler.ROUND_ROBIN
        if table is None and not (self._aside and is_slow):
            table = self._known[key] = fill_table(*key.of)
        return table
