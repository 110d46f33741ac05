"""Who gets in, how many, and where to, by real traffic."""

from __future__ import annotations

import pytest

from llb_core.demo import lab
from llb_core.demo.network import wait_until
from tests.netns.conftest import Balance
from tests.netns.test_backends import connect

pytestmark = pytest.mark.netns


def verdicts(balancer: lab.Balancer) -> dict[str, int]:
    found: dict[str, int] = balancer.control.get("/status")["verdicts"]
    return {name.lower(): number for name, number in found.items()}


def test_all_connections_of_a_client_go_to_one_backend(balance: Balance) -> None:
    balancer = balance(service='scheduler = "source"')
    assert len({connect(balancer.lab)[1].name for _ in range(20)}) == 1


def test_least_connections_keeps_open_ones_level(balance: Balance) -> None:
    balancer = balance(service='scheduler = "least_connections"')
    kept = [connect(balancer.lab) for _ in range(30)]
    counts = [sum(each.name == b.name for _, each in kept) for b in balancer.lab.backends]
    assert max(counts) - min(counts) <= 6


def test_connections_beyond_the_limit_wait_until_there_is_room(balance: Balance) -> None:
    balancer = balance(service="limits = { connections = 1 }")
    first, _ = connect(balancer.lab)
    done = balancer.lab.client.run("curl", "-s", "-m1", f"http://{lab.VIP}/", check=False)
    assert done.returncode != 0
    assert verdicts(balancer)["drop_service_full"] > 0
    first.close()
    wait_until(
        lambda: (
            not balancer.lab.client.run(
                "curl", "-s", "-m2", f"http://{lab.VIP}/", check=False
            ).returncode
        ),
        15,
        "there is room again",
    )
