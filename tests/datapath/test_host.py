"""What LLB changes on a host, and that detach puts all of it back."""

from __future__ import annotations

import ipaddress
import socket
import struct
import subprocess
from pathlib import Path

import pytest

from llb_core.datapath import Datapath, Family, attach, forwarding, pins
from llb_core.datapath import host as host_module
from llb_core.datapath.datapath import PATIENCE
from llb_core.demo.network import Namespace, Network, wait_until
from llb_core.errors import HostError
from llb_core.map_sync import MapSync
from llb_core.model import Address, Route
from llb_core.planning.plan import make_plan
from llb_core.testing import Clock
from tests.datapath.conftest import NAME, VIPS, Host, desired, settings

VIP = ipaddress.ip_address("203.0.113.10")
VIP6 = ipaddress.ip_address("2001:db8:f::10")
ON_LINK6 = ipaddress.ip_address("2001:db8:c::10")
IPV6_SYSCTLS = Path("/proc/sys/net/ipv6/conf")


def snapshot() -> dict[str, str]:
    """What of this host LLB could change."""
    names = [
        path for each in ("forwarding", "accept_ra") for path in IPV6_SYSCTLS.glob(f"*/{each}")
    ]
    return {
        "addresses": _ip("-o", "addr"),
        "routes": _ip("-6", "route", "show", "table", "all"),
        "ipv6": "".join(f"{path} {path.read_text()}" for path in sorted(names)),
        "qdiscs": _tc("qdisc", "show"),
        "filters": _tc("filter", "show", "dev", "public", "ingress"),
        "forwarding": Path("/proc/sys/net/ipv4/ip_forward").read_text(),
    }


def install(datapath: Datapath) -> None:
    datapath.prepare_host([VIP])
    datapath.attach()


def test_detach_leaves_the_host_as_it_was(host: Host, datapath: Datapath) -> None:
    before = snapshot()
    install(datapath)
    assert snapshot() != before

    Datapath.detach(NAME)

    assert snapshot() == before


@pytest.mark.usefixtures("clsact")
def test_both_families_are_attached_and_taken_away(host: Host) -> None:
    before = snapshot()
    datapath = Datapath.open(host.config.loadbalancer, [4, 6])
    datapath.prepare_host([VIP, VIP6])
    datapath.attach()
    datapath.attach()
    shown = _tc("filter", "show", "dev", "public", "ingress")
    assert [shown.count(f"llb/{NAME}/ipv{family}") for family in (4, 6)] == [1, 1]
    assert "fd00:b::11/128" in _ip("-6", "-o", "addr", "show", "dev", "private")
    datapath.close_family(6)
    assert "ipv6" not in _tc("filter", "show", "dev", "public", "ingress")
    assert [path.name for path in pins.pin_root(NAME).glob("*/*")] == ["ipv4"]
    datapath.prepare_host([VIP])
    assert "fd00:b::11" not in _ip("-6", "addr")
    datapath.close()

    Datapath.detach(NAME)

    assert snapshot() == before


@pytest.mark.usefixtures("clsact")
def test_a_start_takes_a_family_away_that_nothing_uses(host: Host) -> None:
    datapath = Datapath.open(host.config.loadbalancer, [4, 6])
    datapath.attach()
    datapath.close()

    again = Datapath.open(host.config.loadbalancer, [4])

    assert list(again.families) == [4]
    assert "ipv6" not in _tc("filter", "show", "dev", "private", "ingress")
    again.close()


def test_a_start_opens_a_family_that_an_earlier_configuration_left_services_in(host: Host) -> None:
    family = Family(6, pins.open_maps(NAME, 6, 1000), ticks_per_second=250)
    wanted = desired("[fd00:b::2]:8080", vip=VIPS[6])
    MapSync(family).apply(make_plan(wanted, family.installed()))
    family.close()

    datapath = Datapath.open(host.config.loadbalancer, [4])

    assert sorted(datapath.families) == [4, 6]
    datapath.close()


