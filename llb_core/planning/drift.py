"""Say by how much counts of connections are off from what the tables hold. Pure.

The classifier counts up and down as connections come and go, on all CPUs at once, and now and then
takes one off twice. The tables are the truth, but they are read over some time in which connections
go on coming and going. So what two passes in a row find wrong is put right, and no more than both
agree on: what comes and goes under a pass is different in the next.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Counts = npt.NDArray[np.int64]


class Drift:
    """What is left of the last pass, for counts in `slots` places."""

    def __init__(self, slots: int) -> None:
        self._last: Counts = np.zeros(slots, dtype=np.int64)

    def correct(self, before: Counts, after: Counts, truth: Counts) -> Counts:
        """Return what to add to each count, read `before` the pass and `after` it.

        A truth between the two readings is none that is known to be wrong.
        """
        if not self._last.any() and np.array_equal(before, after) and np.array_equal(after, truth):
            return self._last  # Zeros: nothing is off, as usual.
        off = truth - np.clip(truth, np.minimum(before, after), np.maximum(before, after))
        by: Counts = np.where(
            np.sign(off) == np.sign(self._last),
            np.sign(off) * np.minimum(np.abs(off), np.abs(self._last)),
            0,
        )
        self._last = off - by
        return by


def agreed(one: int, other: int) -> int:
    """Return what two passes agree that a count is short of."""
    if one > 0:
        return max(min(one, other), 0)
    return min(max(one, other), 0)
