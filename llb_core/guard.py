"""Hold a sudden loss of most backends back for a while. Pure: the clock is an argument.

A registry that restarts empty takes a service off the network faster than anybody can look. So an
answer that loses too many backends at once counts only after it has been repeated for a time; one
that was meant so is late by that time, no more. Repeated is: every backend that would go has been
missing from each answer, and none of the questions has failed. Before the first answer there is
nothing to lose: what an earlier daemon installed does not count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from llb_core.model import Backend, Endpoint


@dataclass(frozen=True, slots=True)
class Guard:
    """When to hold back: an answer that loses more than the share `loss` (0 to 1) of at least
    `backends` backends, for `hold` seconds. A loss of 1 holds nothing back."""

    loss: float = 0.5
    hold: float = 10.0
    backends: int = 10

    def is_sudden_loss(self, before: Sequence[Backend], after: Sequence[Backend]) -> bool:
        """Say whether too many of the backends before are not there after."""
        if len(before) < self.backends:
            return False
        return len(lost(before, after)) > self.loss * len(before)


def lost(before: Sequence[Backend], after: Sequence[Backend]) -> frozenset[Endpoint]:
    """Return the backends before that are not there after."""
    return frozenset(each.endpoint for each in before) - {each.endpoint for each in after}
