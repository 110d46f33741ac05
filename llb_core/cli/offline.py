"""What can be said without a daemon: read from the pinned maps, and never written to them."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from llb_core.api.drops import drop_views
from llb_core.api.service_views import service_views
from llb_core.api.views import (
    Observed,
    ObservedFamily,
    backend_views,
    verdict_views,
)
from llb_core.balancer import LoadBalancer
from llb_core.config import Config
from llb_core.core_loop import register
from llb_core.datapath import Datapath, is_installed
from llb_core.health.state import Health, HealthState
from llb_core.model import Endpoint, Installed
from llb_core.orders import Orders
from llb_core.plugins import load_providers
from llb_core.preview import ReadOnly, answered, installed_backends, registered_backends
from llb_core.run_folder import RunFolder


def backends(config: Config) -> dict[str, Any]:
    """Return the backends that are installed."""
    return {"source": "maps", "backends": backend_views(_observe(config))}


def status(config: Config) -> dict[str, Any]:
    """Return what is installed, and what the classifier has counted."""
    observed = _observe(config)
    return {
        "source": "maps",
        "name": config.loadbalancer.name,
        "services": service_views(observed),
        "verdicts": verdict_views(observed),
    }


def drops(config: Config) -> dict[str, Any]:
    """Return which packets were dropped, and why."""
    with closing(Datapath.open_reading(config.loadbalancer)) as datapath:
        families = [
            (number, family.maps, installed, family.counters(installed))
            for number, family in datapath.families.items()
            for installed in (family.installed(with_tables=False),)
        ]
        return {"source": "maps", "drops": drop_views(families)}


def plan(config: Config) -> dict[str, Any]:
    """Ask the providers, and return what a daemon would change that is started now.

    Backends that are not installed yet are taken for healthy.
    """
    settings = config.loadbalancer
    is_new = not is_installed(settings.name)
    datapath = Datapath(settings) if is_new else Datapath.open_reading(settings)
    try:
        installed = dict.fromkeys(config.families, Installed())
        installed |= {number: family.installed() for number, family in datapath.families.items()}
        complaints: list[str] = []
        with answered(config, load_providers(config), complain=complaints.append) as sources:
            folder = RunFolder(settings.name)
            orders = Orders(folder.orders, before=folder.old_orders)
            newcomers = registered_backends(sources) - installed_backends(installed.values())
            health: dict[str, dict[Endpoint, HealthState]] = {}
            for service, endpoint in newcomers:
                health.setdefault(service, {})[endpoint] = HealthState(Health.HEALTHY)
            llb = LoadBalancer(
                {number: ReadOnly(each) for number, each in installed.items()},
                [each.service for each in config.services],
                health=lambda: health,
                orders=lambda: orders.standing,
                routes=datapath.routes,
            )
            register(sources, llb)
            changes = list(llb.plan().lines)
            return {"source": "maps", "changes": changes, "complaints": complaints}
    finally:
        datapath.close()


def _observe(config: Config) -> Observed:
    datapath = Datapath.open_reading(config.loadbalancer)
    try:
        families = datapath.families.values()
        return Observed(
            [ObservedFamily(each.number, each.installed(), each.counters()) for each in families]
        )
    finally:
        datapath.close()
