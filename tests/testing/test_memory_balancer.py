"""The balancer in memory that authors of providers try theirs with."""

from __future__ import annotations

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
