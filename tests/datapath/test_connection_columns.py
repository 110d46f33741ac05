"""Connections as columns and as rows: joined from their halves, chosen, in order, written out."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from llb_core.api.connection_rows import COLUMNS, Part, Rows, header
from llb_core.datapath.bpf_map import MapWriter, create
from llb_core.datapath.connection_columns import (
    SORTS,
    Wanted,
    columns,
    order,
    read_connections,
    read_first,
)
from llb_core.datapath.layout import ConnectionState, Records, map_specs, records
from llb_core.model import Address

pytestmark = pytest.mark.root

NOW, HZ = 1_000_000, 250
NETWORKS = {4: ("198.51.100.0", "203.0.113.10", "10.0.0.1", "10.0.1.0"),
            6: ("2001:db8:1::", "2001:db8:2::10", "fd00::1", "fd00:1::")}  # fmt: skip
COUNT = 300


class Tables:
    """Both tables of a family, with connections of 10 backends and two services in them."""

    def __init__(self, family: int) -> None:
        self.of: Records = records(family)
        specs = {spec.name: spec for spec in map_specs(2 * COUNT, family)}
        self.maps = {
            name: MapWriter(specs[name], create(specs[name]))
            for name in ("dnat_table", "snat_table")
        }
        self.client, self.vip, self.snat, self.backend = map(ipaddress.ip_address, NETWORKS[family])
        for number in range(COUNT):
            self.put(number)

    def put(self, number: int, state: ConnectionState = ConnectionState.ESTABLISHED) -> None:
        """Put in a connection: everything in it follows from its number."""
        pack = self.of.pack
        client, backend = self.client + number // 10, self.backend + number % 10
        port, snat_port = 40_000 + number, 1_024 + number
        key = np.zeros(1, self.of.flow_key)
        key["src"], key["dst"] = pack(client), pack(self.vip)
        key["sport"], key["dport"], key["proto"] = port, 80, 6
        half = np.zeros(1, self.of.nat_entry)
        half["new_src"], half["new_dst"] = pack(self.snat), pack(backend)
        half["new_sport"], half["new_dport"] = snat_port, 8080
        half["state"], half["backend"], half["service"] = state, number % 10 + 1, number % 2 + 1
        half["seen"], half["opened"] = NOW - 2 * number, NOW - 10 * number
        half["packets"], half["bytes"] = number, 100 * number
        self.maps["dnat_table"].update_batch(key, half)
        twin = np.zeros(1, self.of.flow_key)
        twin["src"], twin["dst"] = pack(backend), pack(self.snat)
        twin["sport"], twin["dport"], twin["proto"] = 8080, snat_port, 6
        half["seen"], half["packets"], half["bytes"] = NOW - number, 7, 70_000 + number
        self.maps["snat_table"].update_batch(twin, half)

    def read(self, **wanted: Any) -> Any:
        """Return the connections that are wanted."""
        return read_connections(self.maps, self.of, NOW, Wanted(**wanted))

    def rows(self, by: str = "age", limit: int | None = None) -> list[dict[str, Any]]:
        """Return them as they are shown to a program."""
        part = Part(self.of, self.read(), {1: "web", 2: 'a "quoted" name'}, HZ)
        written = b"".join(Rows([part], by, limit=limit, as_json=True))
        found: list[dict[str, Any]] = json.loads(b"[" + written.removeprefix(b",") + b"]")
        return found

    def close(self) -> None:
        for each in self.maps.values():
            each.close()


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def tables(request: pytest.FixtureRequest) -> Iterator[Tables]:
    """Tables with connections."""
    made = Tables(request.param)
    yield made
    made.close()


def written(address: Address, port: int) -> str:
    """An endpoint as it is shown."""
    return f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"


def test_a_row_says_what_both_halves_know(tables: Tables) -> None:
    row = next(each for each in tables.rows() if each["packets_in"] == 23)

    assert row == {
        "service": 'a "quoted" name',
        "protocol": "tcp",
        "client": written(tables.client + 2, 40_023),
        "vip": written(tables.vip, 80),
        "snat": written(tables.snat, 1_047),
        "backend": written(tables.backend + 3, 8080),
        "state": "established",
        "age": 0.9,
        "idle": 0.0,
        "packets_in": 23,
        "packets_out": 7,
        "bytes_in": 2_300,
        "bytes_out": 70_023,
    }


@pytest.mark.parametrize("by", SORTS)
def test_rows_come_in_order(tables: Tables, by: str) -> None:
    found = tables.rows(by)

    assert len(found) == COUNT
    if by in ("client", "backend"):
        keys = [each[by].rsplit(":", 1) for each in found]
        in_order = [(int(ipaddress.ip_address(host.strip("[]"))), int(port)) for host, port in keys]
        assert in_order == sorted(in_order)
        return
    names = (f"{by}_in", f"{by}_out") if by in ("bytes", "packets") else (by,)
    sums = [sum(each[name] for name in names) for each in found]
    assert sums == sorted(sums, reverse=True)


@pytest.mark.parametrize("largest", [0, 5, 1 << 50, 1 << 63], ids=["0", "5", "2^50", "2^63"])
def test_the_most_come_first_and_of_equal_ones_the_first(largest: int) -> None:
    found = np.zeros(COUNT, dtype=columns(records(4)))
    found["bytes_in"] = np.random.default_rng(1).integers(0, largest, COUNT, np.uint64, True)
    in_order = sorted(range(COUNT), key=lambda row: -int(found["bytes_in"][row]))

    assert order([(records(4), found)], "bytes").tolist() == in_order


def test_a_limit_leaves_the_first(tables: Tables) -> None:
    assert tables.rows("bytes", limit=3) == tables.rows("bytes")[:3]


@pytest.mark.parametrize("by", SORTS)
@pytest.mark.parametrize("service", [None, 2], ids=["all", "of-one-service"])
def test_the_first_few_are_those_of_all(tables: Tables, by: str, service: int | None) -> None:
    wanted = Wanted(services=frozenset({service}) if service else None)
    whole = read_connections(tables.maps, tables.of, NOW, wanted)

    found, total = read_first(tables.maps, tables.of, NOW, wanted, by, 7)

    assert total == len(whole)
    first, expected = (each[order([(tables.of, each)], by)[:7]] for each in (found, whole))
    if by not in ("client", "backend"):  # Which of those that are equal is not said.
        names = (f"{by}_in", f"{by}_out") if by in ("bytes", "packets") else (by,)
        first, expected = (sum(each[n] for n in names) for each in (first, expected))
    assert np.array_equal(first, expected)


def test_the_first_few_know_their_other_halves(tables: Tables) -> None:
    found, _ = read_first(tables.maps, tables.of, NOW, Wanted(client_port=40_023), "age", 7)

    assert [each[name].tolist() for each in found for name in ("packets_out", "bytes_out")] == [
        7,
        70_023,
    ]
    assert found["idle"].tolist() == [23]


@pytest.mark.parametrize(
    ("wanted", "numbers"),
    [
        ({"services": frozenset({1})}, range(0, COUNT, 2)),
        ({"backends": frozenset({3})}, range(2, COUNT, 10)),
        ({"services": frozenset({9})}, ()),
        ({"client_port": 40_123}, (123,)),
        ({"snat_port": 1_024 + 77}, (77,)),
        ({"states": frozenset({ConnectionState.CLOSED})}, ()),
        ({"states": frozenset({ConnectionState.ESTABLISHED})}, range(COUNT)),
    ],
    ids=["service", "backend", "no-service", "client-port", "snat-port", "closed", "established"],
)
def test_what_is_wanted_is_chosen(tables: Tables, wanted: dict[str, Any], numbers: Any) -> None:
    assert sorted(tables.read(**wanted)["packets_in"].tolist()) == list(numbers)


def test_a_network_chooses_its_clients_and_none_of_the_other_family(tables: Tables) -> None:
    bits = tables.client.max_prefixlen
    one = ipaddress.ip_network((int(tables.client) + 4, bits)) if bits == 128 else None
    one = one or ipaddress.ip_network(f"{tables.client + 4}/32")
    other = ipaddress.ip_network("::/0" if bits == 32 else "0.0.0.0/0")

    assert sorted(tables.read(client=one)["packets_in"].tolist()) == list(range(40, 50))
    assert len(tables.read(client=other)) == 0


def test_one_that_is_being_removed_is_left_out(tables: Tables) -> None:
    tables.put(17, ConnectionState.CLAIMED)

    assert 17 not in tables.read()["packets_in"]
    assert len(tables.read()) == COUNT - 1


def test_both_families_stand_in_one_order() -> None:
    both = [Tables(4), Tables(6)]
    parts = [Part(each.of, each.read(), {1: "web", 2: "more"}, HZ) for each in both]

    lines = b"".join(Rows(parts, "age", limit=10, as_json=False)).splitlines()

    assert len(lines) == 10
    assert sum(b"[2001:db8" in line for line in lines) == 5
    above = header(parts)
    begins, at = [], 0
    for name, _ in COLUMNS:
        begins.append(at := above.index(name.encode(), at))
        at += len(name)
    for line in lines:
        assert all(line[each : each + 1] != b" " for each in begins)
        assert all(line[each - 1 : each] == b" " for each in begins[1:])
    for each in both:
        each.close()
