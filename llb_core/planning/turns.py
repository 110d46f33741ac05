"""Fill a service's table for its scheduler: round robin's with the turns themselves. Pure.

What is not here: consistent tables, which all other schedulers draw places of (`maglev`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llb_core.model import Endpoint, Scheduler
from llb_core.planning.maglev import Owners, build_table, shares


def fill_table(backends: Sequence[tuple[Endpoint, int]], size: int, scheduler: Scheduler) -> Owners:
    """Return, for each of `size` places, the index of the backend that gets it.

    `backends` as for `build_table`.
    """
    build = build_turns if scheduler is Scheduler.ROUND_ROBIN else build_table
    return build(backends, size)


def build_turns(backends: Sequence[tuple[Endpoint, int]], size: int) -> Owners:
    """Return whose turn it is, `size` times: each as often as its weight says, evenly spread.

    The k-th turn of a backend of weight w comes at (k + 1/2) / w.
    """
    weights = np.array([weight for _, weight in backends], dtype=np.int64)
    quotas = shares(weights, size)
    owners = np.repeat(np.arange(len(backends), dtype=np.uint32), quotas)
    first = np.repeat(np.cumsum(quotas) - quotas, quotas)
    when = (np.arange(size) - first + 0.5) / weights[owners]
    return owners[np.lexsort((owners, when))]
