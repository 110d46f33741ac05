"""Backends that die, fall ill, return, and are drained, while requests go on: of both families."""

from __future__ import annotations

import http.client

import pytest

from llb_core.demo import lab
from llb_core.demo.network import wait_until
from llb_core.demo.traffic import Tally, Traffic
from llb_core.errors import DaemonUnreachable
from tests.netns.conftest import Balance, shown

pytestmark = pytest.mark.netns

BOTH = (4, 6)
PATIENCE = 60


def test_a_dead_backend_is_out_and_comes_back(balance: Balance) -> None:
    balancer = balance(families=BOTH)
    hosts = balancer.lab
    _, b2, _ = hosts.backends
    with (
        Traffic(hosts.clients, hosts.of(4).vip, lab.PORT, rate=200) as ipv4,
        Traffic(hosts.clients, hosts.of(6).vip, lab.PORT, rate=200) as ipv6,
    ):
        both = (ipv4, ipv6)
        begin(both, "before", 150)
        begin(both, "dying", 40)  # What was begun before is answered.
        b2.kill()
        wait_until(lambda: is_out(balancer, b2), PATIENCE, "b2 is out")
        begin(both, "without", 200)
        begin(both, "returning", 1)
        b2.start()
        wait_until(lambda: is_in(balancer, b2), PATIENCE, "b2 is in again")
        begin(both, "after", 200)
        for traffic in both:
            tallies = traffic.finish()
            for phase in ("before", "without", "returning", "after"):
                assert not tallies[phase].failed, phase
            assert set(tallies["without"].answered) == {"b1", "b3"}
            assert set(tallies["after"].answered) == {"b1", "b2", "b3"}


def begin(traffics: tuple[Traffic, ...], phase: str, number: int) -> None:
    """Begin a phase, and wait until it has seen that many requests in each family."""
    for traffic in traffics:
        traffic.phase(phase)
    for traffic in traffics:
        wait_until(
            lambda traffic=traffic: traffic.tallies().get(phase, Tally()).sent >= number,
            PATIENCE,
            f"{number} requests are answered {phase}",
        )


def test_a_host_that_falls_silent_is_out(balance: Balance) -> None:
    balancer = balance(families=BOTH)
    b2 = balancer.lab.backends[1]
    b2.host.ip("link set eth0 down")
    wait_until(lambda: is_out(balancer, b2), PATIENCE, "b2 is out")


def test_connections_of_an_ill_backend_go_on_if_the_service_keeps_them(balance: Balance) -> None:
    balancer = balance(when_unhealthy="keep", families=BOTH, backends=1)
    connections = [connect(balancer.lab.of(family))[0] for family in BOTH]
    (ill,) = balancer.lab.backends
    ill.turn()
    wait_until(lambda: healths(balancer) == {"unhealthy"}, PATIENCE, "it is ill")
    for connection in connections:
        assert [ask(connection) for _ in range(3)] == [ill.name] * 3


def test_connections_of_an_ill_backend_end_at_once_if_the_service_ends_them(
    balance: Balance,
) -> None:
    balancer = balance(when_unhealthy="end", families=BOTH, backends=2)
    ill = balancer.lab.backends[0]
    connections = [connect_to(balancer.lab.of(family), ill.name) for family in BOTH]
    ill.turn()
    wait_until(lambda: is_out(balancer, ill), PATIENCE, f"{ill.name} is out")
    for connection in connections:
        with pytest.raises(ConnectionResetError):
            ask(connection)
    assert {connect(balancer.lab.of(family))[1].name for family in BOTH} == {"b2"}


def test_all_get_traffic_while_none_is_healthy(balance: Balance) -> None:
    balancer = balance(backends=2, families=BOTH)
    for backend in balancer.lab.backends:
        backend.turn()
    wait_until(lambda: healths(balancer) == {"unhealthy"}, PATIENCE, "both are ill")
    for family in BOTH:
        names = {connect(balancer.lab.of(family))[1].name for _ in range(20)}
        assert names == {"b1", "b2"}


