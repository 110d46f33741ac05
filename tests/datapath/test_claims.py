"""SNAT addresses that somebody else has are found: on the same link, and on the same host."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from llb_core.config import LoadBalancerConfig
from llb_core.datapath import claims, pins
from llb_core.demo.network import Namespace, Network
from llb_core.errors import HostError
from tests.datapath.conftest import NAME, settings

pytestmark = pytest.mark.netns

TAKEN = {4: ipaddress.ip_address("10.0.0.1"), 6: ipaddress.ip_address("fd00::1")}
FREE = {4: ipaddress.ip_address("10.0.0.2"), 6: ipaddress.ip_address("fd00::2")}
OTHER = f"{NAME}-other"


@dataclass
class Link:
    """A host of ours, another one on its private link, and what that is called."""

    ours: Namespace
    mac: str


@pytest.fixture(scope="module")
def link() -> Iterator[Link]:
    with Network() as network:
        ours, theirs = network.add("ours"), network.add("theirs")
        network.link((ours, "eth1"), (theirs, "eth0"))
        for host in (ours, theirs):
            host.sysctl("net.ipv6.conf.all.disable_ipv6=0")
        ours.ip("addr add 10.0.0.9/24 dev eth1", "addr add fd00::9/64 dev eth1 nodad")
        theirs.ip("addr add 10.0.0.1/24 dev eth0", "addr add fd00::1/64 dev eth0 nodad")
        shown = theirs.run("ip", "-brief", "link", "show", "dev", "eth0").stdout
        yield Link(ours, re.findall(r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", shown)[0])


@pytest.mark.parametrize("family", [4, 6])
def test_another_host_that_has_the_address_is_found(link: Link, family: int) -> None:
    asked = [TAKEN[family], FREE[family]]
    with link.ours.entered():
        assert claims.find_owners("eth1", asked, wait=2) == {TAKEN[family]: link.mac}


@pytest.mark.parametrize("family", [4, 6])
def test_our_own_address_is_nobodys(link: Link, family: int) -> None:
    own = ipaddress.ip_address({4: "10.0.0.9", 6: "fd00::9"}[family])
    with link.ours.entered():
        assert claims.find_owners("eth1", [own]) == {}


def test_an_interface_without_a_link_is_not_asked(link: Link) -> None:
    with link.ours.entered():
        assert claims.find_owners("lo", [TAKEN[4]]) == {}
        assert claims.find_owners("eth7", [TAKEN[4]]) == {}


def balancer(**changes: object) -> LoadBalancerConfig:
    return replace(settings(private_interface="eth1"), **changes)  # type: ignore[arg-type]


def test_it_is_refused_and_the_other_host_is_named(link: Link) -> None:
    wanted = balancer(snat_addresses=(TAKEN[4],))
    with link.ours.entered():
        with pytest.raises(HostError, match=rf"10\.0\.0\.1 is that of another host.*{link.mac}"):
            claims.refuse_what_others_have(wanted)
        claims.refuse_what_others_have(wanted, ours=[TAKEN[4]])  # known to be our own


@pytest.fixture
def other(link: Link) -> Iterator[LoadBalancerConfig]:
    """Another balancer on the same host, which has something installed."""
    theirs = balancer(name=OTHER, snat_addresses=(FREE[4],), snat_ports=(1024, 2000))
    with link.ours.entered():
        claims.claim(theirs)
        pins.open_maps(OTHER, 4, 1000)
        yield theirs
    claims.forget(OTHER)
    pins.remove_pins(OTHER, 4)
    pins.remove_pins(OTHER)


@pytest.mark.parametrize(
    ("address", "ports", "is_refused"),
    [
        (FREE[4], (2000, 3000), True),
        (FREE[4], (2001, 3000), False),
        (ipaddress.ip_address("10.0.0.3"), (1024, 2000), False),
    ],
    ids=["ports meet", "other ports", "another address"],
)
def test_another_balancer_on_this_host_is_named(
    other: LoadBalancerConfig, address: object, ports: tuple[int, int], is_refused: bool
) -> None:
    wanted = balancer(snat_addresses=(address,), snat_ports=ports)
    if is_refused:
        with pytest.raises(HostError, match=f'that of the balancer "{OTHER}" on this host too'):
            claims.refuse_what_others_have(wanted)
    else:
        claims.refuse_what_others_have(wanted)


def test_one_in_another_network_is_none_of_our_business(
    other: LoadBalancerConfig, link: Link
) -> None:
    with Network() as network:
        elsewhere = network.add("elsewhere")
        with elsewhere.entered():
            claims.refuse_what_others_have(balancer(snat_addresses=(FREE[4],)))


def test_one_of_which_nothing_is_installed_claims_nothing(
    other: LoadBalancerConfig,
) -> None:
    pins.remove_pins(OTHER, 4)
    claims.refuse_what_others_have(balancer(snat_addresses=(FREE[4],)))


def test_our_own_claim_is_not_in_our_way(other: LoadBalancerConfig) -> None:
    claims.refuse_what_others_have(other)