class TestIpv6:
    """What is of IPv6 alone."""

    @pytest.fixture
    def changes(self, host: Host) -> host_module.Changes:
        return host_module.Changes(NAME)

    def switch_on(self, changes: host_module.Changes) -> list[str]:
        return forwarding.switch_on(changes, [6], ["public", "private"])

    def test_forwarding_is_switched_on_for_our_interfaces_alone(
        self, host: Host, changes: host_module.Changes
    ) -> None:
        self.switch_on(changes)
        found = {name: sysctl(name, "forwarding") for name in ("public", "private", "lo", "all")}
        assert found == {"public": "1", "private": "1", "lo": "0", "all": "0"}
        assert self.switch_on(changes) == []

    def test_the_hosts_default_routes_stay_alive(
        self, host: Host, network: Network, changes: host_module.Changes
    ) -> None:
        """Also those of interfaces that are none of ours."""
        router = network.add("router")
        network.link((host.namespace, "other"), (router, "eth0"))
        advertisers = {"public": (host.peer, "client"), "other": (router, "eth0")}
        for interface, (namespace, its) in advertisers.items():
            advertise(namespace, its)
            wait_until(lambda i=interface: has_default(i), 30, f"{interface} has a default route")

        self.switch_on(changes)

        assert has_default("public")
        assert has_default("other")
        assert (sysctl("public", "accept_ra"), sysctl("other", "accept_ra")) == ("2", "1")
        _ip("-6", "route", "del", "default", "dev", "public")
        advertise(*advertisers["public"])
        wait_until(lambda: has_default("public"), 30, "advertisements are still followed")
        with attach.netlink() as ip:
            host_module.undo(ip, changes)
        assert sysctl("public", "accept_ra") == "1"
        assert sysctl("public", "forwarding") == "0"

    def test_a_vip_of_a_network_goes_to_its_interface(self, host: Host) -> None:
        placed = host_module.placed(["public", "private"], [VIP, VIP6, ON_LINK6])
        assert placed == [("lo", VIP), ("lo", VIP6), ("public", ON_LINK6)]

    def test_a_vip_follows_once_its_interface_has_its_network(
        self, host: Host, changes: host_module.Changes
    ) -> None:
        """As when an interface comes back, and gets its addresses later."""

        def add(*vips: Address) -> list[str]:
            placed = host_module.placed(["public", "private"], vips)
            with attach.netlink() as ip:
                return host_module.add_addresses(ip, changes, placed)

        others = ipaddress.ip_address("2001:db8:c::20")
        host.namespace.ip(f"addr add {others} dev lo", "addr flush dev public")
        assert add(VIP6, ON_LINK6, others) == [f"{VIP6} on lo", f"{ON_LINK6} on lo"]
        host.namespace.ip("addr add 2001:db8:c::1/64 dev public")
        assert add(VIP6, ON_LINK6, others) == [f"{ON_LINK6} on public"]
        assert add(VIP6, ON_LINK6, others) == []
        on_loopback = _ip("-o", "addr", "show", "dev", "lo")
        assert str(ON_LINK6) not in on_loopback
        assert str(others) in on_loopback, "what somebody else put there stays"
        records = [(each, f"{vip}/128") for each, vip in (("lo", VIP6), ("public", ON_LINK6))]
        assert changes.addresses == host_module.Changes.load(NAME).addresses == records

    def test_one_that_the_hosts_own_configuration_gave_it_is_waited_for(self, host: Host) -> None:
        """With a network of one address it would be in the way of the one with its network."""
        clock = Clock()
        datapath = Datapath(settings(), monotonic=clock)
        host.namespace.ip(f"addr add {ON_LINK6}/64 dev public")
        assert datapath.repair([ON_LINK6]) == ([], [])
        host.namespace.ip(f"addr del {ON_LINK6}/64 dev public")
        assert datapath.repair([ON_LINK6]) == ([], [])
        clock.now += PATIENCE
        added = [f"added {ON_LINK6} on public"]
        assert datapath.repair([ON_LINK6]) == (added, [])
        host.namespace.ip(f"addr del {ON_LINK6}/128 dev public")
        assert datapath.repair([ON_LINK6]) == (added, []), "ours is back at once"

    def test_addresses_are_there_at_once_and_no_source_of_the_hosts_own(
        self, host: Host, changes: host_module.Changes
    ) -> None:
        with attach.netlink() as ip:
            host_module.add_addresses(ip, changes, [("public", ON_LINK6)])
        (line,) = [each for each in _ip("-o", "-6", "addr").splitlines() if str(ON_LINK6) in each]
        assert {"nodad", "deprecated"} <= set(line.split())
        assert "tentative" not in line
        got = _ip("-6", "route", "get", "2001:db8:c::99")
        assert "src 2001:db8:c::1 " in got

    def test_ipv6_that_is_off_is_named(self, host: Host, changes: host_module.Changes) -> None:
        (IPV6_SYSCTLS / "private" / "disable_ipv6").write_text("1")
        with pytest.raises(HostError, match=r"IPv6 is off on interface private: sysctl -w net.*=0"):
            self.switch_on(changes)

    def test_routes_by_link_local_gateways_and_gateways_of_the_other_family(
        self, host: Host
    ) -> None:
        datapath = Datapath(settings())
        host.namespace.ip(
            "route add fd00:1::/64 via fe80::1 dev private mtu 1400",
            "route add 10.1.0.0/24 via inet6 fe80::1 dev private",
            "route add blackhole fd00:2::/64",
        )
        on_link, behind, mixed = (
            [ipaddress.ip_address(f"{network}{host}") for host in (2, 3)]
            for network in ("fd00:b::", "fd00:1::", "10.1.0.")
        )
        nowhere = [ipaddress.ip_address(each) for each in ("fd00:2::2", "fd00:b::1")]
        index = datapath.private_index()

        found = datapath.routes([*on_link, *behind, *mixed, *nowhere])

        assert found == {
            **{address: Route(index, address, 1500) for address in on_link},
            **dict.fromkeys(behind, Route(index, ipaddress.ip_address("fe80::1"), 1400)),
            **dict.fromkeys(mixed, Route(index, None, 1500)),
        }


