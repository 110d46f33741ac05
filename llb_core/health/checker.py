"""Ask all backends, again and again, and tell of those that turn.

A backend that stands behind several services with the same check is asked once. All of this runs on
the event loop's thread, by timers; only `states` may be read from elsewhere.

When to ask next. At rest a check starts one interval after the one before started. As soon as a
backend is *in question* (the newest result speaks against its state, or a check has had no answer
for a third of the interval) the next check starts a third of the interval after the one before,
without waiting for its end. So a backend that dies just after a good check is out at the latest
after

    interval + (fall - 1) * interval / 3 + timeout

which by default (500 ms, 500 ms, 3) is 1.33 s for a host that has gone silent, and 0.83 s for a
connection refused. Results at a fixed rate of one an interval would take 2 s.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import random
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from operator import attrgetter

from llb_core.config import HealthConfig
from llb_core.health.checks import GOOD, Check, HttpQuestion, Inconclusive, Outcome, Probe, Target
from llb_core.health.poller import Poller
from llb_core.health.sockets import Sockets
from llb_core.health.source_ports import SourcePorts
from llb_core.health.state import CheckResult, Health, HealthState, is_settled, observe
from llb_core.health.timing import Deadlines, Grid
from llb_core.model import Endpoint

log = logging.getLogger(__name__)

_HURRY = 3
"""How much faster a backend in question is asked."""
_STEPS = 6
"""Checks start on multiples of that share of their interval, several together: that wakes the
process less often and leaves its caches warm, which divides what they cost."""
_GROUPS, _TOGETHER = 3, 128
"""At rest they are so many groups at most, filled so many at a time: a hundred start together,
which costs the least, and a thousand do not."""
_TELL_AGAIN = 60.0
"""Seconds until it is told again that checks can't be carried out."""
_SPREAD = 0.001
"""Seconds between the first checks of backends that appear together."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """What to ask a service's backends, and when a backend turns.

    `port` replaces the backend's own; `interval` is in seconds, from the start of a check to the
    next; `rise` and `fall` are results in a row.
    """

    check: Check
    interval: float
    rise: int
    fall: int
    port: int | None = None

    @classmethod
    def of(cls, config: HealthConfig) -> Schedule | None:
        """Return what the configuration asks for, None where it asks for no checks."""
        if config.type == "none":
            return None
        http = None
        if config.type == "http":
            http = HttpQuestion(config.path, config.host or "", config.status)
        check = Check(config.timeout, http)
        return cls(check, config.interval, config.rise, config.fall, config.port)

    def target(self, backend: Endpoint) -> Endpoint:
        """Return where the check goes."""
        return backend if self.port is None else Endpoint(backend.address, self.port)


@dataclass(frozen=True, slots=True)
class Transition:
    """A backend turned healthy or unhealthy, in the eyes of these services."""

    backends: frozenset[tuple[str, Endpoint]]
    before: Health
    state: HealthState


Watched = Mapping[str, tuple[Schedule | None, Collection[Endpoint]]]
"""By the name of a service: its schedule (None for no checks) and its backends."""

_NOBODY: tuple[Schedule | None, Collection[Endpoint]] = (None, ())

_Key = tuple[Endpoint, Schedule]


class HealthChecker:
    """Keep a state for each backend of each service that is watched."""

    def __init__(
        self,
        ports: SourcePorts,
        on_transition: Callable[[Transition], None],
        *,
        clock: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._on_transition = on_transition
        self.clock = clock
        self.chance = chance
        self._loop = asyncio.get_running_loop()
        self.poller = Poller(self._loop)
        self.sockets = Sockets(ports, self.poller)
        self._grids: dict[float, Grid] = {}
        self._doubts: dict[float, Deadlines[_Patient]] = {}
        self._watched: Watched = {}
        self._patients: dict[_Key, _Patient] = {}
        self._groups: dict[str, _Group] = {}
        self._told_at = -math.inf
        self._places = itertools.count()

    def leave_from(self, ports: SourcePorts) -> None:
        """Start checks from other ports, from the next one on."""
        self.sockets.close()
        self.sockets = Sockets(ports, self.poller)

    @property
    def states(self) -> Mapping[str, Mapping[Endpoint, HealthState]]:
        """By service and backend, those that are checked. What it says of a service is the same
        object for as long as nothing of it has changed, and is never written into."""
        return {service: group.states() for service, group in self._groups.items()}

    def watch(self, watched: Watched) -> None:
        """Check these backends from now on, and no others.

        A backend that was watched keeps its state, also where its schedule is another now.
        """
        before, self._watched = self._watched, dict(watched)
        groups = dict(self._groups)
        newcomers: list[_Patient] = []
        left: list[_Patient] = []
        for service in before.keys() | watched.keys():
            was, now = before.get(service, _NOBODY), watched.get(service, _NOBODY)
            if was == now:
                continue  # As most are.
            schedule, endpoints = now
            old = groups.pop(service, _Group({}))
            for endpoint, patient in old.patients.items():
                patient.backends.discard((service, endpoint))
                left.append(patient)
            if schedule is None:
                continue
            patients: dict[Endpoint, _Patient] = {}
            for endpoint in endpoints:
                key = schedule.target(endpoint), schedule
                known = self._patients.get(key)
                if known is None:
                    known = self._patients[key] = self._admit(key, old.patients.get(endpoint))
                    newcomers.append(known)
                known.backends.add((service, endpoint))
                patients[endpoint] = known
            groups[service] = _Group(patients)
        self._groups = groups  # At once: `states` may be read meanwhile.
        for patient in left:
            if not patient.backends and self._patients.pop(patient.key, None) is not None:
                patient.close()
        for patient in newcomers:
            interval = patient.schedule.interval
            patient.start(self.chance() * min(interval, _SPREAD * len(newcomers)))

    def grid(self, interval: float) -> Grid:
        """Return what starts the checks of that interval, several together."""
        known = self._grids.get(interval)
        if known is None:
            known = self._grids[interval] = Grid(self._loop, interval / _STEPS)
        return known

    def next_group(self) -> int:
        """Return which group the next patient is of."""
        return next(self._places) // _TOGETHER % _GROUPS

    def doubts(self, interval: float) -> Deadlines[_Patient]:
        """Return what tells patients, asked at that interval, that they have given no answer for a
        third of it."""
        known = self._doubts.get(interval)
        if known is None:
            known = self._doubts[interval] = Deadlines(
                self._loop,
                interval / _HURRY,
                is_over=attrgetter("is_answered"),
                expire=lambda patient, _: patient.doubt(),
                before_look=self.poller.look,
            )
        return known

    def close(self) -> None:
        """Stop asking."""
        self.watch({})
        for grid in self._grids.values():
            grid.close()
        for doubts in self._doubts.values():
            doubts.close()
        self.sockets.close()
        self.poller.close()

    def _admit(self, key: _Key, before: _Patient | None) -> _Patient:
        target, schedule = key
        state = before.state if before else HealthState(since=self.clock())
        return _Patient(self, target, schedule, state)

    def on_inconclusive(self, reason: str) -> None:
        """Tell, now and then, that checks can't be carried out."""
        now = self.clock()
        if now >= self._told_at + _TELL_AGAIN:
            self._told_at = now
            log.warning("a health check could not be carried out, and says nothing: %s", reason)

    def on_change(self, patient: _Patient, before: Health) -> None:
        """Note that a patient's state has changed, and tell where that is its status."""
        for service, _ in patient.backends:
            self._groups[service].changes += 1
        if patient.state.status is not before:
            self._on_transition(Transition(frozenset(patient.backends), before, patient.state))


