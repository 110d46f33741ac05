"""Wait for a condition, with a limit; no test sleeps for a time and hopes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


async def until(condition: Callable[[], object], *, limit: float = 60.0) -> float:
    """Return the seconds that it took for `condition` to hold; fail after `limit` seconds."""
    started = time.monotonic()
    while not condition():
        if (waited := time.monotonic() - started) > limit:
            raise AssertionError(f"not so after {waited:.1f} s")
        await asyncio.sleep(0.002)
    return time.monotonic() - started


def until_now(condition: Callable[[], object], *, limit: float = 60.0) -> float:
    """Do the same without an event loop."""
    started = time.monotonic()
    while not condition():
        if (waited := time.monotonic() - started) > limit:
            raise AssertionError(f"not so after {waited:.1f} s")
        time.sleep(0.002)
    return time.monotonic() - started
