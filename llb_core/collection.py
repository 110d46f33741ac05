"""Take connections out of the tables that are over, and halves that are alone.

User space reads the tables in batches and picks candidates (`planning.expiry`); the kernel's
collector judges each once more, claims it, and removes it. In a large table not every half is asked
for its twin in each pass: a lone half forwards nothing, so it may wait some passes for its turn.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llb_core.datapath import Family, layout, programs
from llb_core.datapath.bpf_map import CHUNK, Bookmark
from llb_core.datapath.reading import Traffic
from llb_core.load_counts import LoadCounts
from llb_core.model import BackendMode, Installed, Ticks, Transport
from llb_core.past_connections import PastConnections
from llb_core.planning.expiry import select_candidates

TWINS_AT_ONCE = CHUNK
"""Halves of each table whose twins one pass looks for, at least."""
QUIET_PASSES = 30
"""Passes of which one looks into the tables, while they are empty and no connection is opened: to
walk over a million empty buckets takes milliseconds, each second."""
EMPTY_LOOKS = 3
"""Looks that must have found them empty before: counts of connections are put right by then."""
RESETS_AT_ONCE = 10_000
"""Connections that one pass removes so that they can be reset: a backend with a million of them
ends over some passes, and nobody else waits for it."""


@dataclass(frozen=True, slots=True)
class CollectReport:
    """What one pass over the tables found. `seconds` is how long it took, `began` when it began, by
    `time.monotonic`. `connections`, `by_backend` (by its slot) and `by_state` are those that it
    left in the tables, though the last two have halves that were alone; `live_by_backend` are those
    that it found, without those that both sides have closed.

    `idle_slots` are retired backends that no connection used, from before the pass to its end;
    `to_reset` are those of the connections removed that are to be reset on both sides, as records
    of `layout.Records.ended`; `refused` counts, by backend's slot, new connections that found no
    SNAT port since the pass before.
    """

    connections: int = 0
    removed: int = 0
    lone_halves: int = 0
    by_backend: Mapping[int, int] = field(default_factory=dict)
    live_by_backend: Mapping[int, int] = field(default_factory=dict)
    by_state: Mapping[str, int] = field(default_factory=dict)
    idle_slots: frozenset[int] = frozenset()
    to_reset: Any = field(default_factory=lambda: np.zeros(0), compare=False)
    refused: Mapping[int, int] = field(default_factory=dict)
    seconds: float = 0.0
    began: float = 0.0


class Collector:
    """The collection of one address family; it remembers which twins were looked for."""

    def __init__(self, family: Family, twins_at_once: int = TWINS_AT_ONCE) -> None:
        self._family = family
        self._twins_at_once = twins_at_once
        self._refused: Mapping[int, int] | None = None
        self._loads = LoadCounts(family)
        self._places = {"dnat_table": Bookmark(), "snat_table": Bookmark()}
        self.past = PastConnections(family.number)
        self._began: int | None = None
        """The kernel's ticks when the last pass began."""
        self._forwarded = -1
        """What was forwarded before a look found the tables empty; -1 where the last did not."""
        self._passes = 0
        """Passes since that look."""
        self._retired: tuple[Installed, frozenset[int]] | None = None
        """What was installed when the tables were known to be empty, and who was retired then."""

    def collect(self, installed: Installed, reset_idle: Collection[str] = ()) -> CollectReport:
        """Make one pass.

        To be reset are the idle connections of the services that `reset_idle` names, and those of
        backends that are ending: who only waits to hear more would never hear of its end.
        """
        services, backends = self._family.traffic(installed)
        # Packets, too: one of a connection that is new may be lost behind the classifier.
        forwarded = sum(
            each.connections + each.packets_in + each.packets_out for each in services.values()
        )
        refused = self._newly_refused(backends)
        self._passes += 1
        is_quiet = forwarded == self._forwarded
        if is_quiet and self._passes >= EMPTY_LOOKS and self._passes % QUIET_PASSES:
            return self._nothing(installed, refused)
        report = self._look(installed, reset_idle, refused)
        if report.connections or report.removed or report.lone_halves:
            self._forwarded = -1
        elif not is_quiet:
            self._forwarded, self._passes = forwarded, 0
        return report

    def _nothing(self, installed: Installed, refused: Mapping[int, int]) -> CollectReport:
        """Report a pass over tables that are known to be empty."""
        if self._retired is None or self._retired[0] is not installed:
            modes = ((slot, each.mode) for slot, each in installed.backends.items())
            retired = frozenset(slot for slot, mode in modes if mode is BackendMode.RETIRED)
            self._retired = installed, retired
        return CollectReport(idle_slots=self._retired[1], refused=refused, began=time.monotonic())

    def _look(
        self, installed: Installed, reset_idle: Collection[str], refused: Mapping[int, int]
    ) -> CollectReport:
        """Make a pass that looks into the tables."""
        began = time.monotonic()
        last, clock = self._began, self._family.clock()
        self._began = clock.now
        rule = _Rule(self._family, installed, reset_idle)
        by_backend = np.zeros(layout.MAX_BACKENDS, dtype=np.int64)
        removed_by_backend = np.zeros(layout.MAX_BACKENDS, dtype=np.int64)
        by_state = np.zeros(layout.STATE_MASK + 1, dtype=np.int64)
        self._loads.begin(installed)
        connections = removed = waiting = 0
        to_reset = np.zeros(0, dtype=layout.records(self._family.number).ended)
        for keys, values in self._family.maps["dnat_table"].chunks():
            slots = _slots(values)
            by_backend += _by_slot(slots)
            by_state += _by_state(values)
            connections += len(keys)
            self._loads.note(keys, values)
            over, resets = rule.judge(keys, values, slots)
            later = np.flatnonzero(resets)[max(0, RESETS_AT_ONCE - len(to_reset)) :]
            over[later] = resets[later] = False
            waiting += len(later)
            has_ended = _has_closed_since(last, values)
            if over.any():
                ended = self.end(keys[resets], installed, only_over=True)
                by_state[layout.ConnectionState.ESTABLISHED] -= len(ended)  # No others are reset.
                removed_by_backend += _by_slot(_slots(ended["dnat_half"]))
                to_reset = np.concatenate((to_reset, ended))
                wanted = np.flatnonzero(over & ~resets)
                gone = wanted[self._run("collect", keys[wanted])]
                removed += len(gone)
                removed_by_backend += _by_slot(slots[gone])
                by_state -= _by_state(values[gone])
                # What closed before that was noted when it did; what never was open is none to
                # remember, or whoever sends many SYNs would have all others forgotten.
                has_ended[gone] |= ~_has_closed(values[gone]) & ~_is_opening(values[gone])
            if has_ended.any():
                self._note(keys[has_ended], values[has_ended], installed, clock, began)
        removed += len(to_reset)
        # It would remove what waits for its turn to be reset, too, and nobody would tell its ends.
        may_be_alone = connections and not waiting
        lone_dnat = self._collect_lone("dnat_table", "collect") if may_be_alone else 0
        lone_snat = self._collect_lone("snat_table", "collect_halves")
        self._loads.correct()
        return CollectReport(
            connections=connections - removed - lone_dnat,
            removed=removed,
            lone_halves=lone_dnat + lone_snat,
            by_backend=_counted(by_backend - removed_by_backend),
            live_by_backend=_counted(self._loads.live_by_backend),
            by_state={
                state.name.lower(): int(by_state[state])
                for state in layout.ConnectionState
                if by_state[state]
            },
            idle_slots=frozenset(slot for slot in rule.retired if not by_backend[slot]),
            to_reset=to_reset,
            refused=refused,
            seconds=time.monotonic() - began,
            began=began,
        )

    def end(self, keys: Any, installed: Installed, *, only_over: bool) -> Any:
        """Take connections out by their DNAT keys; return the records of those that were in."""
        family = self._family
        fd = family.program_fds["end_connections"]
        ended = programs.run_end(fd, keys, family.number, only_over=only_over)
        halves = ended["dnat_half"]
        unnoted = ended[~_has_closed(halves) & ~_is_opening(halves)]
        clock, now = family.clock(), time.monotonic()
        self._note(unnoted["key"], unnoted["dnat_half"], installed, clock, now)
        return ended

    def _note(self, keys: Any, halves: Any, installed: Installed, clock: Ticks, now: float) -> None:
        self.past.note(keys, halves, installed.services, clock, now)

    def _newly_refused(self, counted: Mapping[int, Traffic]) -> dict[int, int]:
        """Return how many new connections found no SNAT port since this was asked last."""
        before, now = self._refused, {slot: each.no_port for slot, each in counted.items()}
        self._refused = now
        if before is None:
            return {}
        # A counter that went back is a slot's of a new backend, and began anew.
        known = {slot: before.get(slot, 0) for slot in now}
        newly = {s: now[s] - known[s] if now[s] >= known[s] else now[s] for s in now}
        return {slot: number for slot, number in newly.items() if number}

    def _collect_lone(self, table: str, collector: str) -> int:
        """Look for the twins of the next so many halves of a table; remove those that are alone,
        and return how many that were."""
        size = min(CHUNK, self._twins_at_once)
        removed = read = 0
        for keys, _ in self._family.maps[table].chunks(size, self._places[table]):
            removed += int(self._run(collector, keys).sum())
            read += len(keys)
            if read >= self._twins_at_once:
                break
        return removed

    def _run(self, collector: str, keys: Any) -> Any:
        family = self._family
        return programs.removed_by_collector(family.program_fds[collector], keys, family.number)


