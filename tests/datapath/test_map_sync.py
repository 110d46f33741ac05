"""Plans on the real maps: what is put is read back, and the maps in memory behave the same."""

from __future__ import annotations

import ipaddress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from llb_core.datapath import Family, bpf_map, bpf_syscall, pins
from llb_core.datapath.bpf_map import MapWriter
from llb_core.datapath.layout import records
from llb_core.errors import MapError
from llb_core.map_sync import MapSync
from llb_core.model import BackendMode, Desired, Installed, Route
from llb_core.planning.changes import Plan
from llb_core.planning.plan import make_plan
from llb_core.testing.maps import MemoryMaps
from tests.datapath.conftest import NAME, VIPS, Host, desired, settings

BACKENDS = {
    4: tuple(f"10.0.0.{n}:8080" for n in range(2, 8)),
    6: tuple(f"[fd00:b::{n}]:8080" for n in range(2, 8)),
}
BOTH_FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
MODES = (BackendMode.ACTIVE, BackendMode.DRAINING, BackendMode.ENDING)


def open_maps(family: int = 4) -> MapSync:
    """Map sync on real maps, without programs: none is needed to carry plans out."""
    return MapSync(Family(family, pins.open_maps(NAME, family, 1000), ticks_per_second=250))


def carry_out(
    maps: MapSync | MemoryMaps, wanted: Desired, idle_slots: frozenset[int] = frozenset()
) -> Plan:
    plan = make_plan(wanted, maps.installed(), idle_slots=idle_slots)
    maps.apply(plan)
    return plan


def same(one: Installed, other: Installed) -> bool:
    return dict(one.services) == dict(other.services) and dict(one.backends) == dict(other.backends)


@BOTH_FAMILIES
def test_what_is_put_is_read_back(host: Host, family: int) -> None:
    maps = open_maps(family)
    wanted = desired(*BACKENDS[family][:2], vip=VIPS[family])

    carry_out(maps, wanted)

    installed = maps.installed()
    (service,) = installed.services.values()
    assert service.name == "web"
    assert service.is_reachable
    assert str(service.key) == f"{VIPS[family]}:80/tcp"
    placed = {str(each.endpoint) for each in installed.backends.values()}
    assert placed == set(BACKENDS[family][:2])
    assert set(service.table.tolist()) == set(installed.backends)
    assert not make_plan(wanted, installed)


