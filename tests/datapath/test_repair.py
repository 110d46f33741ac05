"""What somebody changes behind LLB's back is put right: maps, filters, addresses, pins."""

from __future__ import annotations

import ipaddress
import itertools
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llb_core.datapath import Datapath, Family, attach, bpf_map, bpf_syscall, layout, pins
from llb_core.datapath.bpf_map import MapWriter
from llb_core.demo.network import wait_until
from llb_core.map_sync import MapSync
from llb_core.model import Desired, Installed
from llb_core.planning.plan import make_plan
from llb_core.rules import Rules
from llb_core.rules_image import PREFIXES_A_LOOK
from tests.datapath.conftest import NAME, Host, desired, settings
from tests.datapath.conftest import VIPS as VIP_OF

BACKENDS = tuple(f"10.0.0.{n}:8080" for n in range(2, 8))

Maps = dict[str, MapWriter]


@pytest.fixture
def maps(host: Host) -> MapSync:
    """Map sync that has installed a service."""
    made = MapSync(Family(4, pins.open_maps(NAME, 4, 1000), ticks_per_second=250))
    made.apply(make_plan(desired(*BACKENDS), made.installed()))
    return made


@pytest.fixture
def theirs(maps: MapSync) -> Maps:
    """The same maps, as another program has them open."""
    opened = pins.open_maps(NAME, 4, 1000)
    return {name: MapWriter.of(each) for name, each in opened.items()}


def read() -> Installed:
    """What a daemon would read that starts now."""
    return MapSync(Family(4, pins.open_maps(NAME, 4, 1000), ticks_per_second=250)).installed()


def same(one: Installed, other: Installed) -> bool:
    return dict(one.services) == dict(other.services) and dict(one.backends) == dict(other.backends)


def inner(theirs: Maps) -> MapWriter:
    found = bpf_map.open_inner(theirs["maglev_tables"], 1)
    assert found is not None
    return MapWriter.of(found)


def flush_backends(theirs: Maps) -> None:
    slots = np.arange(layout.MAX_BACKENDS, dtype=np.uint32)
    records = np.zeros(layout.MAX_BACKENDS, dtype=layout.BACKEND)
    theirs["backends"].update_batch(slots, records)


def turn_a_backend(theirs: Maps) -> None:
    record = theirs["backends"].lookup(2)
    assert record is not None
    record["port"] = 22
    theirs["backends"].update(2, record)


def empty_a_service(theirs: Maps) -> None:
    theirs["services"].update(1, np.zeros((), dtype=layout.SERVICE))


def point_a_table_elsewhere(theirs: Maps) -> None:
    words = np.arange(1, 251, dtype=np.uint32)
    inner(theirs).update_batch(words, np.full(250, 77 * 0x0001_0001_0001_0001, dtype=np.uint64))


def shrink_a_table(theirs: Maps) -> None:
    inner(theirs).update(0, 3)


def take_a_table(theirs: Maps) -> None:
    theirs["maglev_tables"].delete(1)


def replace_a_table(theirs: Maps) -> None:
    other = bpf_map.create_inner(9)
    theirs["maglev_tables"].update(1, other.fd)


def close_a_service(theirs: Maps) -> None:
    for key in theirs["service_keys"].read_all()[0]:
        theirs["service_keys"].delete(key)


def mislead_a_service(theirs: Maps) -> None:
    for key in theirs["service_keys"].read_all()[0]:
        theirs["service_keys"].update(key, 9)


def add_a_service(theirs: Maps) -> None:
    theirs["service_keys"].update((0x01020304, 81, 6, 0), 1)