class _Rule:
    """What is over, as far as one table tells, by what is installed when a pass begins."""

    def __init__(self, family: Family, installed: Installed, reset_idle: Collection[str]) -> None:
        self._family = family
        self._timeouts = {slot: each.timeouts for slot, each in installed.services.items()}
        modes = {slot: backend.mode for slot, backend in installed.backends.items()}
        self.retired = {slot for slot, mode in modes.items() if mode is BackendMode.RETIRED}
        self._is_retired = np.zeros(layout.MAX_BACKENDS, dtype=bool)
        self._is_retired[list(self.retired)] = True
        self._is_ending = np.zeros(layout.MAX_BACKENDS, dtype=bool)
        self._is_ending[[s for s, mode in modes.items() if mode is BackendMode.ENDING]] = True
        self._is_reset = np.zeros(layout.MAX_SERVICES, dtype=bool)
        names = set(reset_idle)
        self._is_reset[[s for s, each in installed.services.items() if each.name in names]] = True

    def judge(self, keys: Any, values: Any, slots: Any) -> tuple[Any, Any]:
        """Return masks: of the candidates, and of those among them that are to be reset."""
        family = self._family
        idle = select_candidates(values, family.now(), family.ticks_per_second, self._timeouts)
        is_udp = keys["proto"] == Transport.UDP.number
        is_ending = self._is_ending[slots]
        over = idle | is_ending | (is_udp & self._is_retired[slots])
        services = np.minimum(values["service"], layout.MAX_SERVICES - 1)
        is_established = values["state"] & layout.STATE_MASK == layout.ConnectionState.ESTABLISHED
        return over, is_established & (is_ending | (idle & self._is_reset[services]))


