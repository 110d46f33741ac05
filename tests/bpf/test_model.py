"""The model and the classifier, driven by the same random sequences, agree on everything.

After each packet: the same verdict and the same packet, checksums as right or wrong as they came,
and the same tables in every field; each DNAT half has its SNAT half, no two connections share a
tuple, both halves are in the same state. `LLB_MODEL_EXAMPLES` says how many sequences to try,
and `--hypothesis-seed` which.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from llb_core.datapath.layout import Verdict
from llb_core.map_sync import MapSync
from tests.bpf.agreement import Agreement
from tests.bpf.cases import Case
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.states import STATES, Reached
from tests.bpf.harness.world import MORE_SNATS, SNAT, address
from tests.bpf.steps import ALL_ACTIVE, PLAIN, POLICIES, STEPS, Policies, Step, services

pytestmark = pytest.mark.root

EXAMPLES = int(os.environ.get("LLB_MODEL_EXAMPLES", "250"))

_NEVER = {
    each.name.lower()
    for each in (
        Verdict.PASS_HOST_SOCKET,
        Verdict.DROP_TABLE_FULL,
        Verdict.DROP_ENDING,
        Verdict.DROP_ERROR,
    )
}
NEVER = {4: _NEVER | {Verdict.DROP_EXTENSIONS.name.lower()}, 6: _NEVER}
"""The verdicts that no sequence of steps can come to, by address family."""
MOST_ROUNDS = 10
"""The classifier draws its first SNAT port and the kernel its hashes by chance: what one round
misses, the next ones find."""

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
    print(f"\n{Agreement.packets:,} packets, and the tables compared and looked over after each")


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
    ports=st.sampled_from([(2000, 2000), (2000, 2001), (2000, 2003), (2000, 2007)]),
    addresses=st.integers(1, 3),
    policies=POLICIES,
)
def test_classifier_does_what_the_model_does(
    rig: Rig, steps: list[Step], ports: tuple[int, int], addresses: int, policies: Policies
) -> None:
    _agree(rig, steps, ports, addresses, policies)


@sequences
@given(steps=st.lists(STEPS, min_size=1, max_size=40), addresses=st.integers(1, 2))
def test_classifier_does_what_the_model_does_in_full_tables(
    small_rig: Rig, steps: list[Step], addresses: int
) -> None:
    _agree(small_rig, steps, (2000, 2003), addresses)


def _agree(
    rig: Rig,
    steps: list[Step],
    ports: tuple[int, int],
    addresses: int,
    policies: Policies = PLAIN,
) -> None:
    rig.forget_connections()
    rig.sync = MapSync(rig.datapath)  # one that has found nothing wrong yet
    rig.install(*services(rig.private_index, ALL_ACTIVE, policies))
    ours = tuple(address(text) for text in (SNAT, *MORE_SNATS)[:addresses])
    both = Agreement(rig, snat_ports=ports, snat_addresses=ours)
    for step in steps:
        step.happen(both)


def test_random_sequences_come_to_every_verdict_that_they_can(rig: Rig) -> None:
    """Lest the world grow too small, or too large, for things to happen in it."""

    before = rig.datapath.counters().verdicts
    for number in range(MOST_ROUNDS):
        _run_through(rig, number)
        after = rig.datapath.counters().verdicts
        never = {name for name in after if after[name] == before[name]}
        if never == NEVER[rig.family]:
            break
    assert never == NEVER[rig.family]


def _run_through(rig: Rig, number: int) -> None:
    """Send the same random sequences for the same number."""

    @seed(number)
    @settings(sequences, max_examples=120, database=None, phases=[Phase.generate])
    @given(steps=st.lists(STEPS, min_size=30, max_size=40))
    def run_through(steps: list[Step]) -> None:
        _agree(rig, steps, (2000, 2000), 1)

    run_through()