def sysctl(interface: str, name: str) -> str:
    return (IPV6_SYSCTLS / interface / name).read_text().strip()


def advertise(router: Namespace, interface: str) -> None:
    """Send a router advertisement (RFC 4861, 4.2) that makes its sender a default router."""
    shown = ("ip", "-6", "addr", "show", "dev", interface, "scope", "link")
    wait_until(lambda: "fe80::" in router.run(*shown).stdout, 30, "it has an address to send from")
    with router.entered(), socket.socket(socket.AF_INET6, socket.SOCK_RAW, 58) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
        index = socket.if_nametoindex(interface)
        sock.sendto(
            struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0), ("ff02::1", 0, 0, index)
        )


def has_default(interface: str) -> bool:
    return "proto ra" in _ip("-6", "route", "show", "default", "dev", interface)


def test_detach_keeps_what_others_put_there(host: Host, datapath: Datapath) -> None:
    subprocess.run(["tc", "qdisc", "add", "dev", "public", "clsact"], check=True)
    host.namespace.ip("addr add 203.0.113.10/32 dev lo")
    before = snapshot()
    install(datapath)

    Datapath.detach(NAME)

    assert snapshot() == before


@pytest.mark.usefixtures("clsact")
def test_keeps_clsact_while_another_filter_hangs_there(host: Host, datapath: Datapath) -> None:
    install(datapath)
    with attach.netlink() as ip:
        index = attach.interface_index(ip, "public")
        attach.attach(ip, index, datapath.families[4].program_fds["classify"], "another")

    Datapath.detach(NAME)

    assert "llb/another/ipv4" in _tc("filter", "show", "dev", "public", "ingress")


@pytest.mark.usefixtures("clsact")
def test_attaching_again_replaces_in_place(host: Host, datapath: Datapath) -> None:
    install(datapath)
    install(datapath)

    shown = _tc("filter", "show", "dev", "public", "ingress")

    assert shown.count(f"llb/{NAME}/ipv4") == 1


