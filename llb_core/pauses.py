"""How long to wait until something is done again."""

from __future__ import annotations

import asyncio
import math


def until_together(pause: float) -> float:
    """Return the seconds until the next multiple of a pause that is at least half of it away, by
    the running event loop's clock.

    What is done again and again is then done together, and the process wakes less often: each time
    it finds its caches cold, and that is most of what it costs.
    """
    now = asyncio.get_running_loop().time()
    return math.ceil(now / pause + 0.5) * pause - now
