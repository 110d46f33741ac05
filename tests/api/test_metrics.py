"""The text that Prometheus reads: what stands in it, and that its own parser reads it."""

from __future__ import annotations

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from llb_core.api.drops import drops_by_name
from llb_core.api.metrics import MetricsText, PortUse
from llb_core.api.views import Observed, backend_views
from tests.api.observed import observed, status_view


def write(seen: Observed, text: MetricsText | None = None) -> str:
    ports = [PortUse("10.0.0.2:8080", "tcp", 12, 31_744)]
    tables = {("connections", "ipv4"): (3, 1_000_000), ("services", "ipv4"): (2, 4095)}
    written = text or MetricsText()
    drops = drops_by_name((each.installed, each.counters) for each in seen.families)
    status, backends = status_view(seen), backend_views(seen)
    return written.write(status, backends, ports, tables, drops, "6.1.0")


def parse(text: str) -> dict[str, Metric]:
    families = list(text_string_to_metric_families(text))
    names = [family.name for family in families]
    assert len(names) == len(set(names)), "a family is written twice"
    return {family.name: family for family in families}


def values(text: str, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for family in parse(text).values()
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.parametrize("family", [4, 6])
def test_counts_by_service_backend_and_direction(family: int) -> None:
    seen = observed(services=1, backends=2, family=family)
    text = write(seen)
    backend = backend_views(seen)[1]["backend"]
    found = values(text, "llb_backend_bytes_total")
    labels = (("backend", backend), ("direction", "in"), ("service", "service-1"))
    assert found[labels] == 200
    assert values(text, "llb_service_packets_total") == {
        (("direction", "in"), ("service", "service-1")): 1,
        (("direction", "out"), ("service", "service-1")): 2,
    }
    assert values(text, "llb_service_drops_total") == {(("service", "service-1"),): 1}


@pytest.mark.parametrize("family", [4, 6])
def test_tells_drops_by_reason_service_and_backend_and_packets_by_verdict(family: int) -> None:
    seen = observed(family=family)
    text = write(seen)
    first, second = (each["backend"] for each in backend_views(seen)[:2])
    assert values(text, "llb_drops_total") == {
        (("backend", first), ("reason", "no_port"), ("service", "service-1")): 2,
        (("backend", second), ("reason", "refuse_ttl"), ("service", "service-1")): 3,
        (("backend", ""), ("reason", "denied"), ("service", "service-2")): 4,
        (("backend", ""), ("reason", "spoofed"), ("service", "")): 5,
        (("backend", ""), ("reason", "table_full"), ("service", "")): 0,
    }
    assert values(text, "llb_packets_total")[(("verdict", "forward_new"),)] == 7


def test_a_backend_of_unknown_health_is_not_called_unhealthy() -> None:
    seen = observed(services=1, backends=10)
    found = values(write(seen), "llb_backend_healthy")
    assert sorted(found.values()) == [0, *[1] * 9]
    unknown = Observed(seen.families, services=None)
    assert values(write(unknown), "llb_backend_healthy") == {}


def test_tells_two_providers_of_a_service_apart_and_escapes_their_names() -> None:
    text = write(observed(services=1))
    ages = values(text, "llb_provider_answer_age_seconds")
    assert ages == {(("number", "0"), ("provider", "static"), ("service", "service-1")): 1.5}
    up = values(text, "llb_provider_up")
    assert up[(("number", "1"), ("provider", 'od"d\n'), ("service", "service-1"))] == 0


def test_what_is_not_known_is_left_out() -> None:
    assert "llb_last_turn_timestamp_seconds" not in parse(write(observed()))


def test_labels_that_are_kept_are_those_of_their_backends() -> None:
    text = MetricsText()
    write(observed(services=3), text)
    assert write(observed(services=2, family=6), text) == write(observed(services=2, family=6))
