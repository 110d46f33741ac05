"""What a configuration would change, before it is taken over; nothing is, and nothing is written.

Providers that it names anew are asked once, and those that can't answer are complained of; backends
that are not installed yet count as healthy.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import fields

from llb_core.balancer import LoadBalancer
from llb_core.config import Config
from llb_core.core_loop import register
from llb_core.health.state import Health, HealthState
from llb_core.model import Endpoint, Installed
from llb_core.planning.changes import Plan
from llb_core.plugins import Loaded
from llb_core.running import Running
from llb_core.source import Source
from llb_core.sources import make_sources

GATHER_LIMIT = 10.0
"""Seconds that providers have to answer."""


class ReadOnly:
    """What is installed, for plans that are only shown."""

    def __init__(self, installed: Installed) -> None:
        self._installed = installed

    def installed(self) -> Installed:
        """Return what is installed."""
        return self._installed

    def apply(self, plan: Plan) -> None:
        """Refuse: what is only shown is never carried out."""
        raise AssertionError(f"only shown, never carried out: {plan}")


def changed_settings(old: Config, new: Config) -> tuple[str, ...]:
    """Return a line for each setting that is another now, but for those that changes of the maps
    show."""
    lines = []
    for field in fields(new.loadbalancer):
        before, after = (getattr(each.loadbalancer, field.name) for each in (old, new))
        if before != after:
            lines.append(f"loadbalancer.{field.name}: {_written(before)} becomes {_written(after)}")
    if old.api.listen != new.api.listen:
        before, after = old.api.listen or "nowhere", new.api.listen or "nowhere"
        lines.append(f"api.listen: {before} becomes {after}")
    known = {each.service.name: each for each in old.services}
    for service in new.services:
        name = service.service.name
        was = known.get(name, service)
        lines += [
            f"services.{name}.{field.name}: another than before"  # A provider's may have a secret.
            for field in fields(service)
            if field.name != "service" and getattr(was, field.name) != getattr(service, field.name)
        ]
    return tuple(lines)


def planned_changes(
    running: Running, new: Config, providers: Loaded, complain: Callable[[str], None]
) -> tuple[str, ...]:
    """Return the changes to the maps that taking the configuration over would make. Blocks."""
    installed = dict.fromkeys(new.families, Installed())
    installed |= {number: each.installed() for number, each in running.map_syncs.items()}
    known = running.checker.states
    with answered(new, providers, previous=running.sources, complain=complain) as sources:
        healthy = HealthState(Health.HEALTHY)
        newcomers = registered_backends(sources) - installed_backends(installed.values())
        health = {service: dict(of) for service, of in known.items()}
        for service, endpoint in newcomers:
            health.setdefault(service, {}).setdefault(endpoint, healthy)
        llb = LoadBalancer(
            {number: ReadOnly(each) for number, each in installed.items()},
            [each.service for each in new.services],
            health=lambda: health,
            orders=lambda: running.orders.standing,
            routes=running.datapath.routes,
        )
        register(sources, llb)
        return tuple(llb.plan().lines)


def registered_backends(sources: Iterable[Source]) -> set[tuple[str, Endpoint]]:
    """Return what the sources name, by service."""
    return {
        (source.service, backend.endpoint)
        for source in sources
        if source.is_ready
        for backend in source.gather_backends()
    }


def installed_backends(families: Iterable[Installed]) -> set[tuple[str, Endpoint]]:
    """Return what is installed in all address families, by service."""
    return {
        (service.name, backend.endpoint)
        for installed in families
        for backend in installed.backends.values()
        if (service := installed.services.get(backend.service_slot)) is not None
    }


@contextmanager
def answered(
    config: Config,
    providers: Loaded,
    *,
    complain: Callable[[str], None],
    previous: Iterable[Source] = (),
) -> Iterator[list[Source]]:
    """Ask every provider once that is not among `previous`, and complain of all that can't answer;
    those that were asked here are closed afterwards."""
    known = list(previous)
    changed = threading.Event()
    sources = make_sources(config, providers, on_change=changed.set, previous=known)
    asked = [source for source in sources if source not in known]
    try:
        for source in asked:
            source.start()
        until = time.monotonic() + GATHER_LIMIT
        while any(not (each.is_ready or each.error) for each in asked):
            if time.monotonic() > until:
                break
            changed.wait(0.05)  # A provider that fails changes nothing: look again soon.
            changed.clear()
        late = f"no answer within {GATHER_LIMIT:g} s"
        for source in sources:
            told = source.complaint(if_silent=late) if source in asked else source.complaint()
            if told:
                complain(told)
        yield sources
    finally:
        for source in asked:
            source.close(timeout=0)


def _written(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value)