def test_none_gets_traffic_while_none_is_healthy_if_the_service_says_so(balance: Balance) -> None:
    balancer = balance(backends=2, service='when_all_unhealthy = "none"', families=BOTH)
    for backend in balancer.lab.backends:
        backend.turn()
    wait_until(
        lambda: all(is_out(balancer, each) for each in balancer.lab.backends),
        PATIENCE,
        "both are out",
    )
    for family in BOTH:
        hosts = balancer.lab.of(family)
        assert hosts.client.run("curl", "-s", "-m1", hosts.url, check=False).returncode != 0


def test_a_drained_backend_keeps_its_connections_and_gets_no_new_ones(balance: Balance) -> None:
    """An order names one address: the other family's backend on the same host is another one."""
    balancer = balance(families=BOTH)
    for family in BOTH:
        hosts = balancer.lab.of(family)
        connection, drained = connect(hosts)
        shown(balancer, "drain", drained.endpoint)
        assert {connect(hosts)[1].name for _ in range(30)}.isdisjoint({drained.name})
        other = balancer.lab.of(10 - family)
        assert drained.name in {connect(other)[1].name for _ in range(60)}
        assert ask(connection) == drained.name
        shown(balancer, "undrain", drained.endpoint)
        assert drained.name in {connect(hosts)[1].name for _ in range(60)}


def test_a_backend_taken_from_the_file_keeps_its_connections_and_gets_no_new_ones(
    balance: Balance,
) -> None:
    balancer = balance(families=BOTH)
    gone = balancer.lab.backends[0]
    connections = [connect_to(balancer.lab.of(family), gone.name) for family in BOTH]
    balancer.write_backends(balancer.lab.backends[1:], BOTH)
    wait_until(lambda: is_out(balancer, gone), PATIENCE, f"{gone.name} is deregistered")
    for family, connection in zip(BOTH, connections, strict=True):
        hosts = balancer.lab.of(family)
        assert {connect(hosts)[1].name for _ in range(30)}.isdisjoint({gone.name})
        assert ask(connection) == gone.name


def is_in(balancer: lab.Balancer, backend: lab.BackendHost) -> bool:
    """Say whether a backend takes new connections in both families, as the daemon says."""
    active = active_ones(balancer)
    return active is not None and active >= of_both_families(backend)


def is_out(balancer: lab.Balancer, backend: lab.BackendHost) -> bool:
    """Say whether a backend takes new connections in neither family, as the daemon says."""
    active = active_ones(balancer)
    return active is not None and active.isdisjoint(of_both_families(backend))


def active_ones(balancer: lab.Balancer) -> set[str] | None:
    """The backends of the service `web` that take new connections; None while no daemon answers,
    which says nothing of them."""
    try:
        known = balancer.control.get("/backends")["backends"]
    except DaemonUnreachable:
        return None
    return {
        each["backend"] for each in known if (each["service"], each["mode"]) == ("web", "active")
    }


def of_both_families(backend: lab.BackendHost) -> set[str]:
    return {lab.endpoint(lab.ADDRESSES[family].backend(backend.number)) for family in BOTH}


def healths(balancer: lab.Balancer) -> set[str]:
    known = balancer.control.get("/backends")["backends"]
    return {each["health"] for each in known if each["service"] == "web"}


def connect_to(hosts: lab.Lab, name: str) -> http.client.HTTPConnection:
    """Open connections until one leads to that backend."""
    for _ in range(100):
        connection, backend = connect(hosts)
        if backend.name == name:
            return connection
    raise AssertionError(f"100 connections, and none to {name}")


def connect(hosts: lab.Lab) -> tuple[http.client.HTTPConnection, lab.BackendHost]:
    """Open a connection that stays; give it, and the backend that it leads to."""
    connection = http.client.HTTPConnection(hosts.vip, lab.PORT)
    connection.sock = hosts.client.socket(family=hosts.family)
    connection.sock.connect((hosts.vip, lab.PORT))
    name = ask(connection)
    return connection, next(each for each in hosts.backends if each.name == name)


def ask(connection: http.client.HTTPConnection) -> str:
    """Send one request over it; the name of the backend that answers."""
    connection.request("GET", "/")
    return connection.getresponse().read().decode().strip()
