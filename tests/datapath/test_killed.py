"""LLB is killed before every single write that it asks the kernel for, and the next one takes over:
whatever was left, no place of a table leads astray, and all ends where it ought to."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator

import numpy as np
import pytest

from llb_core.datapath import Datapath, Family, jumps, pins
from llb_core.datapath.layout import map_specs
from llb_core.map_sync import MapSync
from llb_core.model import BackendMode, Desired, Installed
from llb_core.planning import maglev
from llb_core.planning.changes import Plan
from llb_core.planning.plan import make_plan
from tests.datapath.conftest import NAME, Host, desired, settings
from tests.dying import killed_at_each
from tests.netns.test_outlives import snapshot

A, B, C = ("10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80")
VIPS = [ipaddress.ip_address("203.0.113.10")]
STATES = {
    "nothing": Desired({}),
    "some": desired(A, B),
    "others": desired(B, C),
    "more": desired(A, B, C),
    "draining": desired(A, B, mode=BackendMode.DRAINING),
    "ending": desired(A, mode=BackendMode.ENDING),
    "named": desired(A, B, name="shop"),
}


@pytest.fixture(autouse=True)
def _small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maglev, "TABLE_SIZES", (251, 1_021, 40_009))


_opened: list[Family] = []


def fresh() -> MapSync:
    """Map sync of a daemon that begins now."""
    family = Family(4, pins.open_maps(NAME, 4, 1000), ticks_per_second=250)
    _opened.append(family)
    return MapSync(family)


def let_go() -> None:
    """Close what earlier daemons had open: there may be only so many files."""
    while _opened:
        _opened.pop().close()


@pytest.fixture(autouse=True)
def _closed_afterwards() -> Iterator[None]:
    yield
    let_go()


def plan(maps: MapSync, wanted: Desired) -> Plan:
    """A plan that also frees what is retired: no connection uses it."""
    installed = maps.installed()
    idle = {s for s, b in installed.backends.items() if b.mode is BackendMode.RETIRED}
    return make_plan(wanted, installed, idle_slots=idle)


def carry_out(wanted: Desired) -> None:
    maps = fresh()
    for _ in range(2):  # What is deregistered is retired first, and then deleted.
        maps.apply(plan(maps, wanted))


def check(installed: Installed) -> None:
    """Raise AssertionError where a packet could be led astray."""
    for service in installed.services.values():
        for slot in np.unique(service.table).tolist():
            backend = installed.backends.get(slot)
            assert backend, f"a place of {service.name} leads to no backend ({slot})"
            assert backend.service_slot == service.slot
            assert backend.mode is BackendMode.ACTIVE
    for backend in installed.backends.values():
        assert backend.service_slot in installed.services


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("nothing", "some"),
        ("some", "others"),
        ("some", "more"),
        ("more", "some"),
        ("some", "draining"),
        ("draining", "more"),
        ("some", "ending"),
        ("some", "named"),
        ("more", "nothing"),
    ],
)
def test_a_plan_that_is_cut_by_a_kill_anywhere_is_carried_on(
    host: Host, before: str, after: str
) -> None:
    carry_out(STATES[before])
    for _ in killed_at_each(lambda: carry_out(STATES[after])):
        check(fresh().installed())
        carry_out(STATES[after])
        maps = fresh()
        check(maps.installed())
        assert not plan(maps, STATES[after])
        assert maps.repair() == []
        carry_out(STATES[before])
        let_go()
    assert not plan(fresh(), STATES[after])


def test_making_the_maps_is_carried_on(host: Host) -> None:
    names = {spec.name for spec in map_specs(1000)}
    for _ in killed_at_each(lambda: pins.open_maps(NAME, 4, 1000)):
        opened = pins.open_maps(NAME, 4, 1000)
        assert set(opened) == names
        assert {path.name for path in pins.pin_folder(NAME).iterdir()} == names
        for each in opened.values():
            each.close()
        pins.remove_pins(NAME)


def test_settings_are_those_before_or_those_after(host: Host) -> None:
    before, after = settings(), settings(snat_ports=(2000, 2999))
    fresh().put_settings(before, private_index=7)
    for _ in killed_at_each(lambda: fresh().put_settings(after, private_index=7)):
        now = fresh()
        assert not now.put_settings(before, private_index=7), "still as it was, whole"
        assert now.put_settings(after, private_index=7)
        assert now.put_settings(before, private_index=7)
        let_go()


@pytest.fixture
def unprepared(host: Host, datapath: Datapath) -> tuple[Datapath, str]:
    """A datapath that has touched nothing of the host but its pins, and how the host is."""
    return datapath, snapshot(host.namespace, ("public", "private"))


def test_preparing_the_host_is_carried_on_and_undone(
    host: Host, unprepared: tuple[Datapath, str]
) -> None:
    datapath, was = unprepared

    def prepare() -> None:
        datapath.prepare_host(VIPS)
        datapath.attach()

    for _ in killed_at_each(prepare):
        prepare()
        assert datapath.repair(VIPS) == ([], [])
        Datapath.detach(NAME)
        assert snapshot(host.namespace, ("public", "private")) == was
        pins_again(datapath)
    assert datapath.repair(VIPS) == ([], [])
    for _ in killed_at_each(lambda: Datapath.detach(NAME)):
        Datapath.detach(NAME)
        assert snapshot(host.namespace, ("public", "private")) == was
        assert not pins.pin_root(NAME).exists()
        pins_again(datapath)
        prepare()


def pins_again(datapath: Datapath) -> None:
    """Pin what a detach has unpinned, as if LLB had only just made it."""
    family = datapath.families[4]
    pins.pin_again(NAME, 4, family.maps)

    jumps.pin_again(family.program_fds["jumps"], pins.pin_folder(NAME, 4))
