"""What the demo does to a load balancer under load, phase by phase, and what it claims of each.

Told to a `Listener`, which shows it; nothing is printed here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from llb_core.demo.lab import PORT, VIP, Balancer, Lab
from llb_core.demo.network import wait_until
from llb_core.demo.traffic import Tally, Traffic

NOTICE_LIMIT = 60.0
"""Seconds until the demo gives up waiting for a health check to turn."""


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of the story. `expects` are the backends that answer in it, and no others do."""

    key: str
    title: str
    expects: frozenset[str] | None = None
    may_fail: bool = False


ALL = frozenset({"b1", "b2", "b3"})
STEADY = Phase("steady", "three backends", ALL)
KILLED = Phase("killed", "b2 killed", may_fail=True)
GONE = Phase("gone", "b2 left out", ALL - {"b2"})
STARTED = Phase("started", "b2 started again")
BACK = Phase("back", "b2 back in", ALL)
DRAINING = Phase("draining", "llb drain b3")
DRAINED = Phase("drained", "b3 drained", ALL - {"b3"})
DAEMON_KILLED = Phase("daemon-killed", "kill -9 of the daemon", ALL - {"b3"})
DAEMON_BACK = Phase("daemon-back", "daemon started again", ALL - {"b3"})
UNDRAINED = Phase("undrained", "llb undrain b3", ALL)
PHASES = (
    STEADY, KILLED, GONE, STARTED, BACK, DRAINING, DRAINED, DAEMON_KILLED, DAEMON_BACK, UNDRAINED,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Told:
    """A phase as it went."""

    phase: Phase
    seconds: float
    tally: Tally

    def complaints(self) -> list[str]:
        """What went otherwise than the phase promises."""
        found = []
        title = self.phase.title
        if not self.tally.sent:
            found.append(f"{title}: no request ended")
        if self.tally.failed and not self.phase.may_fail:
            reasons = ", ".join(f"{number} {why}" for why, number in self.tally.failed.items())
            found.append(f"{title}: {self.tally.failed.total()} requests failed: {reasons}")
        if self.phase.expects is not None:
            answering = set(self.tally.answered)
            found += [f"{title}: {name} answered" for name in answering - self.phase.expects]
            found += [f"{title}: {name} never answered" for name in self.phase.expects - answering]
        return found


@dataclass(slots=True)
class Outcome:
    """The whole story: its phases in order, and what was measured on the way, in seconds."""

    phases: list[Told] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)

    @property
    def complaints(self) -> list[str]:
        """What went wrong; none, if LLB kept its promises."""
        return [complaint for told in self.phases for complaint in told.complaints()]


class Listener(Protocol):
    """Whoever shows the story while it is told."""

    def begins(self, phase: Phase) -> None: ...

    def notes(self, sentence: str) -> None: ...

    def counts(self, tallies: dict[str, Tally], elapsed: dict[str, float]) -> None: ...


class Teller:
    """Keeps the clock and the counts while the phases go by."""

    def __init__(self, traffic: Traffic, listener: Listener) -> None:
        self.outcome = Outcome()
        self._traffic = traffic
        self._listener = listener
        self._elapsed: dict[str, float] = {}
        self._phase: Phase | None = None
        self._since = 0.0

    def begin(self, phase: Phase) -> None:
        """Go on to the next phase: requests that begin now count under it."""
        self._traffic.phase(phase.key)
        self._clock()
        self._phase, self._since = phase, time.monotonic()
        self._listener.begins(phase)

    def note(self, sentence: str) -> None:
        """Tell what just happened."""
        self._listener.notes(sentence)

    def linger(self, seconds: float) -> None:
        """Let the phase go on for a while."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(0.1, left))
            self._show()

    def wait(self, condition: Callable[[], bool], what: str) -> float:
        """Let the phase go on until the condition holds; give the seconds it took."""
        begun = time.monotonic()

        def holds() -> bool:
            self._show()
            return condition()

        wait_until(holds, NOTICE_LIMIT, what)
        return time.monotonic() - begun

    def end(self) -> Outcome:
        """Wait for the requests under way; give the whole."""
        self._clock()
        tallies = self._traffic.finish()
        self._listener.counts(tallies, dict(self._elapsed))
        self.outcome.phases = [
            Told(phase, self._elapsed[phase.key], tallies.get(phase.key, Tally()))
            for phase in PHASES
            if phase.key in self._elapsed
        ]
        return self.outcome

    def _clock(self) -> None:
        if self._phase is not None:
            self._elapsed[self._phase.key] = time.monotonic() - self._since

    def _show(self) -> None:
        self._clock()
        self._listener.counts(self._traffic.tallies(), dict(self._elapsed))


def tell(lab: Lab, balancer: Balancer, listener: Listener, pace: float = 1.0) -> Outcome:
    """Tell the story to its end; `pace` stretches the time that each phase is given."""
    _, b2, b3 = lab.backends
    with Traffic(lab.clients, VIP, PORT) as traffic:
        teller = Teller(traffic, listener)
        measured = teller.outcome.measured

        teller.begin(STEADY)
        teller.linger(3 * pace)

        teller.begin(KILLED)
        teller.linger(1)  # what was begun before is answered by now
        b2.kill()
        noticed = teller.wait(lambda: not balancer.is_active(b2), "LLB noticed that b2 is dead")
        measured["dead_backend_noticed"] = noticed
        teller.note(f"the dead backend was out after {noticed:.2f} s")
        teller.linger(0.3)
        teller.begin(GONE)
        teller.linger(2.5 * pace)

        teller.begin(STARTED)
        b2.start()
        noticed = teller.wait(lambda: balancer.is_active(b2), "LLB noticed that b2 is back")
        measured["backend_back"] = noticed
        teller.note(f"started again, it was in after {noticed:.2f} s")
        teller.linger(0.3)
        teller.begin(BACK)
        teller.linger(2.5 * pace)

        teller.begin(DRAINING)
        balancer.llb("drain", b3.endpoint)
        teller.linger(2)  # kept connections come to their end
        teller.begin(DRAINED)
        teller.linger(2 * pace)

        teller.begin(DAEMON_KILLED)
        balancer.kill()
        teller.linger(2.5 * pace)
        teller.begin(DAEMON_BACK)
        begun = time.monotonic()
        balancer.start(wait=False)
        teller.wait(balancer.serves, "the daemon answers again")
        measured["daemon_start"] = time.monotonic() - begun
        teller.note(f"the daemon was ready again after {measured['daemon_start']:.2f} s")
        teller.linger(2.5 * pace)

        teller.begin(UNDRAINED)
        balancer.llb("undrain", b3.endpoint)
        teller.linger(2.5 * pace)
        return teller.end()
