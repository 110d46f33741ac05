"""Make up what a daemon with many services and backends would see."""

from __future__ import annotations

import ipaddress
from typing import Any

from llb_core.api.service_views import service_views
from llb_core.api.views import (
    Observed,
    ObservedFamily,
    verdict_views,
)
from llb_core.datapath.layout import Verdict
from llb_core.datapath.reading import Counters, Traffic
from llb_core.health.state import Health, HealthState
from llb_core.model import (
    BackendMode,
    Endpoint,
    Installed,
    InstalledBackend,
    InstalledService,
    ServiceKey,
    Timeouts,
    Transport,
)
from llb_core.report import BackendStatus, ServiceStatus

FIRST_BACKEND = {4: ipaddress.ip_address("10.0.0.1"), 6: ipaddress.ip_address("fd00::1")}
FIRST_VIP = {4: ipaddress.ip_address("203.0.113.1"), 6: ipaddress.ip_address("2001:db8::1")}


def observed(services: int = 2, backends: int = 3, family: int = 4) -> Observed:
    """Return so many services with so many backends each; every tenth is unhealthy."""
    installed_services, installed_backends, statuses = {}, {}, []
    health: dict[str, dict[Endpoint, HealthState]] = {}
    for service in range(1, services + 1):
        name = f"service-{service}"
        key = ServiceKey(Endpoint(FIRST_VIP[family] + service, 80), Transport.TCP)
        installed_services[service] = InstalledService(service, name, key, Timeouts())
        own = []
        for number in range(backends):
            slot = (service - 1) * backends + number + 1
            endpoint = Endpoint(FIRST_BACKEND[family] + slot, 8080)
            installed_backends[slot] = InstalledBackend(slot, service, endpoint, BackendMode.ACTIVE)
            is_healthy = slot % 10 != 0
            reason = "" if is_healthy else "connection refused"
            own.append(BackendStatus(endpoint, 1, BackendMode.ACTIVE, is_healthy, reason))
            status = Health.HEALTHY if is_healthy else Health.UNHEALTHY
            state = HealthState(status, reason, 1_000_000.0)
            health.setdefault(name, {})[endpoint] = state
        statuses.append(ServiceStatus(name, (key,), tuple(own)))
    seen = ObservedFamily(
        family,
        Installed(installed_services, installed_backends),
        Counters(
            {"forward_new": 7, "drop_no_port": 2, "drop_table_full": 0},
            {slot: Traffic(slot, 100 * slot, 2, 200, 5, 1) for slot in installed_services},
            {slot: Traffic(slot, 100 * slot, 2, 200, 5, 1) for slot in installed_backends},
            {
                (1, 1, Verdict.DROP_NO_PORT): 2,
                (1, 2, Verdict.REFUSE_TTL): 3,
                (2, 0, Verdict.DROP_DENIED): 4,
                (0, 0, Verdict.DROP_SPOOFED): 5,
            },
        ),
        {slot: slot % 50 for slot in installed_backends},
    )
    return Observed(
        [seen],
        tuple(statuses),
        health,
    )


def status_view(seen: Observed) -> dict[str, Any]:
    """Return what the daemon would say of it all."""
    services = service_views(seen)
    for each in services:
        each["sources"] = [
            {"provider": "static", "is_ready": True, "is_stale": False, "age": 1.5, "error": ""},
            {"provider": 'od"d\n', "is_ready": False, "is_stale": False, "age": None, "error": "x"},
        ]
    return {
        "name": "llb",
        "families": [each.number for each in seen.families],
        "version": "1.0",
        "started": 1_000_000.0,
        "turned": None,
        "connections_by_state": {"established": 3},
        "verdicts": verdict_views(seen),
        "services": services,
    }
