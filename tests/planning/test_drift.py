"""Counts that have drifted come to the truth, and those that only move are left alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llb_core.planning.drift import Counts, Drift

numbers = st.integers(-1000, 1000)


def counts(*values: int) -> Counts:
    return np.array(values, dtype=np.int64)


@given(kept=numbers, truth=numbers)
def test_two_quiet_passes_put_a_count_right_and_no_more_moves_it(kept: int, truth: int) -> None:
    drift, values = Drift(1), [kept]
    for _ in range(5):
        now = counts(values[-1])
        values.append(int((now + drift.correct(now, now, counts(truth)))[0]))

    assert values == [kept, kept, truth, truth, truth, truth]


@pytest.mark.parametrize("truth", [3, 4, 7])
def test_a_truth_between_two_readings_is_none_to_correct(truth: int) -> None:
    drift = Drift(1)

    for _ in range(3):
        assert drift.correct(counts(3), counts(7), counts(truth)) == 0


def test_what_one_pass_alone_finds_is_left_alone() -> None:
    drift = Drift(1)

    found = [drift.correct(counts(10), counts(10), counts(truth))[0] for truth in (12, 10, 9, 11)]

    assert found == [0, 0, 0, 0]


def test_no_more_is_corrected_than_two_passes_agree_on() -> None:
    drift = Drift(2)

    drift.correct(counts(10, 10), counts(10, 10), counts(12, 5))
    assert drift.correct(counts(10, 10), counts(10, 10), counts(17, 9)).tolist() == [2, -1]
