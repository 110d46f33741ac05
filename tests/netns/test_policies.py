"""Who gets in, how many, and where to, by real traffic."""

from __future__ import annotations

import json
import socket
import time
from contextlib import ExitStack, suppress

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Namespace, wait_until
from tests.netns.conftest import Balance, shown
from tests.netns.test_backends import BOTH, PATIENCE, ask, connect, is_in, is_out

pytestmark = pytest.mark.netns

CONNECTIONS = 400
"""Enough that chance takes no share that far off."""
PATIENT = 'type = "tcp"\ntimeout = "5s"'
"""A check that finds nobody ill only because the machine is busy: they would start anew."""


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


def test_backend_that_comes_back_gets_its_share_little_by_little(balance: Balance) -> None:
    """A slow start of an hour has hardly begun, however slow the machine; one of some seconds is
    over after these."""
    balancer = balance(families=BOTH, health=PATIENT)
    back = balancer.lab.backends[2]

    def shares() -> list[float]:
        return [share(balancer.lab.of(family), back.name) for family in BOTH]

    def set_slow_start(seconds: int) -> None:
        slow_start = f'slow_start = "{seconds}s"'
        balancer.write_config(families=BOTH, health=PATIENT, service=slow_start)
        shown(balancer, "reload")

    set_slow_start(3600)
    assert all(0.22 < each < 0.45 for each in shares())  # those that were there already have theirs
    back.kill()
    wait_until(lambda: is_out(balancer, back), PATIENCE, "it is out")
    assert shares() == [0, 0]
    back.start()
    wait_until(lambda: is_in(balancer, back), PATIENCE, "it is in again")
    began = time.monotonic()
    assert all(0 < each < 0.15 for each in shares())
    set_slow_start(10)
    wait_until(lambda: time.monotonic() > began + 10, PATIENCE, "its slow start is over")
    assert all(0.22 < each < 0.45 for each in shares())


def share(hosts: lab.Lab, name: str) -> float:
    """Open connections one after the other; give the part of them that one backend answers."""
    urls = [hosts.url] * CONNECTIONS
    answers = hosts.client.run("curl", "-sSf", *urls, "-H", "Connection: close").stdout.split()
    assert len(answers) == CONNECTIONS
    return answers.count(name) / CONNECTIONS


def test_connections_beyond_the_limit_wait_until_there_is_room(balance: Balance) -> None:
    balancer = balance(service="limits = { connections = 1 }")
    first, _ = connect(balancer.lab)
    done = balancer.lab.client.run("curl", "-s", "-m1", f"http://{lab.VIP}/", check=False)
    assert done.returncode != 0
    assert verdicts(balancer)["drop_service_full"] > 0
    first.close()
    wait_until(
        lambda: gets_in(balancer.lab, balancer.lab.client, 1), PATIENCE, "there is room again"
    )


def knock(hosts: lab.Lab, client: Namespace) -> socket.socket:
    """Begin a connection, and do not wait for an answer."""
    sock = client.socket(family=hosts.family)
    sock.setblocking(False)
    with suppress(BlockingIOError):
        sock.connect((hosts.vip, lab.PORT))
    return sock


def gets_in(hosts: lab.Lab, client: Namespace, seconds: int = PATIENCE) -> bool:
    """Say whether a new connection of that client is answered in that time."""
    done = client.run("curl", "-s", f"-m{seconds}", hosts.url, check=False, timeout=2 * PATIENCE)
    return done.returncode == 0


def test_prefixes_that_change_while_traffic_runs_decide_who_gets_in(balance: Balance) -> None:
    balancer = balance(clients=2, families=BOTH)
    one, other = balancer.lab.clients
    kept = [connect(balancer.lab.of(family))[0] for family in BOTH]

    def admit(**prefixes: list[str]) -> None:
        lines = [f"{name} = {json.dumps(each)}" for name, each in prefixes.items()]
        balancer.write_config(families=BOTH, service="\n".join(lines))
        shown(balancer, "reload")

    first = [lab.ADDRESSES[family].client(11) for family in BOTH]
    networks = ["198.51.100.0/24", "2001:db8:c::/64"]
    for prefixes, let_in, kept_out in (
        ({"deny": first}, other, one),
        ({"deny": networks, "allow": first}, one, other),
        ({"allow": first}, one, other),
        ({"allow": networks, "deny": first}, other, one),
    ):
        admit(**prefixes)
        for family in BOTH:
            hosts = balancer.lab.of(family)
            assert gets_in(hosts, let_in), prefixes
            before = verdicts(balancer)["drop_denied"]
            assert not gets_in(hosts, kept_out, 1), prefixes
            assert verdicts(balancer)["drop_denied"] > before, prefixes
        assert {ask(each) for each in kept} <= {"b1", "b2", "b3"}  # who is in stays in
    admit()
    assert all(gets_in(balancer.lab.of(family), each) for family in BOTH for each in (one, other))


LIMITS = {
    "connections": "drop_service_full",
    "new_per_second": "drop_service_rate",
    "source_connections": "drop_source_full",
    "source_new_per_second": "drop_source_rate",
}


def test_each_limit_drops_what_is_beyond_it_under_its_own_name(balance: Balance) -> None:
    balancer = balance(families=BOTH)
    for limit, name in LIMITS.items():
        balancer.write_config(families=BOTH, service=f"limits = {{ {limit} = 1 }}")
        shown(balancer, "reload")
        for family in BOTH:
            hosts = balancer.lab.of(family)
            before, deadline = verdicts(balancer), time.monotonic() + PATIENCE
            with ExitStack() as stack:
                while verdicts(balancer)[name] == before[name]:
                    assert time.monotonic() < deadline, f"{name} is not counted over IPv{family}"
                    for _ in range(5):
                        stack.enter_context(knock(hosts, hosts.client))
            after = verdicts(balancer)
            assert {each for each in LIMITS.values() if after[each] > before[each]} == {name}
