"""What the provider asks, and when it asks again: indexes, pace, and time limits."""

from __future__ import annotations

import time
from typing import Any

import pytest

from llb_core import ProviderError
from llb_core.testing import Calling, until
from llb_providers.consul.tests.conftest import MakeProvider, Waiting
from llb_providers.consul.tests.fake_consul import FakeConsul, Fault
from llb_providers.consul.tests.faults import hangs, says, trickles_body, trickles_headers


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {"stale": ["1"], "max_stale": ["10000ms"]}),
        ({"max_stale": "500ms"}, {"stale": ["1"], "max_stale": ["500ms"]}),
        ({"consistency": "default"}, {}),
        ({"consistency": "consistent"}, {"consistent": ["1"]}),
        (
            {
                "consistency": "default",
                "datacenter": "dc1",
                "namespace": "team-a",
                "partition": "east",
                "near": "_agent",
                "tags": ["v1", "blue"],
                "filter": 'Service.Meta.zone == "a & b"',
            },
            {
                "dc": ["dc1"],
                "ns": ["team-a"],
                "partition": ["east"],
                "near": ["_agent"],
                "tag": ["v1", "blue"],
                "filter": ['Service.Meta.zone == "a & b"'],
            },
        ),
    ],
    ids=["stale", "max_stale", "default", "consistent", "all"],
)
def test_asks_as_the_options_say(
    fake: FakeConsul,
    make_for_fake: MakeProvider,
    options: dict[str, Any],
    expected: dict[str, list[str]],
) -> None:
    make_for_fake(**options).gather_backends()

    (request,) = fake.health_requests()
    assert request.path == "/v1/health/service/web"
    assert request.params == expected


def test_a_wait_asks_as_the_first_query_did(fake: FakeConsul, make_for_fake: MakeProvider) -> None:
    provider = make_for_fake(namespace="team-a", tags=["v1"])
    provider.gather_backends()
    waiting = Waiting(provider, 60)
    until(lambda: fake.blocked)
    provider.close()

    first, second = fake.health_requests()
    waiting.result()
    assert second.params == {**first.params, "index": ["102"], "wait": ["47058ms"]}


def test_a_change_takes_one_query(fake: FakeConsul, make_for_fake: MakeProvider) -> None:
    provider = make_for_fake()
    provider.gather_backends()
    waiting = Waiting(provider, 60)
    until(lambda: fake.blocked)

    fake.set_check("service:web-1", "critical")

    waiting.result()
    assert [each.healthy for each in provider.gather_backends()] == [False, True]
    assert [each.index for each in fake.health_requests()] == [0, 102]


def test_uses_one_connection(fake: FakeConsul, make_for_fake: MakeProvider) -> None:
    provider = make_for_fake()
    for _ in range(5):
        provider.gather_backends()

    assert fake.connections == 1


