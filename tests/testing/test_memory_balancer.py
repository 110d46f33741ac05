"""The balancer in memory that authors of providers try theirs with."""

from __future__ import annotations

import pytest

from llb_core.testing import FakeProvider, MemoryBalancer, some_backends


def test_installs_what_a_provider_says() -> None:
    provider = FakeProvider()
    provider.say(some_backends(1, 2))
    with MemoryBalancer() as balancer:
        source = balancer.add(provider)
        balancer.turn_until(lambda: len(balancer.active()) == 2)
        provider.fail("the registry is down")
        balancer.turn_until(lambda: source.is_stale)
        assert len(balancer.active()) == 2


@pytest.mark.parametrize("family", [4, 6])
def test_serves_addresses_of_both_families_and_knows_them_after_a_restart(family: int) -> None:
    backends = some_backends(1, 2, family=family)
    provider = FakeProvider()
    provider.say(backends)
    with MemoryBalancer() as balancer:
        balancer.add(provider)
        balancer.turn_until(lambda: balancer.active() == {each.endpoint for each in backends})
    with MemoryBalancer(balancer.maps) as restarted:
        assert restarted.active() == {each.endpoint for each in backends}


def test_refuses_backends_of_a_family_that_it_is_not_served_on() -> None:
    provider = FakeProvider()
    provider.say(some_backends(1))
    with MemoryBalancer(families=frozenset({6})) as balancer:
        source = balancer.add(provider)
        balancer.turn_until(lambda: source.error)
        assert "10.0.0.1:8080 is IPv4, and the service is IPv6" in source.error
