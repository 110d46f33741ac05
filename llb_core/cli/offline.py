"""What can be said without a daemon: read from the pinned maps, and never written to them."""

from __future__ import annotations

from typing import Any

from llb_core.api.views import Observed, backend_views, service_views
from llb_core.balancer import LoadBalancer
from llb_core.cli import show
from llb_core.config import Config
from llb_core.core_loop import register
from llb_core.datapath import Datapath, is_installed
from llb_core.datapath.installed import read_installed
from llb_core.health.state import Health, HealthState
from llb_core.model import Installed
from llb_core.orders import Orders
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
        with answered(config, complain=show.remark) as sources:
            folder = RunFolder(name)
            orders = Orders(folder.orders, before=folder.old_orders)
            newcomers = registered_backends(sources) - installed_backends(installed)
            llb = LoadBalancer(
                ReadOnly(installed),
                [each.service for each in config.services],
                health=lambda: dict.fromkeys(newcomers, HealthState(Health.HEALTHY)),
                orders=lambda: orders.standing,
                routes=datapath.routes,
            )
            register(sources, llb)
            return {"source": "maps", "changes": [str(change) for change in llb.plan()]}
    finally:
        datapath.close()


def _observe(config: Config) -> Observed:
    datapath = Datapath.open_reading(config)
    try:
        return Observed(read_installed(datapath.maps), datapath.counters())
    finally:
        datapath.close()
