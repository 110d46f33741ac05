"""The tables of services: remembered, and the large ones filled beside the loop.

What is not here: how a table is filled (`planning.maglev`), and what stands in for one that is not
filled yet (`planning.interim`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future

from llb_core.model import Endpoint, Scheduler
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
    """Tables that were filled for the turn before: most services don't change from one to the next.

    As a context it yields a builder for one turn, and forgets afterwards what was not asked for.
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
        self._used: dict[_Key, Owners] = {}
        self._missing: list[_Key] = []
        self._under_way: tuple[_Key, Future[Owners]] | None = None

    @property
    def are_complete(self) -> bool:
        """Whether the last turn got every table that it asked for."""
        return not self._missing

    def __enter__(self) -> TableBuilder:
        self._used, self._missing = {}, []
        if self._under_way and self._under_way[1].done():
            key, future = self._under_way
            self._under_way = None
            try:
                self._known[key] = future.result()
            except Exception:  # No memory, or a fault of ours: an interim table serves.
                log.exception("a table of %d places can't be filled, and is tried again", key.size)
        return self._build

    def __exit__(self, *_: object) -> None:
        self._known = self._used
        if self._aside and self._missing and not self._under_way:
            key = self._missing[0]
            future = self._aside.submit(fill_table, *key.of)
            self._under_way = (key, future)
            future.add_done_callback(lambda _: self._on_filled())

    def _build(
        self, backends: Sequence[tuple[Endpoint, int]], size: int, scheduler: Scheduler
    ) -> Owners | None:
        if scheduler is not Scheduler.ROUND_ROBIN:
            scheduler = Scheduler.MAGLEV  # all that draw places draw them of one table
        key = _Key(backends, size, scheduler)
        table = self._used.get(key)
        if table is None:
            table = self._known.get(key)
        is_slow = size > LARGEST_AT_ONCE and scheduler is not Scheduler.ROUND_ROBIN
        if table is None and self._aside and is_slow:
            self._missing.append(key)
            return None
        if table is None:
            table = fill_table(*key.of)
        self._used[key] = table
        return table
