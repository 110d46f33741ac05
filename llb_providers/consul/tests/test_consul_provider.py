"""What any Consul agent must bring about: the fake one, and a real one where there is one."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import pytest

from llb_core import Backend, Endpoint, ProviderError
from llb_providers.consul.tests.conftest import Agent, Gather, MakeProvider, Waiting


def backend(address: str, port: int = 80, **more: Any) -> Backend:
    return Backend(Endpoint(ipaddress.ip_address(address), port), **({"healthy": True} | more))


def test_names_every_instance(consul: Agent, make: MakeProvider, gather_until: Gather) -> None:
    consul.register("a", "10.0.0.1", 80)
    consul.register("b", "10.0.0.2", 8080)

    found = gather_until(make(), lambda answer: len(answer) == 2)

    assert found == [backend("10.0.0.1"), backend("10.0.0.2", 8080)]


def test_a_service_without_instances_has_no_backends(consul: Agent, make: MakeProvider) -> None:
    assert list(make().gather_backends()) == []


def test_the_last_instance_can_go(consul: Agent, make: MakeProvider, gather_until: Gather) -> None:
    consul.register("a", "10.0.0.1")
    provider = make()
    gather_until(provider, lambda answer: len(answer) == 1)

    consul.deregister("a")

    assert gather_until(provider, lambda answer: not answer) == []


def test_an_instance_without_address_has_its_nodes(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", None)

    assert gather_until(make(), len) == [backend(consul.node_address)]


def test_takes_the_nodes_address_if_told_so(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", "10.0.0.1")

    assert gather_until(make(address="node"), len) == [backend(consul.node_address)]


def test_takes_another_port_if_told_so(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", "10.0.0.1", None)

    assert gather_until(make(port=8443), len) == [backend("10.0.0.1", 8443)]


def test_an_instance_without_port_is_an_error_that_names_it(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", "10.0.0.1", None)
    gather_until(make(port=80), len)

    with pytest.raises(ProviderError, match=r"-a on node .*: it has no port: register it"):
        make().gather_backends()


@pytest.mark.parametrize(
    ("status", "options", "expected"),
    [
        ("passing", {}, [backend("10.0.0.1", weight=5)]),
        ("warning", {}, [backend("10.0.0.1", weight=2)]),
        ("critical", {}, [backend("10.0.0.1", weight=5, healthy=False)]),
        ("passing", {"passing": "unknown"}, [backend("10.0.0.1", weight=5, healthy=None)]),
        ("warning", {"warning": "unhealthy"}, [backend("10.0.0.1", weight=2, healthy=False)]),
        (
            "warning",
            {"warning": "drain"},
            [backend("10.0.0.1", weight=2, draining=True, healthy=None)],
        ),
        ("warning", {"warning": "exclude"}, []),
        ("critical", {"critical": "healthy"}, [backend("10.0.0.1", weight=5)]),
        ("critical", {"critical": "exclude"}, []),
    ],
    ids=lambda value: str(value) if isinstance(value, str | dict) else "",
)
def test_an_instances_state_is_treated_as_the_options_say(
    consul: Agent,
    make: MakeProvider,
    gather_until: Gather,
    status: str,
    options: dict[str, Any],
    expected: list[Backend],
) -> None:
    weights = {"Passing": 5, "Warning": 2}
    consul.register("a", "10.0.0.1", status=status, weights=weights)
    consul.register("b", "10.0.0.2")

    found = gather_until(make(**options), lambda answer: len(answer) == len(expected) + 1)

    assert [each for each in found if each.endpoint.address.packed[-1] == 1] == expected


def test_an_instance_in_maintenance_drains(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", "10.0.0.1")
    consul.register("b", "10.0.0.2")
    provider = make()

    consul.maintain("a")
    found = gather_until(provider, lambda answer: any(each.draining for each in answer))
    assert [each.draining for each in found] == [True, False]

    consul.maintain("a", is_on=False)
    found = gather_until(provider, lambda answer: not any(each.draining for each in answer))
    assert found == [backend("10.0.0.1"), backend("10.0.0.2")]


def test_all_instances_of_a_node_in_maintenance_drain(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", "10.0.0.1")
    consul.register("b", "10.0.0.2", status="critical")

    consul.maintain_node()

    gather_until(make(), lambda answer: len(answer) == 2 and all(each.draining for each in answer))


def test_the_same_endpoint_registered_twice_is_one_backend(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", "10.0.0.1")
    consul.register("again", "10.0.0.1")
    consul.register("b", "10.0.0.2")

    found = gather_until(make(), lambda answer: len(answer) == 2)

    assert found == [backend("10.0.0.1"), backend("10.0.0.2")]


def test_what_an_instance_left_behind_does_not_take_its_successor_away(
    consul: Agent,
    make: MakeProvider,
    gather_until: Gather,
    caplog: pytest.LogCaptureFixture,
) -> None:
    consul.register("left", "10.0.0.1", status="critical")
    consul.register("new", "10.0.0.1")
    consul.register("other", "10.0.0.2")
    provider = make()

    found = gather_until(provider, lambda answer: len(answer) == 2)

    assert found == [backend("10.0.0.1"), backend("10.0.0.2")]
    assert provider.gather_backends()
    (told,) = (each for each in caplog.messages if "10.0.0.1:80" in each)
    assert re.search(
        r"web: provider consul: 10.0.0.1:80 is \S+-new on node .* \(passing, weight 1\), and "
        r"\S+-left on node .* \(critical, weight 1\), which does not count: deregister the one ",
        told,
    )


def test_an_instance_in_maintenance_drains_though_it_is_registered_again(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", "10.0.0.1")
    consul.register("again", "10.0.0.1")
    consul.maintain("a")

    found = gather_until(make(), lambda answer: answer and answer[0].draining)

    assert found == [backend("10.0.0.1", draining=True, healthy=None)]
    assert list(make(maintenance="exclude").gather_backends()) == [backend("10.0.0.1")]


def test_instances_must_have_all_the_tags(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", "10.0.0.1", tags=["v1", "blue"])
    consul.register("b", "10.0.0.2", tags=["v1"])
    gather_until(make(), lambda answer: len(answer) == 2)

    assert list(make(tags=["v1", "blue"]).gather_backends()) == [backend("10.0.0.1")]


def test_instances_must_pass_the_filter(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", "10.0.0.1", meta={"zone": "a"})
    consul.register("b", "10.0.0.2", meta={"zone": "b"})
    gather_until(make(), lambda answer: len(answer) == 2)

    assert list(make(filter='Service.Meta.zone == "b"').gather_backends()) == [backend("10.0.0.2")]


def test_a_filter_that_is_none_is_an_error(consul: Agent, make: MakeProvider) -> None:
    with pytest.raises(ProviderError, match=r"[45]00 .*Failed to create boolean expression"):
        make(filter="Service.Meta.zone ==== b").gather_backends()


def test_an_unknown_datacenter_is_an_error(consul: Agent, make: MakeProvider) -> None:
    with pytest.raises(ProviderError, match=r"500 .*No path to datacenter"):
        make(datacenter="nowhere").gather_backends()


@pytest.mark.parametrize("consistency", ["stale", "default", "consistent"])
def test_reads_in_every_way(
    consul: Agent, make: MakeProvider, gather_until: Gather, consistency: str
) -> None:
    consul.register("a", "10.0.0.1")

    assert gather_until(make(consistency=consistency, near="_agent"), len) == [backend("10.0.0.1")]


@pytest.mark.parametrize("change", ["register", "deregister", "critical", "maintenance"])
def test_a_change_ends_the_wait(
    consul: Agent, make: MakeProvider, gather_until: Gather, change: str
) -> None:
    consul.register("a", "10.0.0.1")
    provider = make()
    before = gather_until(provider, len)
    waiting = Waiting(provider, 30)

    match change:
        case "register":
            consul.register("b", "10.0.0.2")
        case "deregister":
            consul.deregister("a")
        case "critical":
            consul.set_status("a", "critical")
        case "maintenance":
            consul.maintain("a")

    waiting.result()
    gather_until(provider, lambda answer: answer != before)


def test_a_change_is_known_at_once(consul: Agent, make: MakeProvider, gather_until: Gather) -> None:
    consul.register("a", "10.0.0.1")
    provider = make()
    gather_until(provider, len)

    for status in ["critical", "passing"] * 10:
        waiting = Waiting(provider, 30)
        consul.set_status("a", status)
        waiting.result()
        (found,) = provider.gather_backends()
        assert found.healthy is (status == "passing")


def test_no_change_is_missed_between_two_waits(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", "10.0.0.1")
    provider = make()
    gather_until(provider, len)

    consul.register("b", "10.0.0.2")

    Waiting(provider, 30).result()
    assert len(provider.gather_backends()) == 2


def test_a_service_that_is_not_there_yet_is_waited_for(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    provider = make()
    assert list(provider.gather_backends()) == []
    waiting = Waiting(provider, 30)

    consul.register("a", "10.0.0.1")

    waiting.result()
    assert gather_until(provider, len) == [backend("10.0.0.1")]


def test_a_wait_without_change_ends_in_time(
    consul: Agent, make: MakeProvider, gather_until: Gather
) -> None:
    consul.register("a", "10.0.0.1")
    provider = make()
    before = gather_until(provider, len)
    waiting = Waiting(provider, 1.5)

    assert waiting.result(limit=30) is False
    assert list(provider.gather_backends()) == before


def test_closing_ends_the_wait(consul: Agent, make: MakeProvider) -> None:
    provider = make()
    provider.gather_backends()
    waiting = Waiting(provider, 30)

    provider.close()

    assert waiting.result(limit=30) is False