def _slots(halves: Any) -> Any:
    """Return the slots of their backends."""
    return np.minimum(halves["backend"], layout.MAX_BACKENDS - 1)


def _by_slot(slots: Any) -> Any:
    """Count them by slot."""
    return np.bincount(slots, minlength=layout.MAX_BACKENDS)


def _by_state(halves: Any) -> Any:
    """Count them by state."""
    states = halves["state"] & layout.STATE_MASK
    return np.bincount(states, minlength=layout.STATE_MASK + 1)


def _has_closed(halves: Any) -> Any:
    return halves["state"] & layout.STATE_MASK == layout.ConnectionState.CLOSED


def _is_opening(halves: Any) -> Any:
    return halves["state"] & layout.STATE_MASK == layout.ConnectionState.OPENING


def _has_closed_since(last: int | None, halves: Any) -> Any:
    """Say which are closed, and heard a packet since then: the others the last pass has seen."""
    if last is None:
        return _has_closed(halves)
    since = halves["seen"].astype(np.uint32) - np.uint32(last)
    return _has_closed(halves) & (since < 1 << 31)


def _counted(by_slot: Any) -> dict[int, int]:
    """Return the slots that have any, and how many."""
    return {int(slot): int(by_slot[slot]) for slot in np.flatnonzero(by_slot)}
