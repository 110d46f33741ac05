"""What is remembered of connections that are none any more: who it was, and how much of it."""

from __future__ import annotations

import ipaddress
from typing import Any

import numpy as np
import pytest

from llb_core.datapath.layout import records
from llb_core.model import Endpoint, InstalledService, ServiceKey, Ticks, Timeouts, Transport
from llb_core.past_connections import PastConnections, Seen

BOTH_FAMILIES = pytest.mark.parametrize("family", [4, 6], ids=["ipv4", "ipv6"])
BASE = {4: "10.0.0.0", 6: "2001:db8::"}
NOW = 4_000_000_000.0
TICKS = Ticks(now=5_000, per_second=100)


def address(family: int, number: int) -> Any:
    return ipaddress.ip_address(BASE[family]) + number


def services(family: int) -> dict[int, InstalledService]:
    key = ServiceKey(Endpoint(address(family, 9), 80), Transport.TCP)
    return {3: InstalledService(3, "web", key, Timeouts())}


def halves(family: int, clients: range) -> tuple[Any, Any]:
    """Connections of clients by their ports, each from a SNAT port of the same number."""
    of = records(family)
    keys = np.zeros(len(clients), dtype=of.flow_key)
    values = np.zeros(len(clients), dtype=of.nat_entry)
    keys["src"], keys["sport"] = of.pack(address(family, 1)), list(clients)
    keys["dst"], keys["dport"] = of.pack(address(family, 9)), 80
    keys["proto"] = 6
    values["new_src"], values["new_sport"] = of.pack(address(family, 7)), list(clients)
    values["new_dst"], values["new_dport"] = of.pack(address(family, 2)), 8080
    values["service"], values["opened"], values["seen"] = 3, 4_000, 4_900
    return keys, values


def note(past: PastConnections, family: int, clients: range, now: float = NOW) -> None:
    past.note(*halves(family, clients), services(family), TICKS, now)


def seen(family: int, port: int | None, **more: Any) -> Seen:
    return Seen(ipaddress.ip_network(address(family, 7)), port, **more)


@BOTH_FAMILIES
def test_says_who_it_was_and_when(family: int) -> None:
    past = PastConnections(family)
    note(past, family, range(4_000, 4_010))

    (found,), _ = past.find(seen(family, 4_003), NOW)

    assert (found.service, found.protocol) == ("web", Transport.TCP)
    assert found.client == Endpoint(address(family, 1), 4_003)
    assert found.vip == Endpoint(address(family, 9), 80)
    assert found.snat == Endpoint(address(family, 7), 4_003)
    assert found.backend == Endpoint(address(family, 2), 8080)
    assert (found.opened, found.ended) == (NOW - 10, NOW - 1)


@BOTH_FAMILIES
def test_finds_by_what_is_told(family: int) -> None:
    past = PastConnections(family)
    note(past, family, range(4_000, 4_010))

    def count(wanted: Seen) -> int:
        return len(past.find(wanted, NOW)[0])

    assert count(seen(family, None)) == 10
    assert count(seen(family, 4_010)) == 0
    assert count(seen(family, 4_001, backend=address(family, 2), backend_port=8080)) == 1
    assert count(seen(family, 4_001, backend=address(family, 3))) == 0
    assert count(seen(family, 4_001, backend=address(family, 2), backend_port=81)) == 0
    assert count(Seen(ipaddress.ip_network(address(10 - family, 7)), None)) == 0


@BOTH_FAMILIES
def test_remembers_so_many_and_so_long_and_says_since_when(family: int) -> None:
    past = PastConnections(family, kept=50, kept_seconds=100)
    for batch in range(10):
        note(past, family, range(1_000 + 10 * batch, 1_010 + 10 * batch), NOW + batch)
        assert len(past) <= 50

    found, since = past.find(seen(family, None), NOW + 9)

    assert sorted(each.client.port for each in found) == list(range(1_050, 1_100))
    assert since == NOW + 4
    note(past, family, range(2_000, 2_200), NOW + 10)
    assert len(past) == 50
    assert {each.client.port for each in past.find(seen(family, None), NOW + 10)[0]} == {
        *range(2_150, 2_200)
    }
    assert past.find(seen(family, None), NOW + 111) == ([], NOW + 10)
    assert len(past) == 0


@BOTH_FAMILIES
def test_one_that_is_noted_again_is_told_once_with_its_last_packet(family: int) -> None:
    past = PastConnections(family)
    keys, values = halves(family, range(4_000, 4_001))
    past.note(keys, values, services(family), TICKS, NOW)
    values["seen"] = 4_950
    past.note(keys, values, services(family), Ticks(5_100, 100), NOW + 1)

    (found,), _ = past.find(seen(family, 4_000), NOW + 1)

    assert found.ended == NOW - 0.5


def test_the_clock_wraps() -> None:
    past = PastConnections(4)
    keys, values = halves(4, range(4_000, 4_001))
    values["opened"], values["seen"] = 0xFFFFFF9C, 60
    past.note(keys, values, services(4), Ticks(50, 100), NOW)

    (found,), _ = past.find(seen(4, None), NOW)

    assert (found.opened, found.ended) == (NOW - 1.5, NOW)


def test_takes_the_memory_that_is_documented() -> None:
    past = {family: PastConnections(family) for family in (4, 6)}
    for family, own in past.items():
        note(own, family, range(1, 2))
    size = {number: own._record.itemsize * 250_000 / 1e6 for number, own in past.items()}
    assert {number: round(megabytes) for number, megabytes in size.items()} == {4: 14, 6: 26}


def test_tells_times_of_the_day_as_the_clock_has_it_when_it_is_asked() -> None:
    past = PastConnections(4)
    note(past, 4, range(4_000, 4_001))

    for time_of_day in (2e9, 1e9):
        (found,), since = past.find(seen(4, None), NOW + 1, time_of_day=time_of_day)

        assert (found.opened, found.ended) == (time_of_day - 11, time_of_day - 2)
        assert since <= time_of_day
