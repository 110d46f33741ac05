"""An interface is taken away, and one comes back with another number and MAC address, as when a
virtual machine's card is replaced: the daemon says so, tells neighbours, and traffic goes on.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Namespace, Network, wait_until
from tests.netns.conftest import Balance
from tests.netns.test_self_repair import answers, told

pytestmark = pytest.mark.netns

BOTH = (4, 6)


def test_traffic_goes_on_once_an_interface_is_back(network: Network, balance: Balance) -> None:
    """First the public one, then the private one, with the SNAT addresses that go with it."""
    balancer = balance(families=BOTH)
    hosts = balancer.lab
    for neighbour in (hosts.client, *(each.host for each in hosts.backends)):
        ask_no_more(neighbour)
    with ExitStack() as stack:
        talks = [stack.enter_context(talking(hosts.of(family))) for family in BOTH]
        for interface, switch in (("eth0", "public"), ("eth1", "private")):
            other = network.get(switch)
            with taken_away(hosts.lb, interface, other):
                wait_until(
                    lambda: said(balancer, f'interface "{interface}" does not exist'),  # noqa: B023
                    lab.LIMIT,
                    "it is missed",
                )
            for family in BOTH:
                hung = f"hung the classifier of IPv{family} on {interface}"
                wait_until(lambda: told(balancer, hung), lab.LIMIT, hung)  # noqa: B023
                wait_until(lambda: answers(hosts.of(family)), lab.LIMIT, "it serves")  # noqa: B023
            text = f"the MAC address of {interface} is"
            wait_until(lambda: said(balancer, text), lab.LIMIT, "neighbours are told")  # noqa: B023
            for sock in talks:
                say(sock, "still")


def said(balancer: lab.Balancer, text: str) -> bool:
    """Say whether the daemon has said so."""
    lines = balancer.log.read_text().rpartition("\n")[0].splitlines()
    return any(text in json.loads(line)["message"] for line in lines)


@contextmanager
def taken_away(host: Namespace, interface: str, switch: Namespace) -> Iterator[None]:
    """Take an interface away, and give one of its name and addresses, with another MAC address."""
    known = json.loads(host.run("ip", "-j", "addr", "show", "dev", interface).stdout)[0]
    addresses = [f"{each['local']}/{each['prefixlen']}" for each in known["addr_info"]
                 if each["scope"] == "global"]  # fmt: skip
    host.ip(f"link del {interface}")
    yield
    host.ip(f"link add {interface} type veth peer name port0 netns {switch.name}")
    switch.ip("link set port0 up master bridge")
    host.ip(f"link set {interface} up", *(f"addr add {each} dev {interface}" for each in addresses))
    new = json.loads(host.run("ip", "-j", "link", "show", "dev", interface).stdout)[0]
    assert known["ifindex"] != new["ifindex"]
    assert known["address"] != new["address"]


def ask_no_more(host: Namespace) -> None:
    """Have a host believe for a day what it knows of its neighbours, however silent they are."""
    host.sysctl(*(f"net.ipv{each}.neigh.eth0.base_reachable_time_ms=86400000" for each in BOTH))


@contextmanager
def talking(hosts: lab.Lab) -> Iterator[socket.socket]:
    """A connection to the VIP that is there before."""
    with hosts.client.socket(family=hosts.family) as sock:
        sock.settimeout(60)
        sock.connect((hosts.vip, lab.PORT))
        say(sock, "before")
        yield sock


def say(sock: socket.socket, word: str) -> None:
    """Have a word said back."""
    sock.sendall(f"GET /say/{word} HTTP/1.1\r\n\r\n".encode())
    assert word.encode() in sock.recv(1000)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
