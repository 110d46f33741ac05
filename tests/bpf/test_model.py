"""The model and the classifier, driven by the same random sequences, agree on everything.

After each packet: the same verdict and the same packet, checksums as right or wrong as they came,
and the same tables in every field; each DNAT half has its SNAT half, no two connections share a
tuple, both halves are in the same state. On long walks the tables are looked at after every 64th.

`LLB_MODEL_EXAMPLES` says how many sequences to try, and `--hypothesis-seed` which;
`LLB_MODEL_PACKETS` how many packets to send on long walks, and `LLB_MODEL_SEED` which.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llb_core.datapath.layout import Verdict
from tests.bpf.agreement import Agreement
from tests.bpf.cases import Case
from tests.bpf.choices import POLICIES, SNAT_ADDRESSES, SNAT_PORTS, STEPS, strategy
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.states import STATES, Reached
from tests.bpf.steps import Policies, Step, TimePasses
from tests.bpf.walking import Ground, Walker, shortest

pytestmark = pytest.mark.root

EXAMPLES = int(os.environ.get("LLB_MODEL_EXAMPLES", "50"))
PACKETS = int(os.environ.get("LLB_MODEL_PACKETS", "3000"))
SEED = int(os.environ.get("LLB_MODEL_SEED", "1"))

_NEVER = {
    Verdict.PASS_HOST_SOCKET,
    Verdict.DROP_TABLE_FULL,
    Verdict.DROP_ENDING,
    Verdict.DROP_ERROR,
}
NEVER = {4: _NEVER | {Verdict.DROP_EXTENSIONS}, 6: _NEVER}
"""The verdicts that no steps can come to, by address family."""
TOLD_EVERY = 20
"""After so many walks it is said how far they have come."""
MOST_WALKS = 10

sequences = settings(
    deadline=None,
    max_examples=EXAMPLES,
    suppress_health_check=list(HealthCheck),
    print_blob=True,
)


@pytest.fixture(scope="module", autouse=True)
def told() -> Iterator[None]:
    """Say in the end how much all agree about."""
    yield
    print(f"\n{Agreement.packets:,} packets in all, each compared")


def test_model_gives_what_the_table_of_cases_says(rig: Rig, case: Case) -> None:
    """So the model itself is held to what was written by hand."""
    both = Agreement(rig)
    case.given(both)

    outcome = both.send(case.packet, case.arrives_on, gso_size=case.gso_size)

    assert outcome.verdict is case.verdict


@pytest.mark.parametrize("reached", STATES, ids=lambda reached: reached.name)
def test_model_follows_every_state_to_its_end(rig: Rig, reached: Reached) -> None:
    both = Agreement(rig)
    reached.by(both)
    (connection,) = both.model.connections.values()
    assert connection.halves()[0].state == reached.state

    both.pass_time(reached.idle - 2)
    assert both.collect() == 0
    both.pass_time(2)
    assert both.collect() == 1


@sequences
@given(
    steps=st.lists(STEPS, min_size=1, max_size=40),
    ports=st.sampled_from(SNAT_PORTS),
    addresses=st.sampled_from(SNAT_ADDRESSES),
    policies=strategy(POLICIES),
)
def test_classifier_does_what_the_model_does(
    rig: Rig, steps: list[Step], ports: tuple[int, int], addresses: int, policies: Policies
) -> None:
    Ground(ports, addresses, policies).walk(rig, steps)


@settings(sequences, max_examples=max(1, EXAMPLES // 2))
@given(steps=st.lists(STEPS, min_size=1, max_size=40), addresses=st.integers(1, 2))
def test_classifier_does_what_the_model_does_in_full_tables(
    small_rig: Rig, steps: list[Step], addresses: int
) -> None:
    Ground(addresses=addresses).walk(small_rig, steps)


def test_classifier_does_what_the_model_does_on_long_walks(rig: Rig) -> None:
    walker, before = Walker(rig, SEED), Agreement.packets
    for number in itertools.count():
        sent = Agreement.packets - before
        if sent >= PACKETS or number % TOLD_EVERY == 0:
            print(f"\nseed {SEED}, IPv{rig.family}: {sent:,} packets on {number} walks", end="")
        if sent >= PACKETS:
            break
        walker.walk(number)


def test_walks_come_to_every_verdict_that_they_can(rig: Rig) -> None:
    """Lest the world grow too small, or too large, for things to happen in it."""
    walker, before = Walker(rig, SEED), rig.verdicts()
    for number in range(MOST_WALKS):
        walker.walk(number)
        after = rig.verdicts()
        never = {each for each in Verdict if after[each] == before[each]}
        if never == NEVER[rig.family]:
            break
    assert never == NEVER[rig.family]


def test_what_a_walk_fails_by_is_cut_short() -> None:
    steps: list[Step] = [TimePasses(each) for each in range(100)]
    needed = {steps[17], steps[60], steps[61]}

    assert shortest(steps, lambda tried: needed <= set(tried)) == [steps[17], *steps[60:62]]
