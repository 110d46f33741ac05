"""The ports that the host uses itself: no connection's SNAT tuple is on one of them, however few
are left."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from llb_core.demo import lab
from llb_core.demo.network import wait_until
from tests.netns import tables
from tests.netns.conftest import Balance
from tests.netns.test_policies import verdicts

pytestmark = pytest.mark.netns

BOTH = (4, 6)
PATIENCE = 60
FIRST, LAST = 20_000, 20_047
EPHEMERAL = {*range(20_000, 20_008)}
RESERVED = {*range(20_010, 20_018), 20_020}
LISTENING, LISTENING_EVERYWHERE, BOUND, ELSEWHERE = 20_022, 20_023, 20_024, 20_025
HOSTS = EPHEMERAL | RESERVED | {LISTENING, LISTENING_EVERYWHERE, BOUND}
ALL = {*range(FIRST, LAST + 1)}


def test_ports_of_the_host_are_given_to_no_connection_and_once_it_leaves_them_they_are(
    balance: Balance,
) -> None:
    """More connections are tried than there are ports, first from the very ports that the host has,
    until each port but the host's is taken."""
    balancer = balance(
        backends=1,
        families=BOTH,
        health='type = "none"',
        settings=f'snat_ports = "{FIRST}-{LAST}"',
    )
    with ExitStack() as stack:
        with using_ports(balancer.lab):
            wait_until(lambda: avoided(balancer) == [HOSTS] * 2, PATIENCE, "they are kept clear of")
            for family in BOTH:
                for port in sorted(HOSTS):
                    stack.enter_context(knock(balancer.lab.of(family), port))
                fill(balancer, family, ALL - HOSTS, stack)
                before = verdicts(balancer)["drop_no_port"]
                knock_on(balancer.lab.of(family), 2 * len(ALL), stack)
                wait_until(
                    lambda before=before: verdicts(balancer)["drop_no_port"] > before + len(ALL),
                    PATIENCE,
                    "more are turned away for want of a port",
                )
                assert taken(balancer, family) == ALL - HOSTS
        wait_until(lambda: avoided(balancer) == [set()] * 2, PATIENCE, "they are free")
        for family in BOTH:
            fill(balancer, family, ALL, stack)


@contextmanager
def using_ports(hosts: lab.Lab) -> Iterator[None]:
    """Have the balancer's host use ports in each of the ways there are; put all back at the end."""
    ranges = ("net.ipv4.ip_local_port_range", "net.ipv4.ip_local_reserved_ports")
    before = [hosts.lb.run("sysctl", "-n", name).stdout.strip() for name in ranges]
    reserved = ",".join(map(str, sorted(RESERVED)))
    ephemeral = f"{min(EPHEMERAL)} {max(EPHEMERAL)}"
    with ExitStack() as stack:
        for family in BOTH:
            own = hosts.of(family).addresses.backend(1)
            everywhere, loopback = {4: ("0.0.0.0", "127.0.0.1"), 6: ("::", "::1")}[family]
            for kind, address, port in (
                (socket.SOCK_STREAM, own, LISTENING),
                (socket.SOCK_STREAM, everywhere, LISTENING_EVERYWHERE),
                (socket.SOCK_DGRAM, own, BOUND),
                (socket.SOCK_STREAM, loopback, ELSEWHERE),
            ):
                sock = stack.enter_context(hosts.lb.socket(kind, family))
                if family == 6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind((address, port))
                if kind is socket.SOCK_STREAM:
                    sock.listen()
        hosts.lb.sysctl(*map("=".join, zip(ranges, (ephemeral, reserved), strict=True)))
        yield
        # An empty text would not be written at all.
        hosts.lb.sysctl(*(f"{name}={value}\n" for name, value in zip(ranges, before, strict=True)))


def avoided(balancer: lab.Balancer) -> list[set[int]]:
    """Return which ports of the range the classifier gives no connection, of each family."""
    found = []
    for family in BOTH:
        with tables.pinned(balancer, family) as maps:
            record = maps["configs"].lookup(int(maps["config_index"].lookup(0) or 0) & 1)
            assert record is not None
            words = [int(each) for each in record["host_ports"]]
            found.append({port for port in ALL if words[port // 64] >> port % 64 & 1})
    return found


def taken(balancer: lab.Balancer, family: int) -> set[int]:
    """Return the SNAT ports of all connections; no two of a backend share one."""
    ports = [dnat.becomes.sport for dnat, _ in tables.pairs_at_rest(balancer, family).values()]
    assert len(ports) == len(set(ports))
    return set(ports)


def fill(balancer: lab.Balancer, family: int, ports: set[int], stack: ExitStack) -> None:
    """Open connections until these ports are taken, and no others."""

    def are_taken() -> bool:
        now = taken(balancer, family)
        assert now <= ports, f"IPv{family}: {sorted(now - ports)} are given out"
        if now != ports:
            knock_on(balancer.lab.of(family), 20, stack)
        return now == ports

    wait_until(are_taken, PATIENCE, f"every port of IPv{family} but the host's is taken")


def knock_on(hosts: lab.Lab, number: int, stack: ExitStack) -> None:
    """Begin connections that stay until the stack is closed."""
    for _ in range(number):
        stack.enter_context(knock(hosts))


def knock(hosts: lab.Lab, port: int = 0) -> socket.socket:
    """Begin a connection, from a port or from any, and do not wait for an answer."""
    sock = hosts.client.socket(family=hosts.family)
    sock.setblocking(False)
    sock.bind((hosts.addresses.client(11), port))
    with suppress(BlockingIOError):
        sock.connect((hosts.vip, lab.PORT))
    return sock