def test_tables_are_put_where_the_kernel_writes_no_map_of_maps_in_batches(
    host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    maps = open_maps()
    outer, batch = pins.open_maps(NAME, 4, 1000)["maglev_tables"], bpf_syscall.map_batch

    def refusing(command: int, fd: int, *rest: int) -> tuple[int, int]:
        is_outer = bpf_syscall.map_info(fd).id == bpf_syscall.map_info(outer.fd).id
        return (0, 524) if is_outer else batch(command, fd, *rest)

    monkeypatch.setattr(bpf_syscall, "map_batch", refusing)
    carry_out(maps, desired(*BACKENDS[4]))
    assert maps.repair() == []
    (service,) = open_maps().installed().services.values()
    assert service.table.size


def test_a_name_may_have_64_bytes_and_no_more(host: Host) -> None:
    maps = open_maps()
    carry_out(maps, desired(name="ä" * 32))

    (service,) = maps.installed().services.values()
    assert service.name == "ä" * 32
    with pytest.raises(MapError, match="longer than 64 bytes"):
        carry_out(maps, desired(name="ä" * 33))


@BOTH_FAMILIES
def test_another_process_reads_the_same(host: Host, family: int) -> None:
    maps = open_maps(family)
    carry_out(maps, desired(*BACKENDS[family], vip=VIPS[family]))

    assert same(open_maps(family).installed(), maps.installed())


def test_a_gateway_of_the_other_family_is_left_to_the_kernel(host: Host) -> None:
    maps = open_maps()
    wanted = desired(*BACKENDS[4])
    (key,) = wanted.services
    service = wanted.services[key]
    behind = replace(service.backends[0], route=Route(2, None, 1400))
    wanted = Desired({key: replace(service, backends=(behind,))})
    carry_out(maps, wanted)

    (backend,) = open_maps().installed().backends.values()
    assert backend.route == Route(2, None, 1400)
    assert not make_plan(wanted, maps.installed())


@BOTH_FAMILIES
def test_the_mark_of_an_address_goes_with_what_is_left_of_its_last_service(
    host: Host, family: int
) -> None:
    maps = open_maps(family)
    keys = maps._maps["service_keys"]
    wanted = desired(*BACKENDS[family], vip=VIPS[family])
    (key,) = wanted.services
    other = replace(key, endpoint=replace(key.endpoint, port=81))
    both = {key: wanted.services[key], other: replace(wanted.services[key], key=other)}
    carry_out(maps, Desired(both))
    assert sorted(keys.read_all()[0]["port"].tolist()) == [0, 80, 81]
    carry_out(maps, wanted)
    assert sorted(keys.read_all()[0]["port"].tolist()) == [0, 80]
    carry_out(maps, Desired({}))
    assert keys.read_all()[0]["port"].tolist() == [0]
    assert open_maps(family).repair() == []
    assert keys.read_all()[0]["port"].tolist() == [0]
    carry_out(maps, Desired({}), idle_slots=frozenset(maps.installed().backends))
    assert not len(keys.read_all()[0])


def test_a_small_change_writes_only_the_places_that_changed(host: Host) -> None:
    maps = open_maps()
    carry_out(maps, desired(*BACKENDS[4]))
    before = next(iter(maps.installed().services.values())).table

    plan = carry_out(maps, desired(*BACKENDS[4][:-1]))

    after = next(iter(maps.installed().services.values())).table
    written = [change for change in plan if hasattr(change, "places")]
    assert len(before) == len(after)
    assert [len(change.places) for change in written] == [int((before != after).sum())]


def test_no_place_is_written_beyond_a_table_that_somebody_put_there(host: Host) -> None:
    maps = open_maps()
    carry_out(maps, desired(*BACKENDS[4]))
    theirs = MapWriter.of(pins.open_maps(NAME, 4, 1000)["maglev_tables"])
    other = bpf_map.create_inner(9)
    theirs.update(1, other.fd)

    with pytest.raises(MapError, match=r"write table of service web: .*: the table is another one"):
        carry_out(maps, desired(*BACKENDS[4][1:]))

    carry_out(maps, desired(*BACKENDS[4][1:]))
    (service,) = open_maps().installed().services.values()
    assert service.table.size > 9
    assert len(set(service.table.tolist())) == len(BACKENDS[4]) - 1


@BOTH_FAMILIES
def test_settings_are_swapped_whole(host: Host, family: int) -> None:
    maps = open_maps(family)
    readers = pins.open_maps(NAME, family, 1000)
    maps.put_settings(settings(), private_index=7)
    first = int(readers["config_index"].lookup(0) or 0)

    maps.put_settings(settings(snat_ports=(2000, 2999)), private_index=7)

    second = int(readers["config_index"].lookup(0) or 0)
    record = readers["configs"].lookup(second)
    assert first != second
    assert record is not None
    assert (record["port_low"], record["port_count"]) == (2000, 1000)
    unpack = records(family).unpack
    assert [unpack(each) for each in record["snat"][: record["snat_count"]]] == [
        *settings().snat_of(family)
    ]
    assert (record["cidr_count"], unpack(record["cidrs"][0]["address"])) == (
        1,
        settings().cidrs_of(family)[0].network_address,
    )
    assert unpack(record["cidrs"][0]["mask"]) == settings().cidrs_of(family)[0].netmask
    old = readers["configs"].lookup(first)
    assert old is not None
    assert old["port_low"] == 1024


def test_networks_are_joined_and_too_many_refused(host: Host) -> None:
    maps = open_maps()
    halves = tuple(ipaddress.ip_network("10.0.0.0/24").subnets(new_prefix=30))
    apart = tuple(ipaddress.ip_network(f"10.{n}.0.0/24") for n in range(17))

    maps.put_settings(settings(backend_cidrs=halves), private_index=7)

    with pytest.raises(MapError, match="17 networks of IPv4, the classifier takes 16"):
        maps.put_settings(settings(backend_cidrs=apart), private_index=7)


def test_counters_of_a_slot_begin_anew(host: Host) -> None:
    maps = open_maps()
    carry_out(maps, desired("10.0.0.2:8080"))
    counters = maps._maps["backend_counters"]
    counters.update(1, np.ones((), dtype=counters.spec.value))
    carry_out(maps, desired())
    maps.apply(make_plan(desired(), maps.installed(), idle_slots={1}))

    carry_out(maps, desired("10.0.0.3:8080"))

    found = counters.lookup(1)
    assert found is not None
    assert not any(int(value) for cpu in found for value in cpu)


steps = st.lists(
    st.tuples(st.sets(st.integers(0, 5)), st.sampled_from(MODES), st.integers(0, 12)),
    min_size=1,
    max_size=6,
)


@BOTH_FAMILIES
@hypothesis_settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=steps)
def test_the_maps_in_memory_behave_as_the_real_ones(
    host: Host, family: int, steps: list[tuple[set[int], BackendMode, int]]
) -> None:
    """Also when a plan is cut off and made anew."""
    pins.remove_pins(NAME)
    real, memory = open_maps(family), MemoryMaps()

    for places, mode, cut in steps:
        backends = [BACKENDS[family][place] for place in places]
        wanted = desired(*backends, mode=mode, vip=VIPS[family])
        for maps in (real, memory):
            plan = make_plan(wanted, maps.installed())
            maps.apply(Plan(plan.changes[:cut]))
        assert same(real.installed(), memory.installed())
        for maps in (real, memory):
            carry_out(maps, wanted)
            assert not make_plan(wanted, maps.installed())
        assert same(real.installed(), memory.installed())
