"""Rates from samples of counters, and that their memory is bounded."""

from __future__ import annotations

import ipaddress

import numpy as np

from llb_core.datapath.reading import Counters, Traffic
from llb_core.model import (
    BackendMode,
    Endpoint,
    Installed,
    InstalledBackend,
    InstalledService,
    ServiceKey,
    Timeouts,
    Transport,
)
from llb_core.samples import POINTS, Samples, Series


def test_a_rate_is_what_was_counted_by_the_time_that_it_took() -> None:
    series = Series(2)
    series.add(10.0, {"a": (100, 0)})
    assert series.latest() == {}
    series.add(12.0, {"a": (104, 2)})
    assert series.latest() == {"a": [2.0, 1.0]}
    assert series.past("a").tolist() == [[2.0, 1.0]]


def test_keeps_the_newest_samples_in_order() -> None:
    series = Series(1, points=3)
    total = 0
    for step in range(7):
        total += step
        series.add(float(step), {"a": (total,)})
    assert series.past("a").tolist() == [[4.0], [5.0], [6.0]]
    assert series.total().tolist() == [[4.0], [5.0], [6.0]]


def test_a_counter_that_began_anew_counts_from_nothing() -> None:
    series = Series(1)
    series.add(0.0, {"a": (1000,)})
    series.add(1.0, {"a": (5,)})
    assert series.latest() == {"a": [5.0]}


def test_what_is_new_begins_at_rest_and_what_has_gone_leaves_nothing_behind() -> None:
    series = Series(1)
    series.add(0.0, {"a": (0,)})
    series.add(1.0, {"a": (8,)})
    series.add(2.0, {"b": (1000,)})
    assert series.past("a").tolist() == []
    assert series.past("b").tolist() == [[0.0], [0.0]]
    series.add(3.0, {"b": (1001,)})
    assert series.latest() == {"b": [1.0]}


def test_memory_is_that_of_what_is_there() -> None:
    series = Series(4)
    for step in range(200):
        series.add(float(step), {f"{step}-{each}": (0, 0, 0, 0) for each in range(100)})
    assert series._rates.nbytes <= 200 * POINTS * 4 * 4


def test_a_clock_that_stands_still_gives_no_sample() -> None:
    series = Series(1)
    series.add(1.0, {"a": (0,)})
    series.add(1.0, {"a": (7,)})
    assert series.latest() == {}


def test_sums_up_a_service_of_two_families_and_a_backend_of_one_endpoint() -> None:
    four = ServiceKey(Endpoint(ipaddress.ip_address("203.0.113.10"), 80), Transport.TCP)
    six = ServiceKey(Endpoint(ipaddress.ip_address("2001:db8::10"), 80), Transport.TCP)
    backend = Endpoint(ipaddress.ip_address("10.0.0.2"), 8080)
    installed = Installed(
        {
            1: InstalledService(1, "web", four, Timeouts()),
            2: InstalledService(2, "web", six, Timeouts()),
        },
        {
            1: InstalledBackend(1, 1, backend, BackendMode.ACTIVE),
            2: InstalledBackend(2, 9, backend, BackendMode.RETIRED),
        },
    )
    samples = Samples()

    def add(now: float, number: int) -> None:
        traffic = Traffic(number, 100 * number, number, 100 * number, number, 0)
        counters = Counters({"drop_ttl": number}, {1: traffic, 2: traffic}, {1: traffic})
        samples.add(now, [(installed, counters)])

    add(0.0, 0)
    add(2.0, 10)
    latest = samples.latest()
    assert latest.services == {"web": [10.0, 20.0, 2000.0, 0.0]}
    assert latest.backends == {("web", backend): [5.0, 10.0, 1000.0, 0.0]}
    assert samples.total().tolist() == [[10.0, 20.0, 2000.0, 0.0]]
    assert samples.past_of_service("web").tolist() == [[10.0, 20.0, 2000.0, 0.0]]
    assert samples.past_of_backend("web", backend).tolist() == [[5.0, 10.0, 1000.0, 0.0]]
    assert samples.past_of_verdict("drop_ttl").tolist() == [[5.0]]
    assert np.issubdtype(samples.total().dtype, np.float32)
