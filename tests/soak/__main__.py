"""Change, break and load a balancer at random, for as long as is wanted, and hold it to what must
hold always: `python -m tests.soak --minutes 10 --seed 7`.

In the first half the daemon lives on, so that its memory and open files can be watched; in the
second it is killed, restarted and upgraded, too. The seed that it prints does the same again, but
for what time makes of it. Exit code 1, and a line for each finding, where something did not hold.
"""

from __future__ import annotations

import argparse
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from llb_core.errors import LLBError
from tests.soak.happenings import HAPPENINGS, Happening
from tests.soak.invariants import Footprint, check
from tests.soak.world import KEPT, WORKERS, World

Say = Callable[[str], None]


def soak(seconds: float, seed: int, folder: Path, say: Say) -> list[str]:
    """Run for that time; return what was found, nothing where all held."""
    with World(folder, seed) as world:
        began = time.monotonic()
        footprint = Footprint(_pid(world))
        steps = 0
        is_first_half = True
        try:
            while not world.findings and (left := seconds - (time.monotonic() - began)) > 0:
                if is_first_half and left < seconds / 2:
                    is_first_half = False
                    world.findings += footprint.complaints()
                possible = [each for each in HAPPENINGS if not (each.ends_daemon and is_first_half)]
                happen(world, world.random.choice(possible), say)
                steps += 1
                if is_first_half:
                    footprint.take(world.balancer.control)
            world.finish()
        except (
            LLBError, TimeoutError, OSError, AssertionError, subprocess.SubprocessError
        ) as error:  # fmt: skip
            world.findings.append(f"after {steps} steps: {type(error).__name__}: {error}")
        answered, failed, datagrams = world.count()
        say(
            f"{steps} happenings, {world.restarts} starts; {answered} requests answered, "
            f"{failed} failed where they may; {datagrams} datagrams answered; {world.transfers} "
            f"transfers arrived; {world.packets:,} packets; first daemon: {footprint}; "
            f"slow orders: {', '.join(world.orders.slow) or 'none'}"
        )
        if world.findings:
            say(world.balancer.last_words())
    return world.findings


def happen(world: World, happening: Happening, say: Say) -> None:
    """Let something happen, wait until all is as it is wanted, and look at everything."""
    title = happening.run.__name__.replace("_", " ")
    phase = world.begin(title, may_fail=happening.may_fail)
    world.may_break = happening.may_fail
    # Every request under way when it happens was begun in its phase.
    world.carry_on(phase, 2 * WORKERS)
    said = happening.run(world)
    world.settle()
    # Kept connections go on where they were, until each has had its requests.
    turned = world.traffic_ended(phase) + 2 * WORKERS * KEPT
    world.carry_on(phase, turned)
    world.judge()
    world.may_break = False
    calm = world.begin(f"after: {title}", allowed=world.wanted.active)
    world.carry_on(calm, 2 * WORKERS)
    check(world)
    world.judge()
    say(f"{title}: {said}")


def main() -> None:
    """Read the command line and soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = secrets.randbelow(1 << 31) if arguments.seed is None else arguments.seed
    print(f"seed {seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="llb-soak-") as folder:
        findings = soak(
            60 * arguments.minutes, seed, Path(folder), lambda text: print(text, flush=True)
        )
    for each in findings:
        print(f"FOUND: {each}")
    print(f"{len(findings)} findings with seed {seed}")
    sys.exit(bool(findings))


def _pid(world: World) -> int:
    assert world.balancer.daemon is not None
    return world.balancer.daemon.pid


if __name__ == "__main__":
    main()
