"""What can be said without a daemon: read from the pinned maps, and never written to them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from llb_core.api.views import Observed, backend_views, service_views
from llb_core.balancer import LoadBalancer
from llb_core.cli import show
from llb_core.config import Config
from llb_core.core_loop import register
from llb_core.datapath import Datapath, is_installed
from llb_core.datapath.installed import read_installed
from llb_core.health.state import Health, HealthState
from llb_core.model import Endpoint, Installed
from llb_core.orders import Orders
from llb_core.planning.plan import Plan
from llb_core.run_folder import RunFolder
from llb_core.source import Source
from llb_core.sources import make_sources

GATHER_LIMIT = 10.0
"""Seconds that providers have to answer."""


def backends(config: Config) -> dict[str, Any]:
    """Return the backends that are installed."""
    return {"source": "maps", "backends": backend_views(_observe(config))}


def status(config: Config) -> dict[str, Any]:
    """Return what is installed, and what the classifier has counted."""
    observed = _observe(config)
    return {
        "source": "maps",
        "name": config.loadbalancer.name,
        "services": service_views(observed, backend_views(observed)),
        "verdicts": dict(observed.counters.verdicts),
    }


def plan(config: Config) -> dict[str, Any]:
    """Ask the providers, and return what a daemon would change that is started now.

    Backends that are not installed yet are taken for healthy.
    """
    name = config.loadbalancer.name
    is_new = not is_installed(name)
    datapath = Datapath(config.loadbalancer, {}) if is_new else Datapath.open_reading(config)
    try:
        installed = Installed() if is_new else read_installed(datapath.maps)
        with _answered(config) as sources:
            orders = Orders(RunFolder(name).orders)
            newcomers = _registered(sources) - _installed(installed)
            llb = LoadBalancer(
                _ReadOnly(installed),
                [each.service for each in config.services],
                health=lambda: dict.fromkeys(newcomers, HealthState(Health.HEALTHY)),
                orders=lambda: orders.drained,
                routes=datapath.routes,
            )
            register(sources, llb)
            return {"source": "maps", "changes": [str(change) for change in llb.plan()]}
    finally:
        datapath.close()


class _ReadOnly:
    """What is installed, for plans that are only shown."""

    def __init__(self, installed: Installed) -> None:
        self._installed = installed

    def installed(self) -> Installed:
        return self._installed

    def apply(self, plan: Plan) -> None:
        raise AssertionError(f"only shown, never carried out: {plan}")


def _observe(config: Config) -> Observed:
    datapath = Datapath.open_reading(config)
    try:
        return Observed(read_installed(datapath.maps), datapath.counters())
    finally:
        datapath.close()


def _registered(sources: list[Source]) -> set[tuple[str, Endpoint]]:
    return {
        (source.service, backend.endpoint)
        for source in sources
        if source.is_ready
        for backend in source.gather_backends()
    }


def _installed(installed: Installed) -> set[tuple[str, Endpoint]]:
    return {
        (service.name, backend.endpoint)
        for backend in installed.backends.values()
        if (service := installed.services.get(backend.service_slot)) is not None
    }


@contextmanager
def _answered(config: Config) -> Iterator[list[Source]]:
    """Ask every provider once, and tell of those that don't answer."""
    changed = threading.Event()
    sources = make_sources(config, on_change=changed.set)
    try:
        for source in sources:
            source.start()
        until = time.monotonic() + GATHER_LIMIT
        while any(not (each.is_ready or each.error) for each in sources):
            if time.monotonic() > until:
                break
            changed.wait(0.05)  # A provider that fails changes nothing: look again soon.
            changed.clear()
        for source in sources:
            if source.error or not source.is_ready:
                why = source.error or f"no answer within {GATHER_LIMIT:g} s"
                show.remark(f"{source.service}: provider {source.provider}: {why}")
        yield sources
    finally:
        for source in sources:
            source.close(timeout=0)
