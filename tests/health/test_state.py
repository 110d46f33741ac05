"""What results make of a backend's health."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llb_core.health.state import CheckResult, Health, HealthState, observe

GOOD = CheckResult(True)
BAD = CheckResult(False, "connection refused")


def after(results: str, *, start: Health = Health.UNKNOWN, rise: int = 2, fall: int = 3) -> Health:
    """The status after these results: + is a success, - a failure."""
    return walk(results, HealthState(start), rise, fall).status


def walk(results: str, state: HealthState, rise: int = 2, fall: int = 3) -> HealthState:
    for now, mark in enumerate(results, start=1):
        state = observe(state, GOOD if mark == "+" else BAD, rise=rise, fall=fall, now=float(now))
    return state


@pytest.mark.parametrize(
    ("start", "results", "expected"),
    [
        pytest.param(Health.UNKNOWN, "", Health.UNKNOWN, id="nothing is known before a check"),
        pytest.param(Health.UNKNOWN, "+", Health.HEALTHY, id="a new one needs one success"),
        pytest.param(Health.UNKNOWN, "--", Health.UNKNOWN, id="two failures do not condemn it"),
        pytest.param(Health.UNKNOWN, "---", Health.UNHEALTHY, id="three do"),
        pytest.param(Health.HEALTHY, "--", Health.HEALTHY, id="stays until it fell"),
        pytest.param(Health.HEALTHY, "---", Health.UNHEALTHY, id="falls"),
        pytest.param(Health.HEALTHY, "--+--", Health.HEALTHY, id="a success starts it anew"),
        pytest.param(Health.UNHEALTHY, "+", Health.UNHEALTHY, id="stays until it rose"),
        pytest.param(Health.UNHEALTHY, "++", Health.HEALTHY, id="rises"),
        pytest.param(Health.UNHEALTHY, "+-+", Health.UNHEALTHY, id="a failure starts it anew"),
    ],
)
def test_status_after_results(start: Health, results: str, expected: Health) -> None:
    assert after(results, start=start) is expected


def test_keeps_the_reason_and_the_time_it_turned() -> None:
    state = walk("+---+", HealthState())
    assert (state.reason, state.since) == ("connection refused", 4.0)


def test_forgets_the_reason_once_healthy() -> None:
    assert walk("---++", HealthState()).reason == ""


def test_is_in_question_when_the_newest_result_speaks_against_its_status() -> None:
    assert [walk(r, HealthState()).is_in_question for r in ("", "+", "+-", "+---", "+---+")] == [
        True, False, True, False, True,
    ]  # fmt: skip


@given(
    results=st.text("+-", max_size=40),
    rise=st.integers(1, 5),
    fall=st.integers(1, 5),
)
def test_turns_only_after_as_many_results_in_a_row(results: str, rise: int, fall: int) -> None:
    state = HealthState(Health.HEALTHY)
    for n in range(len(results)):
        before, state = state, walk(results[n], state, rise, fall)
        seen = results[: n + 1]
        if before.status is not state.status:
            turned_up = state.status is Health.HEALTHY
            assert seen.endswith("+" * rise if turned_up else "-" * fall)
        elif state.status is Health.HEALTHY:
            assert not seen.endswith("-" * fall)
        else:
            assert not seen.endswith("+" * rise)
