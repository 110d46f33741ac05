"""From what AWS says of a target or an instance to what LLB does with it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping

from llb_core import Backend, Endpoint


class Treatment(enum.StrEnum):
    """What is done with a backend that is in some state, by the word in the configuration."""

    HEALTHY = "healthy"
    """AWS takes it for healthy; LLB's own checks, where there are any, must agree."""
    CHECK = "check"
    """AWS doesn't say: LLB's own checks decide alone."""
    UNHEALTHY = "unhealthy"
    """It is unhealthy, whatever LLB's own checks say."""
    DRAIN = "drain"
    """It keeps its connections and gets no new ones."""
    OMIT = "omit"
    """It is no backend."""


STOPPED = "Target.InvalidState"
"""Why a target is unused whose instance is stopped or terminated."""

_MEMBERS = {
    "InService": Treatment.CHECK,
    "EnteringStandby": Treatment.DRAIN,
    "Standby": Treatment.DRAIN,
    "Detaching": Treatment.DRAIN,
    "Terminating": Treatment.DRAIN,
    "ReplacingRootVolume": Treatment.DRAIN,
}


def of_target(state: str, reason: str, configured: Mapping[str, Treatment]) -> Treatment:
    """Return what to do with a target, by its state in the target group.

    One that is stopped or terminated is no backend, whatever is configured for `unused`. A state
    that isn't configured, since AWS has it from tomorrow on, is left to LLB's own checks.
    """
    if reason == STOPPED:
        return Treatment.OMIT
    return configured.get(state, Treatment.CHECK)


def of_member(lifecycle: str, *, is_healthy: bool) -> Treatment:
    """Return what to do with an instance of an Auto Scaling group, by its lifecycle state.

    `Terminating:Wait` is as `Terminating`. One that is not yet, or no longer, in service
    (`Pending`, `Warmed:Stopped`, `Detached`) is no backend.
    """
    treatment = _MEMBERS.get(lifecycle.partition(":")[0], Treatment.OMIT)
    if treatment is Treatment.CHECK and not is_healthy:
        return Treatment.UNHEALTHY
    return treatment


def of_instance(state: str) -> Treatment:
    """Return what to do with an instance that is found by its tags, by its state in EC2."""
    if state == "running":
        return Treatment.CHECK
    return Treatment.DRAIN if state in ("stopping", "shutting-down") else Treatment.OMIT


def make_backend(endpoint: Endpoint, treatment: Treatment, entry: str) -> Backend:
    """Return the backend; `treatment` is not OMIT, `entry` names it in errors."""
    healthy = {Treatment.HEALTHY: True, Treatment.UNHEALTHY: False}.get(treatment)
    return Backend(endpoint, draining=treatment is Treatment.DRAIN, healthy=healthy, entry=entry)


def one_each(backends: Iterable[Backend]) -> list[Backend]:
    """Return one backend for each endpoint: of two, the one that takes more traffic.

    There are two where an instance has been given the address of one that has just gone, and is
    still listed.
    """
    best: dict[Endpoint, Backend] = {}
    for backend in backends:
        known = best.get(backend.endpoint)
        if known is None or _readiness(backend) > _readiness(known):
            best[backend.endpoint] = backend
    return list(best.values())


def _readiness(backend: Backend) -> int:
    if backend.healthy is False:
        return 0
    if backend.draining:
        return 1
    return 3 if backend.healthy else 2
