"""The table that serves until the consistent one is filled."""

from __future__ import annotations

import numpy as np
import pytest

from llb_core.model import Table, empty_table
from llb_core.planning.interim import FIRST_SIZE, interim_table

SIZE = 16_381


def shares(table: Table) -> dict[int, int]:
    """Return how many places each slot has."""
    counts = np.bincount(table)
    return {slot: int(counts[slot]) for slot in np.flatnonzero(counts).tolist()}


def table(*backends: tuple[int, int]) -> Table:
    return interim_table(empty_table(), backends, SIZE)


def test_the_first_one_gives_everybody_a_share_by_weight() -> None:
    assert shares(table((1, 1), (2, 1), (7, 2))) == {1: 4095, 2: 4095, 7: 8191}


def test_the_first_one_of_many_is_no_larger_than_can_be_put_at_once() -> None:
    backends = [(slot, 1) for slot in range(1, 10_001)]
    first = interim_table(empty_table(), backends, 1_000_003)
    assert len(first) == FIRST_SIZE
    assert len(shares(first)) == 10_000


@pytest.mark.parametrize("gone", [1, 2, 3])
def test_only_places_of_those_who_left_change(gone: int) -> None:
    before = table((1, 1), (2, 1), (3, 1))
    after = interim_table(before, [(slot, 1) for slot in (1, 2, 3) if slot != gone], SIZE)
    assert ((before != after) == (before == gone)).all()
    assert max(shares(after).values()) - min(shares(after).values()) <= 1


def test_a_new_one_gets_the_places_of_one_that_left() -> None:
    before = table((1, 1), (2, 1), (3, 1))
    after = interim_table(before, [(1, 1), (2, 1), (9, 1)], SIZE)
    assert shares(after) == {1: 5461, 2: 5460, 9: 5460}
    assert ((before != after) == (before == 3)).all()


def test_a_new_one_waits_where_nobody_left() -> None:
    before = table((1, 1), (2, 1))
    assert np.array_equal(interim_table(before, [(1, 1), (2, 1), (3, 1)], SIZE), before)


def test_all_places_change_hands_where_all_left() -> None:
    after = interim_table(table((1, 1), (2, 1)), [(3, 1), (4, 3)], SIZE)
    assert shares(after) == {3: 4095, 4: 12286}


def test_the_size_stays_until_the_consistent_table_is_there() -> None:
    assert len(interim_table(table((1, 1)), [(1, 1)], 1_000_003)) == SIZE