def test_an_index_that_goes_backwards_starts_anew(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    provider = make_for_fake()
    provider.gather_backends()
    waiting = Waiting(provider, 60)
    until(lambda: fake.blocked)

    fake.restore_index(7)
    waiting.result()
    provider.gather_backends()
    Waiting(provider, 60).result()
    provider.gather_backends()
    waiting = Waiting(provider, 60)
    until(lambda: fake.blocked)
    fake.deregister("web-1")

    waiting.result()
    assert len(provider.gather_backends()) == 1
    assert [each.index for each in fake.health_requests()] == [0, 102, 0, 7]


def test_starting_anew_takes_no_longer_than_any_other_query(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    provider = make_for_fake(timeout="2s")
    provider.gather_backends()
    waiting = Waiting(provider, 60)
    until(lambda: fake.blocked)
    fake.restore_index(7)
    waiting.result()

    fake.fault = hangs

    with pytest.raises(ProviderError, match=r"no answer within 2 s"):
        Waiting(provider, 60).result(limit=30)


def test_an_index_of_0_is_waited_for_as_1(fake: FakeConsul, make_for_fake: MakeProvider) -> None:
    fake.extra_headers["X-Consul-Index"] = "0"
    provider = make_for_fake()
    provider.gather_backends()

    Waiting(provider, 60).result()

    assert [each.index for each in fake.health_requests()] == [0, 1]


def test_an_index_that_runs_without_end_is_followed_at_a_measured_pace(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    fake.never_blocks = True
    provider = make_for_fake()
    provider.gather_backends()
    began = time.monotonic()

    for _ in range(23):
        assert provider.wait_for_change(60) is False
        provider.gather_backends()

    assert time.monotonic() - began >= 3 / 5


def test_a_change_that_is_none_of_the_backends_is_no_change(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    provider = make_for_fake()
    provider.gather_backends()
    waiting = Waiting(provider, 60)
    until(lambda: fake.blocked)

    fake.touch("web")

    assert waiting.result() is False


def test_does_not_ask_a_failing_agent_while_it_waits(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    fake.fault = says(500, "No cluster leader")
    provider = make_for_fake()
    with pytest.raises(ProviderError, match="500 No cluster leader"):
        provider.gather_backends()

    waiting = Waiting(provider, 0.3)

    assert waiting.result(limit=30) is False
    assert len(fake.health_requests()) == 1


def test_a_wait_that_fails_says_so_and_starts_anew(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    provider = make_for_fake()
    provider.gather_backends()
    fake.fault = says(500, "rpc error: No cluster leader")
    with pytest.raises(ProviderError, match="No cluster leader"):
        provider.wait_for_change(60)

    fake.fault = None

    assert len(provider.gather_backends()) == 2
    assert [each.index for each in fake.health_requests()] == [0, 102, 0]


def test_an_answer_that_can_not_be_used_is_waited_on_for_its_correction(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    fake.register({"Name": "web", "ID": "web-3", "Address": "db.example", "Port": 80})
    provider = make_for_fake()
    with pytest.raises(ProviderError, match=r'"db\.example" is not an IP address'):
        provider.gather_backends()
    waiting = Waiting(provider, 30)
    until(lambda: fake.blocked)

    fake.register({"Name": "web", "ID": "web-3", "Address": "10.0.0.3", "Port": 80})

    assert waiting.result() is True
    assert len(provider.gather_backends()) == 3


@pytest.mark.parametrize("fault", [hangs, trickles_headers, trickles_body])
def test_an_answer_is_waited_for_no_longer_than_the_limit(
    fake: FakeConsul, make_for_fake: MakeProvider, fault: Fault
) -> None:
    fake.fault = fault
    asking = Calling(make_for_fake(timeout="300ms").gather_backends)

    with pytest.raises(ProviderError, match=r"no answer within 0\.3 s"):
        asking.result(limit=30)


@pytest.mark.parametrize("fault", [hangs, trickles_headers, trickles_body])
def test_a_wait_ends_in_time_whatever_the_agent_does(
    fake: FakeConsul, make_for_fake: MakeProvider, fault: Fault
) -> None:
    provider = make_for_fake()
    provider.gather_backends()
    fake.fault = fault
    waiting = Waiting(provider, 1.0)

    with pytest.raises(ProviderError):
        waiting.result(limit=30)
    fake.fault = None
    assert len(provider.gather_backends()) == 2


@pytest.mark.parametrize("fault", [None, hangs, trickles_headers, trickles_body])
def test_closing_ends_a_wait_that_is_under_way(
    fake: FakeConsul, make_for_fake: MakeProvider, fault: Fault | None
) -> None:
    provider = make_for_fake()
    provider.gather_backends()
    fake.fault = fault
    waiting = Waiting(provider, 60)
    until(lambda: len(fake.health_requests()) == 2)

    provider.close()
    provider.close()

    assert waiting.result(limit=30) is False


def test_closing_ends_a_question_that_is_under_way(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    fake.fault = hangs
    provider = make_for_fake()
    asking = Calling(provider.gather_backends)
    until(fake.health_requests)

    provider.close()

    with pytest.raises(ProviderError):
        asking.result(limit=30)


def test_a_closed_provider_asks_nothing(fake: FakeConsul, make_for_fake: MakeProvider) -> None:
    provider = make_for_fake()
    provider.close()

    with pytest.raises(ProviderError):
        provider.gather_backends()

    assert Waiting(provider, 60).result(limit=30) is False
    assert not fake.health_requests()


def test_hears_a_change_after_the_agent_was_away(
    fake: FakeConsul, make_for_fake: MakeProvider
) -> None:
    provider = make_for_fake()
    provider.gather_backends()
    fake.stop()
    with pytest.raises(ProviderError, match="connection refused"):
        provider.gather_backends()

    fake.start()
    fake.deregister("web-1")

    assert len(provider.gather_backends()) == 1
