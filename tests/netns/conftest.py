"""What tests of real traffic share: a network that is gone afterwards, and LLB running in it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until

Balance = Callable[..., lab.Balancer]


@pytest.fixture
def network() -> Iterator[Network]:
    """Namespaces of the test's own."""
    with Network() as made:
        lab.forget_leftovers()
        yield made


@pytest.fixture
def balance(network: Network, tmp_path: Path) -> Iterator[Balance]:
    """Make a lab with LLB running in it, every backend active: `balance(clients=2, …)`.

    What `lab.build` does not take changes the configuration.
    """
    made: list[lab.Balancer] = []

    def start(
        clients: int = 1, backends: int = 3, one_arm: bool = False, **changes: str
    ) -> lab.Balancer:
        hosts = lab.build(network, clients, backends, one_arm)
        hosts.start_backends()
        balancer = lab.Balancer(hosts, tmp_path)
        made.append(balancer)
        balancer.write_config(**changes)
        balancer.write_backends(hosts.backends)
        balancer.start()
        wait_until(lambda: all(map(balancer.is_active, hosts.backends)), 10, "all are active")
        return balancer

    yield start
    for balancer in made:
        balancer.remove()
        print(balancer.last_words())  # pytest shows it where the test failed
