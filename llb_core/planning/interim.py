"""Make do with a table until the consistent one is filled. Pure.

A large table takes a while to fill; what has changed must not wait for it. So places of those who
left go to those who stay or are new, at once, and all other places stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llb_core.model import Table
from llb_core.planning.maglev import shares

FIRST_SIZE = 131_071
"""Places of an interim table where there was none, at most."""


def interim_table(old: Table, backends: Sequence[tuple[int, int]], size: int) -> Table:
    """Return a table for `backends`: slots with positive weights, at least one, each slot once.

    It has the size of the old one; where there was none, `size` places or FIRST_SIZE.
    """
    slots = np.array([slot for slot, _ in backends], dtype=np.uint32)
    weights = np.array([weight for _, weight in backends], dtype=np.int64)
    if not old.size:
        return np.repeat(slots, shares(weights, min(size, FIRST_SIZE)))
    last = max(int(old.max()), int(slots.max()))
    is_active = np.zeros(last + 1, dtype=bool)
    is_active[slots] = True
    left = np.flatnonzero(~is_active[old])
    kept = np.bincount(old, minlength=last + 1)[slots]
    missing = np.maximum(shares(weights, old.size) - kept, 0)
    takers = np.repeat(slots, missing)
    table = old.copy()
    table[left] = takers[np.arange(left.size) * takers.size // max(left.size, 1)]
    return table
