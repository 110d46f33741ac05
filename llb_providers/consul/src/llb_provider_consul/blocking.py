"""The rules of Consul's blocking queries, from its documentation. Pure.

https://developer.hashicorp.com/consul/api-docs/features/blocking#implementation-details
"""

from __future__ import annotations

_JITTER = 16 / 17
"""Consul adds up to a sixteenth to the time that it is asked to wait."""


def next_index(sent: int, returned: int) -> int:
    """Return the index to wait for next; 0 means: don't wait, begin anew.

    `sent` is what was waited for, 0 where nothing was. An index that goes backwards would miss
    changes, or never block; one below 1 would never block.
    """
    if returned < sent:
        return 0
    return max(returned, 1)


def longest_wait(limit: float, reserve: float) -> str | None:
    """Return for how long to ask Consul to wait so that its answer is here within `limit` seconds.

    `reserve` seconds, though no more than half, are left for the way there and back. None where
    too little is left to be worth a wait.
    """
    milliseconds = int((limit - min(reserve, limit / 2)) * _JITTER * 1000)
    return f"{milliseconds}ms" if milliseconds >= 250 else None


class Pace:
    """How fast to ask again: at once in ordinary times, `per_second` where something changes
    without end. A token bucket that holds `burst`."""

    def __init__(self, burst: float = 20.0, per_second: float = 5.0) -> None:
        self._burst, self._per_second = burst, per_second
        self._left = burst
        self._at: float | None = None

    def delay(self, now: float) -> float:
        """Return the seconds to wait before the next query, and count it."""
        if self._at is not None:
            self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
        self._left -= 1.0
        return max(0.0, -self._left / self._per_second)
