"""Judge a backend's health from the results of its checks. Pure: no I/O, no clock.

A backend of which nothing is known yet is healthy after its first success, so that a new one is
not kept waiting, and unhealthy after `fall` failures, so that one lost packet after a restart of
the daemon takes nobody out. After that, `rise` successes or `fall` failures in a row turn it.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Health(enum.StrEnum):
    """What the health checks say of a backend."""

    UNKNOWN = "unknown"
    """No check has come to a conclusion yet."""
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """How one check ended; `reason` says why it failed, and is empty where it did not."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True)
class HealthState:
    """The health of one backend, and how far it is from changing.

    `since` is when `status` last changed (on the caller's clock, in seconds); `reason` is that of
    the newest failure while there is one that counts.
    """

    status: Health = Health.UNKNOWN
    reason: str = ""
    since: float = 0.0
    successes: int = 0
    """In a row, up to the newest result."""
    failures: int = 0
    """In a row, up to the newest result."""

    @property
    def is_in_question(self) -> bool:
        """Whether the newest result speaks against `status`, or nothing is known yet."""
        if self.status is Health.HEALTHY:
            return self.failures > 0
        if self.status is Health.UNHEALTHY:
            return self.successes > 0
        return True


def is_settled(state: HealthState, rise: int) -> bool:
    """Say whether one more success changes nothing."""
    is_healthy = state.status is Health.HEALTHY
    return is_healthy and state.successes == rise and not state.reason


def observe(
    state: HealthState, result: CheckResult, *, rise: int, fall: int, now: float
) -> HealthState:
    """Return the state after one more result; `rise` and `fall` are results in a row, from 1."""
    if result.ok and is_settled(state, rise):
        return state
    successes = min(state.successes + 1, rise) if result.ok else 0
    failures = 0 if result.ok else min(state.failures + 1, fall)
    needed = 1 if state.status is Health.UNKNOWN else rise
    status = state.status
    if successes >= needed:
        status = Health.HEALTHY
    elif failures >= fall:
        status = Health.UNHEALTHY
    reason = result.reason
    if result.ok and status is Health.UNHEALTHY:
        reason = state.reason
    since = state.since if status is state.status else now
    return HealthState(status, reason, since, successes, failures)
