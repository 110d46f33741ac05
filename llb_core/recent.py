"""What has happened lately: the newest sentences and turns of health, for the page. Bounded."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from llb_core.logs import is_ours_or_serious

KEPT = 200


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened: `number` grows by one from each to the next, `at` is in seconds
    since 1970, `level` is `info`, `warning` or `error`."""

    number: int
    at: float
    level: str
    text: str


class RecentEvents:
    """The newest events, KEPT at most. From any thread."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=KEPT)
        self._numbers = itertools.count(1)

    def add(self, text: str, *, level: str = "info", at: float | None = None) -> None:
        """Note an event, now or at a time."""
        number = next(self._numbers)
        self._events.append(Event(number, time.time() if at is None else at, level, text))

    def newest(self, count: int = KEPT) -> list[Event]:
        """Return so many, the newest first."""
        return list(itertools.islice(reversed(list(self._events)), count))

    @contextmanager
    def hearing_logs(self) -> Iterator[None]:
        """Note what is logged meanwhile, too."""
        ear = _Ear(self)
        root = logging.getLogger()
        root.addHandler(ear)
        try:
            yield
        finally:
            root.removeHandler(ear)


class _Ear(logging.Handler):
    def __init__(self, events: RecentEvents) -> None:
        super().__init__(logging.INFO)
        self._events = events
        self.addFilter(is_ours_or_serious)

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelname.lower()
        self._events.add(record.getMessage(), level=level, at=record.created)
