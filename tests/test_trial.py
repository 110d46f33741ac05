"""A provider asked once: what it said, and what would change."""

from __future__ import annotations

import ipaddress
import sys
import threading
from collections.abc import Callable

import pytest

from llb_core.model import Backend
from llb_core.provider import Provider
from llb_core.testing import Calling, Clock, FakeProvider, some_backends, until
from llb_core.trial import Known, Outcome, Trial, changes

V4 = frozenset({4})
LATE = "no answer within 0.01 s: see what it waits for, or raise --timeout"
A, B = (each.endpoint for each in some_backends(1, 2))


@pytest.fixture
def provider() -> FakeProvider:
    return FakeProvider()


def test_says_what_the_provider_said_and_how_long_it_took(provider: FakeProvider) -> None:
    provider.say(some_backends(2, 1))
    clock = Clock()
    trial = Trial(lambda: provider, V4, (), 30, clock)
    assert trial.outcome() == Outcome(some_backends(1, 2), "", 0.0)
    until(provider.closed.is_set)


@pytest.mark.parametrize(
    ("error", "text"),
    [("it is down", "it is down"), (KeyError("Address"), "KeyError: 'Address'")],
    ids=str,
)
def test_says_why_it_could_not_answer(
    provider: FakeProvider, error: BaseException | str, text: str
) -> None:
    provider.fail(error)
    outcome = Trial(lambda: provider, V4, (), 30).outcome()
    assert (outcome.backends, outcome.error) == (None, text)
    assert provider.closed.is_set()


def test_one_that_cannot_be_made_is_an_error() -> None:
    def make() -> FakeProvider:
        raise OSError("no network")

    error = Trial(make, V4, (), 30).outcome().error
    assert error.startswith(f"OSError: no network ({__file__}, line ")


def test_holds_the_answer_against_the_contract_and_the_networks(provider: FakeProvider) -> None:
    provider.say(some_backends(1))
    networks = [ipaddress.ip_network("10.9.0.0/16")]
    assert "is in no network of" in Trial(lambda: provider, V4, networks, 30).outcome().error


def test_refuses_the_balancers_own_addresses(provider: FakeProvider) -> None:
    provider.say(some_backends(1))
    ours = {some_backends(1)[0].endpoint.address: "loadbalancer.snat_addresses"}
    outcome = Trial(lambda: provider, V4, (), 30, ours=ours).outcome()
    assert "is the balancer's own (loadbalancer.snat_addresses)" in outcome.error


@pytest.mark.parametrize(
    "end", [threading.Event().wait, lambda: sys.exit(3)], ids=["hangs", "exits"]
)
@pytest.mark.parametrize("is_down", [False, True], ids=["answers", "fails"])
def test_how_it_closes_changes_nothing(
    provider: FakeProvider,
    monkeypatch: pytest.MonkeyPatch,
    end: Callable[[], object],
    is_down: bool,
) -> None:
    monkeypatch.setattr(provider, "close", end)
    provider.say(some_backends(1))
    if is_down:
        provider.fail("it is down")
    outcome = Trial(lambda: provider, V4, (), 3600).outcome()
    assert (outcome.backends or outcome.error) == ("it is down" if is_down else some_backends(1))


def test_has_the_time_that_it_gives_itself_once_it_is_made(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Provider, "time_limit", 5)
    clock = Clock()

    def make() -> FakeProvider:
        clock.now += 4
        return provider

    provider.time_limit = 7
    provider.hang()
    trial = Trial(make, V4, (), None, clock)
    until(lambda: provider.is_hanging)
    clock.now += 6
    waiting = Calling(trial.outcome)
    provider.release()
    assert waiting.result() == Outcome((), "", 10.0)
    provider.hang()
    trial = Trial(make, V4, (), None, clock)
    until(lambda: provider.is_hanging)
    clock.now += 8
    assert trial.outcome().error.startswith("no answer within 7 s: ")
    provider.release()


def test_an_answer_after_the_shorter_time_that_it_gives_itself_is_none(
    provider: FakeProvider,
) -> None:
    clock = Clock()
    provider.time_limit = 2
    provider.hang()
    trial = Trial(lambda: provider, V4, (), None, clock)
    waiting = Calling(trial.outcome)  # From when the limit is that of all.
    until(lambda: provider.is_hanging)
    clock.now += 3
    provider.release()
    assert waiting.result().error.startswith("no answer within 2 s: ")


@pytest.mark.parametrize("name", ["refresh", "time_limit"])
def test_refuses_a_pace_that_nobody_can_keep(provider: FakeProvider, name: str) -> None:
    setattr(provider, name, 0)
    outcome = Trial(lambda: provider, V4, (), 30).outcome()
    assert outcome.error.startswith(f"its {name} is 0, not a number of seconds above 0")


def test_gives_one_that_hangs_up_after_its_time(provider: FakeProvider) -> None:
    provider.hang()
    outcome = Trial(lambda: provider, V4, (), 0.01).outcome()
    assert outcome == Outcome(None, LATE, 0.01)
    provider.release()


def test_one_that_fails_to_close_has_answered_all_the_same(
    provider: FakeProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = threading.Event()

    def close() -> None:
        closing.set()
        raise OSError("gone already")

    monkeypatch.setattr(provider, "close", close)
    provider.say(some_backends(1))
    assert Trial(lambda: provider, V4, (), 30).outcome().backends == some_backends(1)
    assert closing.wait(5)


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [Backend(A, 3)], [f"register {A}, weight 3"]),
        ([Known(A, 1, "active")], [Backend(A)], []),
        ([Known(A, 1, "active")], [], [f"deregister {A}"]),
        ([Known(A, 1, "retired")], [], []),
        ([Known(A, 1, "retired")], [Backend(A)], [f"register {A}, weight 1"]),
        ([Known(A, 1, "active")], [Backend(A, 2)], [f"change the weight of {A} from 1 to 2"]),
        ([Known(A, 1, "active")], [Backend(A, draining=True)], [f"drain {A}"]),
        ([Known(A, 1, "draining")], [Backend(A, draining=True)], []),
        ([], [Backend(A, draining=True)], [f"register {A}, weight 1", f"drain {A}"]),
        ([Known(A, 1, "draining")], [Backend(A)], [f"drain {A} no longer"]),
        ([Known(A, 1, "draining", is_ordered=True)], [Backend(A)], []),
        ([Known(A, 1, "draining", "unhealthy")], [Backend(A)], []),
        ([Known(A, 0, "draining")], [Backend(A, 0)], []),
        (
            [Known(A, 1, "active", "healthy")],
            [Backend(A, healthy=False)],
            [f"give {A} no new connections: its provider says it is unhealthy"],
        ),
        ([Known(A, 1, "draining", "unhealthy")], [Backend(A, healthy=False)], []),
        (
            [Known(B, 1, "active")],
            [Backend(A)],
            [f"register {A}, weight 1", f"deregister {B}"],
        ),
    ],
)
def test_says_what_would_change(
    before: list[Known], after: list[Backend], expected: list[str]
) -> None:
    assert list(changes(before, after, is_whole=True)) == expected


def test_a_weight_counts_where_no_other_provider_comes_first() -> None:
    (said,) = changes([Known(A, 3, "active")], [Backend(A, 5)], is_whole=False)
    assert said == (
        f"change the weight of {A} from 3 to 5, unless another provider that names it comes first"
    )


def test_deregisters_nothing_that_another_provider_may_name() -> None:
    assert list(changes([Known(A, 1, "active")], [], is_whole=False)) == []
