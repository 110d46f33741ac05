"""Backends that die, fall ill, return, and are drained, while requests go on."""

from __future__ import annotations

import http.client

import pytest

from llb_core.demo import lab
from llb_core.demo.network import wait_until
from llb_core.demo.traffic import Tally, Traffic
from tests.netns.conftest import Balance

pytestmark = pytest.mark.netns


def test_a_dead_backend_is_out_and_comes_back(balance: Balance) -> None:
    balancer = balance()
    hosts = balancer.lab
    _, b2, _ = hosts.backends
    with Traffic(hosts.clients, lab.VIP, lab.PORT, rate=300) as traffic:
        traffic.phase("before")
        wait_until(lambda: sent(traffic, "before") > 200, 10, "requests go on")
        traffic.phase("dying")
        wait_until(lambda: sent(traffic, "dying") > 50, 10, "what was begun before is answered")
        b2.kill()
        wait_until(lambda: not balancer.is_active(b2), 5, "b2 is out")
        traffic.phase("without")
        wait_until(lambda: sent(traffic, "without") > 300, 10, "requests go on")
        traffic.phase("returning")
        b2.start()
        wait_until(lambda: balancer.is_active(b2), 5, "b2 is in again")
        traffic.phase("after")
        wait_until(lambda: sent(traffic, "after") > 300, 10, "requests go on")
        tallies = traffic.finish()
    assert not any(tallies[p].failed for p in ("before", "without", "returning", "after"))
    assert set(tallies["without"].answered) == {"b1", "b3"}
    assert set(tallies["after"].answered) == {"b1", "b2", "b3"}


def test_a_host_that_falls_silent_is_out(balance: Balance) -> None:
    balancer = balance()
    b2 = balancer.lab.backends[1]
    b2.host.ip("link set eth0 down")
    wait_until(lambda: not balancer.is_active(b2), 5, "b2 is out")


def test_connections_of_an_ill_backend_go_on_if_the_service_keeps_them(balance: Balance) -> None:
    balancer = balance(when_unhealthy="keep")
    connection, ill = connect(balancer)
    ill.turn()
    wait_until(lambda: not balancer.is_active(ill), 5, f"{ill.name} is out")
    assert [ask(connection) for _ in range(3)] == [ill.name] * 3


def test_connections_of_an_ill_backend_end_at_once_if_the_service_ends_them(
    balance: Balance,
) -> None:
    balancer = balance(when_unhealthy="end")
    connection, ill = connect(balancer)
    ill.turn()
    wait_until(lambda: not balancer.is_active(ill), 5, f"{ill.name} is out")
    with pytest.raises(ConnectionResetError):
        ask(connection)
    connection, other = connect(balancer)
    assert other.name != ill.name


def test_all_get_traffic_while_none_is_healthy(balance: Balance) -> None:
    balancer = balance(backends=2)
    for backend in balancer.lab.backends:
        backend.turn()
    wait_until(lambda: healths(balancer) == {"unhealthy"}, 5, "both are ill")
    names = {connect(balancer)[1].name for _ in range(20)}
    assert names == {"b1", "b2"}


def test_none_gets_traffic_while_none_is_healthy_if_the_service_says_so(balance: Balance) -> None:
    balancer = balance(backends=2, service='when_all_unhealthy = "none"')
    for backend in balancer.lab.backends:
        backend.turn()
    wait_until(lambda: not any(map(balancer.is_active, balancer.lab.backends)), 5, "both are out")
    client = balancer.lab.client
    done = client.run("curl", "-s", "-m1", f"http://{lab.VIP}/", check=False)
    assert done.returncode != 0


def test_a_drained_backend_keeps_its_connections_and_gets_no_new_ones(balance: Balance) -> None:
    balancer = balance()
    connection, drained = connect(balancer)
    balancer.llb("drain", drained.endpoint)
    assert {connect(balancer)[1].name for _ in range(30)}.isdisjoint({drained.name})
    assert ask(connection) == drained.name
    balancer.llb("undrain", drained.endpoint)
    assert drained.name in {connect(balancer)[1].name for _ in range(60)}


def test_a_backend_taken_from_the_file_keeps_its_connections_and_gets_no_new_ones(
    balance: Balance,
) -> None:
    balancer = balance()
    connection, gone = connect(balancer)
    balancer.write_backends([b for b in balancer.lab.backends if b is not gone])
    wait_until(lambda: not balancer.is_active(gone), 5, f"{gone.name} is deregistered")
    assert {connect(balancer)[1].name for _ in range(30)}.isdisjoint({gone.name})
    assert ask(connection) == gone.name


def healths(balancer: lab.Balancer) -> set[str]:
    known = balancer.control.get("/backends")["backends"]
    return {each["health"] for each in known if each["service"] == "web"}


def connect(balancer: lab.Balancer) -> tuple[http.client.HTTPConnection, lab.BackendHost]:
    """Open a connection that stays; give it, and the backend that it leads to."""
    connection = http.client.HTTPConnection(lab.VIP, lab.PORT)
    connection.sock = balancer.lab.client.socket()
    connection.sock.connect((lab.VIP, lab.PORT))
    name = ask(connection)
    return connection, next(each for each in balancer.lab.backends if each.name == name)


def ask(connection: http.client.HTTPConnection) -> str:
    """Send one request over it; the name of the backend that answers."""
    connection.request("GET", "/")
    return connection.getresponse().read().decode().strip()


def sent(traffic: Traffic, phase: str) -> int:
    return traffic.tallies().get(phase, Tally()).sent
