"""Maps of an earlier layout: all that they hold is carried over, connections too."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import numpy as np
import pytest

from llb_core.datapath import Family, layout, layout_1, layout_2, pins
from llb_core.datapath.bpf_map import MapWriter
from llb_core.datapath.layout import LAYOUT_VERSION
from llb_core.errors import LayoutMismatch
from llb_core.map_sync import MapSync
from llb_core.migration import Migration
from llb_core.model import Desired, Installed
from llb_core.planning import maglev
from llb_core.planning.plan import make_plan
from llb_core.planning.states import ANSWERED, ASSURED, ConnectionState
from llb_core.rules import Rules
from tests.datapath.conftest import NAME, VIPS, Host, desired
from tests.dying import killed_at_each
from tests.earlier_layouts import pin_as_layout

BACKENDS = ("10.0.0.2:80", "10.0.0.3:80", "10.0.0.4:80")

Old = dict[str, MapWriter]


@pytest.fixture(autouse=True)
def _small_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maglev, "TABLE_SIZES", (251, 1_021, 40_009))


def fresh() -> MapSync:
    return MapSync(Family(4, pins.open_maps(NAME, 4, 1000), ticks_per_second=250))


@pytest.fixture
def installed(host: Host) -> Installed:
    """What was installed, before it became layout 1."""
    maps = fresh()
    maps.apply(make_plan(desired(*BACKENDS), maps.installed()))
    maps.apply(make_plan(desired(*BACKENDS[1:]), maps.installed()))
    return maps.installed()


@pytest.fixture
def old(installed: Installed) -> Old:
    """It in maps of layout 1, with connections."""
    made = pin_as_layout(1, NAME, {4: pins.open_maps(NAME, 4, 1000)})[4]
    for number in range(1, 51):
        open_connection(made, number)
    return made


def open_connection(
    old: Old, number: int, state: int = ConnectionState.ESTABLISHED, opened: int = 0
) -> None:
    """Put both halves of a connection: from client 1.1.1.1 with that port."""
    client, vip, snat, backend = 0x01010101, 0xCB00710A, 0x0A00000B, 0x0A000003
    dnat = np.zeros((), dtype=layout_1.NAT_ENTRY)
    dnat["state"], dnat["seen"], dnat["backend"], dnat["service"] = state, 1000 + number, 2, 1
    dnat["opened"] = opened
    half = dnat.copy()
    dnat["new_src"], dnat["new_dst"] = snat, backend
    dnat["new_sport"], dnat["new_dport"], dnat["packets"] = 2000 + number, 80, 7
    half["new_src"], half["new_dst"] = vip, client
    half["new_sport"], half["new_dport"], half["bytes"] = 80, number, 7000
    old["snat_table"].update((backend, snat, 80, 2000 + number, 6, (0, 0, 0)), half)
    old["dnat_table"].update((client, vip, number, 80, 6, (0, 0, 0)), dnat)


def migrate() -> None:
    migration = Migration.begin(NAME, {4: fresh()})
    assert migration is not None
    migration.copy()
    migration.catch_up()
    migration.finish()


def entries(table: str) -> dict[int, Any]:
    """Return the new table's records by the client's port."""
    port = "sport" if table == "dnat_table" else "new_dport"
    keys, values = pins.open_maps(NAME, 4, 1000)[table].read_all()
    ports = keys[port] if table == "dnat_table" else values[port]
    return dict(zip(ports.tolist(), values, strict=True))


def same(one: Installed, other: Installed) -> bool:
    return dict(one.services) == dict(other.services) and dict(one.backends) == dict(other.backends)


def test_everything_is_carried_over(installed: Installed, old: Old) -> None:
    migrate()

    assert same(fresh().installed(), installed)
    assert not (pins.pin_root(NAME) / "1").exists()
    there, back = entries("dnat_table"), entries("snat_table")
    assert set(there) == set(back) == set(range(1, 51))
    assert (there[7]["new_sport"], there[7]["packets"], there[7]["seen"]) == (2007, 7, 1007)
    assert (back[7]["new_sport"], back[7]["bytes"], back[7]["backend"]) == (80, 7000, 2)
    assert Migration.begin(NAME, {4: fresh()}) is None


@pytest.mark.parametrize("version", [2, 3])
def test_prefixes_hold_before_the_first_turn(host: Host, version: int) -> None:
    wanted = desired(*BACKENDS)
    nets = [ip_network(each) for each in ("198.51.100.0/24", "198.51.100.7/32", "192.0.2.0/28")]
    rules = Rules.of(nets[:1], nets[1:], 4)
    services = {key: replace(each, rules=rules) for key, each in wanted.services.items()}
    maps = fresh()
    maps.apply(make_plan(Desired(services), maps.installed()))
    before = maps.installed()
    pin_as_layout(version, NAME, {4: pins.open_maps(NAME, 4, 1000)})

    assert Migration.begin(NAME, {4: (after := fresh())}) is not None

    assert after.installed().rules == before.rules == {1: rules}
    assert fresh().installed().rules == {1: rules}, "in the maps, too"
    assert after.repair() == []


@pytest.mark.parametrize("family", pins.FAMILIES)
@pytest.mark.parametrize("version", [2, 3])
def test_a_withdrawn_service_is_known_by_address_and_port_as_before(
    host: Host, version: int, family: int
) -> None:
    """Or the stack gets what its connections send, and resets them."""
    maps = MapSync(Family(family, pins.open_maps(NAME, family, 1000), ticks_per_second=250))
    hosts = {4: "10.0.0.2:80", 6: "[fd00:b::2]:80"}
    maps.apply(make_plan(desired(hosts[family], vip=VIPS[family]), maps.installed()))
    maps.apply(make_plan(Desired({}), maps.installed()))
    assert [each.is_reachable for each in maps.installed().services.values()] == [False]
    before = known_vips(family)
    assert len(before[0]) == np.count_nonzero(before[1]) == 1
    pin_as_layout(version, NAME, {family: pins.open_maps(NAME, family, 1000)})

    after = MapSync(Family(family, pins.open_maps(NAME, family, 1000), ticks_per_second=250))
    assert Migration.begin(NAME, {family: after}) is not None

    assert known_vips(family) == before
    assert after.repair() == []


def known_vips(family: int) -> tuple[Any, Any]:
    """Return the marks and keys of services, and the words of the filter."""
    maps = pins.open_maps(NAME, family, 1000)
    keys, slots = maps["service_keys"].read_all()
    entries = zip((key.tobytes() for key in keys), slots.tolist(), strict=True)
    return sorted(entries), maps["vip_filter"].read_all()[1].tolist()


@pytest.mark.parametrize(
    ("state", "becomes"),
    [
        (ConnectionState.OPENING, ConnectionState.OPENING),
        (ConnectionState.ESTABLISHED, ConnectionState.ESTABLISHED | ASSURED),
        (ConnectionState.CLOSED, ConnectionState.CLOSED | ASSURED),
        (ConnectionState.UDP, ConnectionState.UDP),
        (ConnectionState.UDP | ANSWERED, ConnectionState.UDP | ANSWERED | ASSURED),
        (ConnectionState.CLAIMED, ConnectionState.CLAIMED),
    ],
)
def test_only_a_connection_that_stands_is_spared_in_a_flood(state: int, becomes: int) -> None:
    record = np.zeros(1, dtype=layout_1.NAT_ENTRY)
    record["state"] = state
    assert layout_1.convert("dnat_table", record, 4)["state"].tolist() == [becomes]


@pytest.mark.parametrize("family", pins.FAMILIES)
def test_what_a_connection_of_layout_2_holds_is_narrowed(family: int) -> None:
    record = np.zeros(1, dtype=layout_2.nat_entry(family))
    record["state"], record["seen"], record["opened"] = 0x2102, 0x12345678, 0x12340000
    record["addr_delta"], record["port_delta"] = 0xFFFF0002, 0x0001FFFF
    record["backend"], record["service"] = layout.MAX_BACKENDS - 1, layout.MAX_SERVICES - 1
    record["checked"], record["ifindex"], record["place"] = 0x12345670, 70_000, 9
    record["mtu"], record["next_hop"] = 1500, 0xC6336401

    (back,) = layout_2.convert("snat_table", record, family)
    (there,) = layout_2.convert("dnat_table", record, family)

    assert (back["state"], back["seen"], back["opened"]) == (0x2102, 0x12345678, 0x12340000)
    assert (back["addr_delta"], back["port_delta"]) == (2, 1), "sums in one's complement"
    assert (back["backend"], back["service"]) == (32_767, 4_095)
    assert (back["checked"], back["ifindex"], back["mtu"]) == (0x5670, 70_000, 1500)
    assert np.all(back["next_hop"] == 0xC6336401)
    assert there["ifindex"] == 0, "no place in the ring"


def test_what_is_opened_in_between_is_caught_up_and_what_is_newer_stays(old: Old) -> None:
    maps = fresh()
    migration = Migration.begin(NAME, {4: maps})
    assert migration is not None
    open_connection(old, 60)
    migration.copy()
    open_connection(old, 61)
    # The new classifier has had a packet of one by now.
    theirs = MapWriter.of(pins.open_maps(NAME, 4, 1000)["dnat_table"])
    (key,) = (each for each in theirs.read_all()[0] if each["sport"] == 7)
    record = np.zeros((), dtype=layout.NAT_ENTRY)
    record["packets"] = 8
    theirs.update(key, record)

    migration.catch_up()
    migration.finish()

    there = entries("dnat_table")
    assert {60, 61} <= set(there)
    assert {60, 61} <= set(entries("snat_table"))
    assert there[7]["packets"] == 8


def test_what_went_on_in_between_goes_on_from_there(old: Old) -> None:
    open_connection(old, 60, ConnectionState.OPENING)
    open_connection(old, 61, ConnectionState.OPENING)
    open_connection(old, 62, ConnectionState.CLOSED)
    open_connection(old, 63, ConnectionState.CLAIMED)
    migration = Migration.begin(NAME, {4: fresh()})
    assert migration is not None
    migration.copy()
    open_connection(old, 60, ConnectionState.ESTABLISHED)
    open_connection(old, 61, ConnectionState.OPENING | ANSWERED)
    open_connection(old, 62, ConnectionState.OPENING, opened=5)

    migration.catch_up()
    migration.finish()

    for table in ("dnat_table", "snat_table"):
        now = entries(table)
        assert now[60]["state"] == ConnectionState.ESTABLISHED | ASSURED
        assert now[61]["state"] == ConnectionState.OPENING | ANSWERED
        assert now[62]["state"] == ConnectionState.OPENING, "by the same port again"
        assert 63 not in now, "one that somebody takes away counts as absent"


def test_whoever_is_killed_over_it_anywhere_is_followed_by_one_that_ends_it(
    host: Host, installed: Installed, old: Old
) -> None:
    for _ in killed_at_each(migrate):
        if pins.old_versions(NAME):
            migrate()
        else:
            assert Migration.begin(NAME, {4: fresh()}) is None
        assert same(fresh().installed(), installed)
        assert set(entries("dnat_table")) == set(entries("snat_table")) == set(range(1, 51))
        assert [path.name for path in pins.pin_root(NAME).iterdir()] == [str(LAYOUT_VERSION)]
        made = pin_as_layout(1, NAME, {4: pins.open_maps(NAME, 4, 1000)})[4]
        assert len(made["dnat_table"].read_all()[0]) == 50


def test_maps_that_are_not_of_that_layout_are_refused(old: Old) -> None:
    path = pins.pin_root(NAME) / "1" / "ipv4" / "backends"
    path.unlink()
    with pytest.raises(LayoutMismatch, match=r"backends: can't be opened .* llb detach"):
        Migration.begin(NAME, {4: fresh()})
    pins.make(layout.map_specs(1000)[0], path)
    with pytest.raises(LayoutMismatch, match=r"backends: is not of layout 1"):
        Migration.begin(NAME, {4: fresh()})
