"""From Consul to the maps: how soon, and that nothing is lost on the way."""

from __future__ import annotations

import time
from functools import partial

from llb_provider_consul import ConsulProvider

from llb_core.model import BackendMode
from llb_core.testing import MemoryBalancer, until
from llb_providers.consul.tests.conftest import Agent
from llb_providers.consul.tests.fake_consul import FakeConsul
from llb_providers.consul.tests.faults import hangs


def is_active(balancer: MemoryBalancer, count: int) -> bool:
    return len(balancer.active()) == count


def test_a_change_in_consul_is_in_the_map(consul: Agent) -> None:
    consul.register("a", "10.0.0.1")
    consul.register("b", "10.0.0.2")
    with MemoryBalancer() as balancer:
        balancer.add(ConsulProvider, {"service": consul.service, "url": consul.url})
        balancer.turn_until(lambda: len(balancer.active()) == 2)

        for expected in [1, 2] * 10:
            consul.maintain("a", is_on=expected == 1)
            balancer.turn_until(partial(is_active, balancer, expected))


def test_an_instance_in_maintenance_drains_in_the_map(fake: FakeConsul) -> None:
    with MemoryBalancer() as balancer:
        balancer.add(ConsulProvider, {"service": "web", "url": fake.url})
        balancer.turn_until(lambda: len(balancer.active()) == 2)

        fake.maintain_node(is_on=True)

        balancer.turn_until(lambda: set(balancer.modes().values()) == {BackendMode.DRAINING})


def test_an_agent_that_hangs_holds_up_no_other_service(
    fake: FakeConsul,
) -> None:
    silent = FakeConsul()
    silent.fault = hangs
    silent.start()
    with MemoryBalancer() as balancer:
        for number in range(10):
            options = {"service": "web", "url": silent.url}
            balancer.add(ConsulProvider, options, service=f"silent-{number}")
        until(lambda: len(silent.health_requests()) == 10)

        began = time.monotonic()
        balancer.add(ConsulProvider, {"service": "web", "url": fake.url})
        balancer.turn_until(lambda: len(balancer.active()) == 2)

        assert time.monotonic() - began < 10
    silent.stop()
