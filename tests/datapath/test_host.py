"""What LLB changes on a host, and that detach puts all of it back."""

from __future__ import annotations

import ipaddress
import subprocess
from pathlib import Path

import pytest

from llb_core.datapath import Datapath, attach
from llb_core.datapath import host as host_module
from llb_core.errors import HostError
from tests.datapath.conftest import NAME, Host, settings

VIP = ipaddress.ip_address("203.0.113.10")


def snapshot() -> dict[str, str]:
    """What of this host LLB could change."""
    return {
        "addresses": _ip("-o", "-4", "addr"),
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


def test_detach_keeps_what_others_put_there(host: Host, datapath: Datapath) -> None:
    subprocess.run(["tc", "qdisc", "add", "dev", "public", "clsact"], check=True)
    host.namespace.ip("addr add 203.0.113.10/32 dev lo")
    before = snapshot()
    install(datapath)

    Datapath.detach(NAME)

    assert snapshot() == before


def test_keeps_clsact_while_another_filter_hangs_there(host: Host, datapath: Datapath) -> None:
    install(datapath)
    with attach.netlink() as ip:
        index = attach.interface_index(ip, "public")
        attach.attach(ip, index, datapath.families[4].program_fds["classify"], "another")

    Datapath.detach(NAME)

    assert "llb/another/ipv4" in _tc("filter", "show", "dev", "public", "ingress")


def test_attaching_again_replaces_in_place(host: Host, datapath: Datapath) -> None:
    install(datapath)
    install(datapath)

    shown = _tc("filter", "show", "dev", "public", "ingress")

    assert shown.count(f"llb/{NAME}/ipv4") == 1


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
    on_link, behind, nowhere, own = (
        ipaddress.ip_address(each) for each in ("10.0.0.2", "10.1.0.2", "10.2.0.2", "10.0.0.1")
    )

    routes = datapath.routes([on_link, behind, nowhere, own])

    assert set(routes) == {on_link, behind}
    assert (routes[on_link].next_hop, routes[on_link].mtu) == (on_link, 1500)
    assert (str(routes[behind].next_hop), routes[behind].mtu) == ("10.0.0.254", 1400)
    assert routes[on_link].interface == datapath.private_index()


def _ip(*arguments: str) -> str:
    return subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True).stdout


def _tc(*arguments: str) -> str:
    return subprocess.run(["tc", *arguments], capture_output=True, text=True, check=True).stdout
