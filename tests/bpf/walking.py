"""Long walks of the model and the classifier, side by side: thousands of steps at random, where
hypothesis tries some dozens. What is left behind of one step may matter only much later.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from llb_core.map_sync import MapSync
from tests.bpf.agreement import Agreement
from tests.bpf.choices import (
    ALL_ACTIVE,
    CHANGES,
    PACKETS,
    PLAIN,
    POLICIES,
    SNAT_ADDRESSES,
    SNAT_PORTS,
    draw,
)
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.world import MORE_SNATS, SNAT, address
from tests.bpf.steps import Policies, Step, services

LENGTH = 5000
"""Steps of one walk."""
PACKETS_IN_STOCK, CHANGES_IN_STOCK = 800, 400
"""So many steps are drawn once, and gone again and again: frames are dear to make."""
CHANGES_IN_A_THOUSAND = 20


@dataclass(frozen=True, slots=True)
class Ground:
    """What a walk begins on."""

    ports: tuple[int, int] = (2000, 2003)
    addresses: int = 1
    policies: Policies = PLAIN

    def begin(self, rig: Rig, looks_every: int = 1) -> Agreement:
        """Have both stand on it, without connections."""
        rig.forget_connections()
        rig.sync = MapSync(rig.datapath)  # one that has found nothing wrong yet
        rig.install(*services(rig.private_index, ALL_ACTIVE, self.policies))
        ours = tuple(address(text) for text in (SNAT, *MORE_SNATS)[: self.addresses])
        return Agreement(rig, snat_ports=self.ports, snat_addresses=ours, looks_every=looks_every)

    def walk(self, rig: Rig, steps: list[Step], looks_every: int = 1) -> None:
        """Go all steps; both must agree."""
        both = self.begin(rig, looks_every)
        for step in steps:
            step.happen(both)
        both.look()


@dataclass(slots=True)
class Walker:
    """Walks that are the same for the same seed, but for what time makes of them."""

    rig: Rig
    seed: int
    looks_every: int = 64
    _packets: list[Step] = field(init=False)
    _changes: list[Step] = field(init=False)

    def __post_init__(self) -> None:
        random = Random(self.seed)
        self._packets = [draw(random.choice(PACKETS), random) for _ in range(PACKETS_IN_STOCK)]
        self._changes = [draw(random.choice(CHANGES), random) for _ in range(CHANGES_IN_STOCK)]

    def walk(self, number: int, length: int = LENGTH) -> None:
        """Go one walk. Where both come to disagree, say by which few steps."""
        ground, steps = self._draw(number, length)
        try:
            ground.walk(self.rig, steps, self.looks_every)
        except AssertionError:
            first = traceback.format_exc()
            raise AssertionError(
                f"walk {number} of seed {self.seed}, IPv{self.rig.family}, on {ground}:\n"
                + _told(self.rig, ground, steps, first)
            ) from None

    def _draw(self, number: int, length: int) -> tuple[Ground, list[Step]]:
        random = Random(f"{self.seed} {number}")
        ground = Ground(
            random.choice(SNAT_PORTS), random.choice(SNAT_ADDRESSES), draw(POLICIES, random)
        )
        steps = []
        for _ in range(length):
            is_change = random.randrange(1000) < CHANGES_IN_A_THOUSAND
            steps.append(random.choice(self._changes if is_change else self._packets))
        return ground, steps


def _told(rig: Rig, ground: Ground, steps: list[Step], first: str) -> str:
    why = ""

    def fails(tried: list[Step]) -> bool:
        nonlocal why
        try:
            ground.walk(rig, tried)
        except AssertionError:
            why = traceback.format_exc()
            return True
        return False

    if not fails(steps):
        return f"it does not come again\n{first}"
    few = shortest(steps, fails)
    assert fails(few)
    return "\n".join(map(repr, few)) + f"\n{why}"


def shortest(steps: list[Step], fails: Callable[[list[Step]], bool]) -> list[Step]:
    """Leave out what isn't needed to fail: halves, quarters, and so on down to single steps."""
    size = len(steps)
    while size:
        at = 0
        while at < len(steps):
            rest = steps[:at] + steps[at + size :]
            if fails(rest):
                steps = rest
            else:
                at += size
        size //= 2
    return steps