def close_the_filter(theirs: Maps) -> None:
    places, words = theirs["vip_filter"].read_all()
    theirs["vip_filter"].update_batch(places, np.zeros_like(words))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (flush_backends, "6 records of the map backends"),
        (turn_a_backend, "1 records of the map backends"),
        (empty_a_service, "1 records of the map services"),
        (point_a_table_elsewhere, "1000 places of the table of web"),
        (shrink_a_table, "1 places of the table of web"),
        (take_a_table, "the tables of web"),
        (replace_a_table, "the tables of web"),
        (close_a_service, "the entry of 203.0.113.10:80/tcp"),
        (mislead_a_service, "the entry of 203.0.113.10:80/tcp"),
        (add_a_service, "an entry of service_keys that is none of ours"),
        (close_the_filter, "1 words of the map vip_filter"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_map_that_somebody_changed_is_as_it_was(
    maps: MapSync, theirs: Maps, harm: Callable[[Maps], None], said: str
) -> None:
    wanted = maps.installed()
    marks, words = (theirs[each].read_all() for each in ("service_keys", "vip_filter"))
    assert maps.repair() == []
    harm(theirs)
    assert maps.repair() == [said]
    assert maps.repair() == []
    assert same(read(), wanted)
    assert same(maps.installed(), wanted)
    for before, after in zip(marks, theirs["service_keys"].read_all(), strict=True):
        assert sorted(before.tolist()) == sorted(after.tolist())
    assert theirs["vip_filter"].read_all()[1].tolist() == words[1].tolist()


@pytest.mark.parametrize("harm", [close_a_service, close_the_filter])
@pytest.mark.parametrize("is_begun_anew", [False, True])
def test_what_lets_packets_of_a_withdrawn_service_in_is_put_right(
    maps: MapSync, theirs: Maps, harm: Callable[[Maps], None], is_begun_anew: bool
) -> None:
    """Its connections go on: also by a daemon that starts after the harm was done."""
    maps.apply(make_plan(Desired({}), maps.installed()))
    names = ("service_keys", "vip_filter")
    before = [theirs[each].read_all()[0].tolist() for each in names]
    words = theirs["vip_filter"].read_all()[1].tolist()
    harm(theirs)

    read() if is_begun_anew else maps.repair()

    assert [theirs[each].read_all()[0].tolist() for each in names] == before
    assert theirs["vip_filter"].read_all()[1].tolist() == words


def prefixes(family: int, count: int) -> Rules:
    """So many networks, every third of them allowed."""
    first = ipaddress.ip_network({4: "198.18.0.0/15", 6: "2001:db8::/32"}[family])
    own = list(itertools.islice(first.subnets(new_prefix={4: 32, 6: 48}[family]), count))
    return Rules.of(own[::3], own[1::3] + own[2::3], family)


def entries(rules: MapWriter) -> dict[bytes, int]:
    keys, values = rules.read_all()
    return {key.tobytes(): int(value) for key, value in zip(keys, values, strict=True)}


def flush_the_prefixes(rules: MapWriter) -> None:
    rules.delete_batch(rules.read_all()[0])


def take_one_prefix(rules: MapWriter) -> None:
    rules.delete(rules.read_all()[0][-1])


def turn_one_prefix(rules: MapWriter) -> None:
    keys, values = rules.read_all()
    rules.update(keys[0], 3 - int(values[0]))


def add_a_prefix(rules: MapWriter) -> None:
    key = rules.read_all()[0][0].copy()
    key["service"] = 77
    rules.update(key, layout.RULE_ALLOW)


@pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("count", [5, 10_000])
@pytest.mark.parametrize(
    "harm", [flush_the_prefixes, take_one_prefix, turn_one_prefix, add_a_prefix]
)
def test_prefixes_that_somebody_changed_are_as_they_were(
    host: Host, family: int, count: int, harm: Callable[[MapWriter], None]
) -> None:
    made = MapSync(Family(family, pins.open_maps(NAME, family, 1000), ticks_per_second=250))
    wanted = desired(vip=VIP_OF[family])
    services = {
        key: replace(each, rules=prefixes(family, count)) for key, each in wanted.services.items()
    }
    made.apply(make_plan(Desired(services), made.installed()))
    looks = count // PREFIXES_A_LOOK + 2
    for _ in range(2 * looks):
        assert made.repair() == []
    theirs = MapWriter.of(pins.open_maps(NAME, family, 1000)["access_rules"])
    before = entries(theirs)
    harm(theirs)
    changed = abs(len(before) - len(entries(theirs))) or 1

    said = [each for _ in range(2 * looks) for each in made.repair()]

    assert all(each.endswith(" prefixes of the map access_rules") for each in said)
    assert sum(int(each.split()[0]) for each in said) == changed
    assert entries(theirs) == before
    if harm is flush_the_prefixes:
        harm(theirs)
        assert made.repair() or made.repair(), "a map that is empty is known by one look or two"


def test_prefixes_that_a_plan_changes_are_no_change(maps: MapSync) -> None:
    for count in (6_000, 3, 9_000, 0):
        wanted = desired(*BACKENDS)
        services = {
            key: replace(each, rules=prefixes(4, count)) for key, each in wanted.services.items()
        }
        maps.apply(make_plan(Desired(services), maps.installed()))
        for _ in range(4):
            assert maps.repair() == []


def test_what_map_sync_itself_has_written_is_no_change(maps: MapSync) -> None:
    for wanted in (desired(*BACKENDS[:3]), desired(*BACKENDS), desired(name="shop")):
        maps.apply(make_plan(wanted, maps.installed()))
        assert maps.repair() == []
    idle = frozenset(maps.installed().backends)
    maps.apply(make_plan(desired(), maps.installed(), idle_slots=idle))
    assert maps.repair() == []


def test_settings_that_somebody_changed_are_written_anew(maps: MapSync, theirs: Maps) -> None:
    assert maps.put_settings(settings(), private_index=7)
    assert not maps.put_settings(settings(), private_index=7)
    for harm in (
        lambda: theirs["configs"].update(int(theirs["config_index"].lookup(0) or 0), zeros()),
        lambda: theirs["config_index"].update(0, 1 - int(theirs["config_index"].lookup(0) or 0)),
        lambda: theirs["config_index"].update(0, 99),
    ):
        harm()
        assert maps.put_settings(settings(), private_index=7)
        assert not maps.put_settings(settings(), private_index=7)


def zeros() -> Any:
    return np.zeros((), dtype=layout.CONFIG)


@pytest.fixture
def installed(host: Host, datapath: Datapath) -> Datapath:
    """A balancer's host, prepared and attached."""
    datapath.prepare_host(VIPS)
    datapath.attach()
    assert datapath.repair(VIPS) == ([], [])
    return datapath


PASSING = b"\xb7\x00\x00\x00\xff\xff\xff\xff\x95\x00\x00\x00\x00\x00\x00\x00"
"""return -1;"""
VIPS = [ipaddress.ip_address("203.0.113.10")]


def delete_the_filter(host: Host) -> None:
    with attach.netlink() as ip:
        index = attach.interface_index(ip, "public")
        assert attach.detach(ip, index, NAME)


def delete_the_qdisc(host: Host) -> None:
    with attach.netlink() as ip:
        attach.remove_clsact(ip, attach.interface_index(ip, "public"))


def hang_another_program(host: Host) -> None:
    fd = bpf_syscall.prog_load(3, PASSING)
    with attach.netlink() as ip:
        attach.attach(ip, attach.interface_index(ip, "public"), fd, NAME)


def take_the_vip(host: Host) -> None:
    host.namespace.ip("addr del 203.0.113.10/32 dev lo")


def take_the_snat_address(host: Host) -> None:
    host.namespace.ip("addr del 10.0.0.11/32 dev private")


def switch_forwarding_off(host: Host) -> None:
    host.namespace.run("sysctl", "-qw", "net.ipv4.ip_forward=0")


def remove_the_pins(host: Host) -> None:
    shutil.rmtree(pins.pin_root(NAME))


def links(interface: str) -> list[Path]:
    with attach.netlink() as ip:
        index = attach.interface_index(ip, interface)
    return list(pins.pin_root(NAME).rglob(f"link_{index}"))


def remove_the_link(host: Host) -> None:
    for path in links("public"):
        path.unlink()


def detach_the_link(host: Host) -> None:
    for path in links("public"):
        link = bpf_syscall.obj_get(path)
        bpf_syscall.link_detach(link)
        os.close(link)


def put_another_program_in_its_place(host: Host) -> None:
    other = bpf_syscall.prog_load(3, PASSING)
    for path in links("public"):
        link = bpf_syscall.obj_get(path)
        bpf_syscall.link_update(link, other)
        os.close(link)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (remove_the_link, "pinned the link of IPv4 on public again"),
        (detach_the_link, "hung the classifier of IPv4 on public"),
        (put_another_program_in_its_place, "hung the classifier of IPv4 on public"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_link_that_somebody_took_is_there_again(
    host: Host, installed: Datapath, harm: Callable[[Host], None], said: str
) -> None:
    if not links("public"):
        assert not list(pins.pin_root(NAME).rglob("link_*")), "a kernel without TCX"
        return
    harm(host)
    wait_until(lambda: installed.repair(VIPS) == ([said], []), 30, "the classifier hangs again")
    assert installed.repair(VIPS) == ([], [])
    assert len(links("public")) == 1


def test_a_link_goes_on_though_all_pins_are_removed(host: Host, installed: Datapath) -> None:
    before = [bpf_syscall.pinned_link_info(path) for path in links("public")]
    remove_the_pins(host)
    done, _ = installed.repair(VIPS)
    assert [bpf_syscall.pinned_link_info(path) for path in links("public")] == before, (
        "no moment without it"
    )
    again = [f"pinned the link of IPv4 on {each} again" for each in ("public", "private")]
    assert done[1:] == (again if before else [])


@pytest.mark.usefixtures("clsact")
@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (delete_the_filter, "hung the classifier of IPv4 on public"),
        (delete_the_qdisc, "hung the classifier of IPv4 on public"),
        (hang_another_program, "hung the classifier of IPv4 on public"),
        (take_the_vip, "added 203.0.113.10 on lo"),
        (take_the_snat_address, "added 10.0.0.11 on private"),
        (switch_forwarding_off, "switched net.ipv4.ip_forward on"),
        (remove_the_pins, "pinned {count} maps of IPv4 again"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_host_that_somebody_changed_is_as_it_was(
    host: Host, installed: Datapath, harm: Callable[[Host], None], said: str
) -> None:
    harm(host)
    count = len(installed.families[4].maps) + 1
    assert installed.repair(VIPS) == ([said.format(count=count)], [])
    assert installed.repair(VIPS) == ([], [])


def test_what_was_pinned_again_are_the_same_maps(host: Host, installed: Datapath) -> None:
    maps = MapSync(installed.families[4])
    maps.apply(make_plan(desired(*BACKENDS), maps.installed()))
    remove_the_pins(host)
    installed.repair(VIPS)
    assert same(read(), maps.installed())


def test_an_interface_that_is_gone_is_named_and_served_when_it_is_back(
    host: Host, installed: Datapath
) -> None:
    host.namespace.ip("link del public")
    done, (missing,) = installed.repair(VIPS)
    assert not done
    assert 'interface "public" does not exist on this host' in missing
    host.namespace.ip("link add public type veth peer name other", "link set public up")
    assert installed.repair(VIPS) == (["hung the classifier of IPv4 on public"], [])