class _Group:
    """The patients of a service. They are not written into: a service that changes has another."""

    def __init__(self, patients: dict[Endpoint, _Patient]) -> None:
        self.patients = patients
        self.changes = 0
        """How often a state has changed. Counted after the change, and read before the states:
        so that what was read beside a change is not taken for the newest."""
        self._known: tuple[int, Mapping[Endpoint, HealthState]] = (-1, {})

    def states(self) -> Mapping[Endpoint, HealthState]:
        """Return their states, the same object while there is no change. From any thread."""
        changes, (then, known) = self.changes, self._known
        if then != changes:
            known = {endpoint: patient.state for endpoint, patient in self.patients.items()}
            self._known = changes, known
        return known


class _Patient:
    """A target, its state, the checks under way and the timer of the next one."""

    def __init__(
        self, checker: HealthChecker, target: Endpoint, schedule: Schedule, state: HealthState
    ) -> None:
        self.schedule = schedule
        self.key: _Key = target, schedule
        self.state = state
        self.backends: set[tuple[str, Endpoint]] = set()
        self.is_answered = True
        """Whether the newest check is."""
        self._is_settled = False
        """Whether one more good result changes nothing."""
        self._checker = checker
        self._loop = asyncio.get_running_loop()
        self._target = Target(target, schedule.check)
        self._grid = checker.grid(schedule.interval)
        self._doubts = checker.doubts(schedule.interval)
        self._offset = checker.next_group() * _STEPS // _GROUPS
        """Where on the grid its checks start at rest."""
        self._tick: int | None = None
        """When the next check starts, on the grid; None while none is to."""
        self._is_at_rest = False
        """Whether that is as it is at rest: at the end of a good check nothing changes."""
        self._first: asyncio.TimerHandle | None = None
        self._probes: set[Probe] = set()
        """The checks under way."""
        self._started = 0.0
        self._last_good = 0.0
        """When the newest check that succeeded was started."""

    def start(self, delay: float) -> None:
        self._first = self._loop.call_later(delay, self._ask_first)

    def _ask_first(self) -> None:
        self._ask(self._loop.time())

    def close(self) -> None:
        if self._first is not None:
            self._first.cancel()
        self._forget_next()
        for probe in self._probes:
            probe.cancel()
        self._probes.clear()
        self.is_answered = True  # Nothing is in doubt any more.

    def _ask(self, now: float) -> None:
        self._tick = None
        self._started = now
        self._is_at_rest = self._is_settled and not self._probes
        self._probes.add(Probe(self._checker.sockets, self._target, now, self._on_end))
        if self._is_at_rest:
            # Most are answered before there is any doubt: so that is not what is scheduled.
            self.is_answered = False
            self._doubts.add(now, self)
            when = now + self.schedule.interval
            self._tick = self._grid.call(self, when, self._ask, every=_STEPS, offset=self._offset)
        else:
            self._schedule_next()

    def doubt(self) -> None:
        """A check has had no answer for a while: don't wait for it."""
        self._schedule_next()

    def _on_end(self, probe: Probe, outcome: Outcome) -> None:
        self._probes.discard(probe)
        self.is_answered |= probe.began == self._started
        if outcome is GOOD and self._is_at_rest:  # As most are: nothing is worked out for those.
            self._last_good = max(self._last_good, probe.began)
            return
        if isinstance(outcome, Inconclusive):
            self._checker.on_inconclusive(outcome.reason)
        elif outcome.ok or probe.began >= self._last_good:  # A failure older than that is old news.
            self._observe(outcome, probe.began)
        if not (self._is_at_rest and self._is_settled):
            self._schedule_next()

    def _observe(self, result: CheckResult, started: float) -> None:
        if result.ok:
            self._last_good = max(self._last_good, started)
        before, schedule = self.state, self.schedule
        self.state = observe(
            before, result, rise=schedule.rise, fall=schedule.fall, now=self._checker.clock()
        )
        self._is_settled = is_settled(self.state, schedule.rise)
        if self.state is not before:
            self._checker.on_change(self, before.status)

    def _schedule_next(self) -> None:
        self._is_at_rest = False
        self._forget_next()
        when = self._next_start()
        if when is not None:
            self._tick = self._grid.call(self, when, self._ask)

    def _forget_next(self) -> None:
        if self._tick is not None:
            self._grid.cancel(self, self._tick)
            self._tick = None

    def _next_start(self) -> float | None:
        """Return when to ask next, or None where the end of a check under way is waited for."""
        is_healthy = self.state.status is Health.HEALTHY
        if self.state.is_in_question or (is_healthy and self._probes):
            if len(self._probes) >= max(self.schedule.rise, self.schedule.fall):
                return None
            return self._started + self.schedule.interval / _HURRY
        if self._probes:
            return None
        return self._started + self.schedule.interval
