"""Which connections are over: by state, by both halves, and over the wrap of the clock."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llb_core.model import Timeouts
from llb_core.planning.expiry import is_over, select_candidates
from llb_core.planning.states import (
    ANSWERED,
    BACKEND_CLOSED_FIRST,
    BACKEND_FIN,
    CLIENT_FIN,
    RESET,
)
from llb_core.planning.states import ConnectionState as State

HZ = 250
TIMEOUTS = Timeouts(opening=5, established=7200, closing=10, closed=60, udp=30)
RECORD = np.dtype([("state", "u4"), ("seen", "u4"), ("service", "u4"), ("backend", "u4")])
BOTH_FINS = CLIENT_FIN | BACKEND_FIN


def record(state: int, seen: int, service: int = 1) -> np.void:
    value = np.zeros(1, dtype=RECORD)
    value[0] = (state, seen % 2**32, service, 1)
    result: np.void = value[0]
    return result


@pytest.mark.parametrize(
    ("state", "seconds"),
    [
        (State.OPENING, 5),
        (State.OPENING | ANSWERED, 5),
        (State.ESTABLISHED | ANSWERED, 7200),
        (State.ESTABLISHED | CLIENT_FIN, 7200),
        (State.ESTABLISHED | BACKEND_FIN, 7200),
        (State.CLOSING | CLIENT_FIN, 7200),
        (State.CLOSING | BOTH_FINS, 10),
        (State.ESTABLISHED | BOTH_FINS, 10),
        (State.CLOSED | BOTH_FINS, 10),
        (State.CLOSED | RESET, 10),
        (State.CLOSED | BOTH_FINS | BACKEND_CLOSED_FIRST, 60),
        (State.UDP, 30),
        (State.UDP | ANSWERED, 30),
    ],
    ids=lambda value: f"{value:#x}" if isinstance(value, int) else str(value),
)
def test_each_state_has_its_time(state: int, seconds: int) -> None:
    now, ticks = 5_000_000, seconds * HZ
    for idle, expected in [(ticks - 1, False), (ticks, True)]:
        half = record(state, now - idle)
        assert is_over(half, half, now, HZ, TIMEOUTS) is expected
        assert select_candidates(np.array([half]), now, HZ, {1: TIMEOUTS})[0] == expected


def test_a_packet_in_either_direction_keeps_a_connection() -> None:
    now = 10_000
    old, new = record(State.UDP, now - 31 * HZ), record(State.UDP, now - 1 * HZ)
    assert not is_over(old, new, now, HZ, TIMEOUTS)
    assert not is_over(new, old, now, HZ, TIMEOUTS)
    assert is_over(old, old, now, HZ, TIMEOUTS)


def test_the_half_that_has_come_further_says_the_state() -> None:
    now = 10_000
    opening = record(State.OPENING, now - 6 * HZ)
    established = record(State.ESTABLISHED, now - 6 * HZ)
    assert is_over(opening, opening, now, HZ, TIMEOUTS)
    assert not is_over(opening, established, now, HZ, TIMEOUTS)
    assert not is_over(established, opening, now, HZ, TIMEOUTS)


def test_a_lone_half_is_over() -> None:
    assert is_over(record(State.ESTABLISHED, 100), None, 100, HZ, TIMEOUTS)


def test_what_somebody_is_deleting_is_over() -> None:
    half = record(State.CLAIMED, 100)
    assert is_over(half, half, 100, HZ, TIMEOUTS)


def test_a_packet_that_came_after_the_clock_was_read_is_not_idle() -> None:
    half = record(State.OPENING, 1_001)
    assert not is_over(half, half, 1_000, HZ, TIMEOUTS)


@pytest.mark.parametrize("now", [0, 1, 6 * HZ - 1, 2**31, 2**32 - 1])
def test_the_clock_wraps(now: int) -> None:
    young, old = record(State.OPENING, now - 4 * HZ), record(State.OPENING, now - 6 * HZ)
    assert not is_over(young, young, now, HZ, TIMEOUTS)
    assert is_over(old, old, now, HZ, TIMEOUTS)


def test_each_service_has_its_own_times() -> None:
    now = 100_000
    halves = np.array([record(State.UDP, now - 45 * HZ, service) for service in (1, 2, 3, 4_000)])
    times = {1: Timeouts(udp=40), 2: Timeouts(udp=50)}
    assert select_candidates(halves, now, HZ, times).tolist() == [True, False, False, False]
    times[3] = Timeouts(udp=0.5)
    assert select_candidates(halves, now, HZ, times).tolist() == [True, False, True, False]


def test_no_services_and_no_records_are_fine() -> None:
    assert select_candidates(np.zeros(0, dtype=RECORD), 0, HZ, {}).tolist() == []
    assert select_candidates(np.array([record(State.UDP, 0)]), 61 * HZ, HZ, {}).tolist() == [True]


states = st.builds(
    lambda state, flags: int(state) | flags,
    st.sampled_from(State),
    st.sampled_from([0, ANSWERED, CLIENT_FIN, BACKEND_FIN, BOTH_FINS, BACKEND_CLOSED_FIRST]),
)


@given(states, st.integers(0, 2**32 - 1), st.integers(0, 8000), st.integers(0, 8000))
def test_what_is_over_as_a_pair_is_a_candidate_by_either_half(
    state: int, now: int, idle: int, other_idle: int
) -> None:
    dnat, snat = record(state, now - idle * HZ), record(state, now - other_idle * HZ)
    masks = [
        select_candidates(np.array([half]), now, HZ, {1: TIMEOUTS})[0] for half in (dnat, snat)
    ]
    assert is_over(dnat, snat, now, HZ, TIMEOUTS) == all(masks)