@pytest.mark.usefixtures("clsact")
def test_takes_the_classifier_from_an_interface_that_is_not_named_any_more(
    host: Host, datapath: Datapath
) -> None:
    install(datapath)
    datapath.settings = settings(public_interfaces=("private",))

    datapath.attach()

    assert "llb/" not in _tc("filter", "show", "dev", "public", "ingress")
    assert "llb/" in _tc("filter", "show", "dev", "private", "ingress")


def test_takes_an_address_away_that_is_wanted_no_longer(host: Host, datapath: Datapath) -> None:
    install(datapath)

    datapath.prepare_host([])

    assert "203.0.113.10" not in _ip("-4", "addr")


def test_adds_no_address_where_it_is_told_not_to(host: Host) -> None:
    datapath = Datapath.open(settings(manage_addresses=False), [4])

    datapath.prepare_host([VIP])

    assert "203.0.113.10" not in _ip("-4", "addr")


@pytest.mark.usefixtures("clsact")
def test_what_was_changed_is_known_to_the_next_process(host: Host, datapath: Datapath) -> None:
    install(datapath)
    datapath.close()

    changes = host_module.Changes.load(NAME)

    assert ("lo", "203.0.113.10/32") in changes.addresses
    assert changes.sysctls == {"net/ipv4/ip_forward": "0"}
    assert changes.clsact == ["public", "private"]


def test_a_record_that_cannot_be_read_is_an_error(host: Host) -> None:
    changes = host_module.Changes(NAME)
    changes.save()
    changes.path.write_text("{")

    try:
        with pytest.raises(HostError, match=r"\.host\.json: .*by hand"):
            host_module.Changes.load(NAME)
    finally:
        changes.path.unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"public_interfaces": ("nope",)}, 'interface "nope" does not exist'),
        ({"private_interface": "nope"}, 'interface "nope" does not exist'),
        ({"public_interfaces": ("lo",)}, 'interface "lo" is the loopback'),
        ({"snat_ports": (30000, 40000)}, "meets the host's own ports"),
    ],
    ids=["public", "private", "loopback", "ports"],
)
def test_refuses_what_the_host_does_not_have(
    host: Host, change: dict[str, object], message: str
) -> None:
    before = snapshot()

    with pytest.raises(HostError, match=message):
        Datapath.open(settings(**change), [4])

    assert snapshot() == before
    assert Datapath.detach(NAME) == []


def test_routes_name_next_hop_interface_and_mtu(host: Host, datapath: Datapath) -> None:
    host.namespace.ip(
        "route add 10.1.0.0/24 via 10.0.0.254 mtu 1400",
        "route add blackhole 10.2.0.0/24",
    )
    on_link, behind, nowhere = (
        [ipaddress.ip_address(f"{network}{host}") for host in (2, 3)]
        for network in ("10.0.0.", "10.1.0.", "10.2.0.")
    )
    own, index = ipaddress.ip_address("10.0.0.1"), datapath.private_index()

    routes = datapath.routes([*on_link, *behind, *nowhere, own])

    assert routes == {
        **{address: Route(index, address, 1500) for address in on_link},
        **dict.fromkeys(behind, Route(index, ipaddress.ip_address("10.0.0.254"), 1400)),
    }


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def _tc(*arguments: str) -> str:
    return subprocess.run(["tc", *arguments], capture_output=True, text=True, check=True).stdout


def test_what_can_not_be_written_down_is_not_changed(
    host: Host, datapath: Datapath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Where the file is written before it is renamed there is something that can't be written.
    (tmp_path / f"{NAME}.host.json.new").mkdir()
    monkeypatch.setattr("llb_core.datapath.host.RUN", tmp_path)
    before = host.namespace.run("ip", "-o", "addr").stdout
    with pytest.raises(HostError, match=r"host.json: what LLB changes .* can't be written down"):
        datapath.prepare_host([ipaddress.ip_address("203.0.113.10")])
    assert host.namespace.run("ip", "-o", "addr").stdout == before
