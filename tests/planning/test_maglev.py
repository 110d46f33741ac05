"""The table: everybody gets what is due, and little moves when one comes or goes."""

from __future__ import annotations

import ipaddress
import random

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llb_core.model import Endpoint
from llb_core.planning import maglev
from llb_core.planning.maglev import TABLE_SIZES, build_table, table_size

FIRST = ipaddress.IPv4Address("10.0.0.1")

weights_lists = st.lists(st.integers(1, 20), min_size=1, max_size=12)


def backends(weights: list[int]) -> list[tuple[Endpoint, int]]:
    return [(Endpoint(FIRST + number, 8080), weight) for number, weight in enumerate(weights)]


def anywhere(number: int) -> list[tuple[Endpoint, int]]:
    """Three to sixty backends at random addresses, as `number` draws them."""
    draw = random.Random(number)
    addresses = draw.sample(range(1 << 24, 224 << 24), draw.randint(3, 60))
    return [(Endpoint(ipaddress.IPv4Address(each), 8080), 1) for each in addresses]


def owners(some: list[tuple[Endpoint, int]], size: int) -> npt.NDArray[np.int64]:
    """Return the address behind each place, which means the same in every table."""
    addresses = np.array([int(endpoint.address) for endpoint, _ in some])
    return addresses[build_table(some, size)]


@pytest.mark.parametrize("size", TABLE_SIZES)
def test_sizes_are_primes(size: int) -> None:
    assert all(size % divisor for divisor in range(2, int(size**0.5) + 1))


@pytest.mark.parametrize("size", TABLE_SIZES)
def test_each_backend_has_an_order_of_all_places(size: int) -> None:
    ranks = maglev._ranks(size, size)
    assert np.array_equal(ranks.order[ranks.rank], np.arange(size))
    first = maglev._ranks(size, 100)
    assert np.array_equal(first.order[:100], ranks.order[:100])
    assert np.array_equal(first.worth[:100], ranks.worth[:100])


@settings(max_examples=30, deadline=None)
@given(weights_lists)
def test_weights_are_exact_to_one_percent(weights: list[int]) -> None:
    size = table_size(weights)
    got = np.bincount(build_table(backends(weights), size), minlength=len(weights))
    due = size * np.array(weights) / sum(weights)
    assert got.sum() == size
    assert (abs(got - due) <= 0.01 * due).all()


def test_the_lightest_beside_the_heaviest_gets_its_share() -> None:
    weights = [1] + [100] * 99
    size = table_size(weights)
    assert size == 1_000_003
    got = np.bincount(build_table(backends(weights), size))
    assert got[0] == pytest.approx(size / 9901, rel=0.01)


def test_weights_beyond_the_largest_table_still_give_a_full_table() -> None:
    weights = [1, 65_535, 65_535]
    table = build_table(backends(weights), TABLE_SIZES[0])
    assert len(table) == TABLE_SIZES[0]
    assert set(table) <= {0, 1, 2}


@pytest.mark.parametrize(
    "weights",
    [
        [1] * 2,
        [1] * 5,
        [1] * 10,
        [1] * 50,
        [1] * 100,
        [1] * 650,
        list(range(1, 11)),
        [1] * 9 + [10],
    ],
    ids=lambda weights: f"{len(weights)} from {min(weights)} to {max(weights)}",
)
def test_one_that_goes_moves_at_most_one_percent_of_the_others(weights: list[int]) -> None:
    before = backends(weights)
    size = table_size(weights)
    full = owners(before, size)
    for gone in (0, len(before) // 2, len(before) - 1):
        rest = owners(before[:gone] + before[gone + 1 :], size)
        must_move = full == int(before[gone][0].address)
        assert ((full != rest) & ~must_move).mean() <= 0.01


@pytest.mark.parametrize("number", range(40))
def test_wherever_they_are_one_that_goes_moves_at_most_one_percent(number: int) -> None:
    before = anywhere(number)
    full = owners(before, TABLE_SIZES[0])
    rest = owners(before[1:], TABLE_SIZES[0])
    assert ((full != rest) & (full != int(before[0][0].address))).mean() <= 0.01


def test_equal_backends_of_a_service_get_equal_shares() -> None:
    counts = np.bincount(build_table(backends([1] * 650), table_size([1] * 650)))
    assert counts.max() - counts.min() <= 1


def test_every_balancer_fills_the_same_table() -> None:
    """The hash is part of what several balancers agree on: changing it moves all connections."""
    table = build_table(backends([1, 2, 3]), TABLE_SIZES[0])
    expected = [int(digit) for digit in "120011222112110220221222"]
    assert table[:24].tolist() == expected


@pytest.mark.parametrize(
    ("count", "installed", "expected"),
    [
        (1, 0, 16_381),
        (163, 0, 16_381),
        (164, 0, 32_749),
        (327, 0, 32_749),
        (328, 0, 65_537),
        (655, 65_537, 65_537),
        (656, 65_537, 131_071),
        (656, 131_071, 131_071),
        (400, 131_071, 131_071),
        (328, 131_071, 131_071),
        (327, 131_071, 32_749),
        (327, 65_537, 65_537),
        (10_000, 0, 1_000_003),
        (20_000, 0, 1_000_003),
        (0, 65_537, 65_537),
        (3, 1_021, 16_381),
        (3, 32_749, 16_381),
    ],
)
def test_the_size_changes_only_when_the_number_doubles_or_halves(
    count: int, installed: int, expected: int
) -> None:
    assert table_size([1] * count, installed) == expected


def test_backends_of_weight_zero_do_not_make_the_table_larger() -> None:
    assert table_size([0] * 1000 + [1]) == TABLE_SIZES[0]


def test_ten_thousand_backends_share_a_million_places() -> None:
    counts = np.bincount(build_table(backends([1] * 10_000), 1_000_003))
    assert (counts.min(), counts.max()) == (100, 101)
