"""Rates over the last minutes, of services, backends and verdicts: samples of the counters.

Its memory is bounded: POINTS samples of what there is now; what has gone takes its past with it.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from llb_core.datapath.reading import Counters, Traffic
from llb_core.model import Endpoint, Installed

PAUSE = 2.0
"""Seconds from one sample to the next."""
POINTS = 90
"""Samples that are kept: three minutes."""
RATES = ("opened", "packets", "bytes", "drops")
"""What is kept of a service and a backend: each a second, both directions together."""

_NOTHING = (0,) * len(RATES)

Rates = npt.NDArray[np.float32]


class Series:
    """The rates of many counters, each by a key with `width` numbers. Not for several threads."""

    def __init__(self, width: int, points: int = POINTS) -> None:
        self._width = width
        self._points = points
        self._rows: dict[Hashable, int] = {}
        self._free: list[int] = []
        self._totals = np.zeros((0, width))
        self._rates: Rates = np.zeros((points, 0, width), dtype=np.float32)
        self._place = -1
        self._taken = 0
        self._at: float | None = None

    def add(self, now: float, counted: Mapping[Hashable, Sequence[int]]) -> None:
        """Take a sample: what each has counted up to `now`, in seconds of a clock that never goes
        back. What is new counts from here on; what has begun anew counts from 0."""
        for key in self._rows.keys() - counted.keys():
            self._free.append(self._rows.pop(key))
        new = [key for key in counted if key not in self._rows]
        self._make_room(len(new))
        for key in new:
            row = self._rows[key] = self._free.pop()
            self._totals[row] = counted[key]
            self._rates[:, row] = 0.0
        if self._at is None or now > self._at:
            self._place = (self._place + 1) % self._points
            self._taken = min(self._taken + 1, self._points)
            self._rates[self._place] = 0.0
            if counted and self._at is not None:
                rows = [self._rows[key] for key in counted]
                totals = np.array(list(counted.values()), dtype=np.float64)
                grown = totals - self._totals[rows]
                grown = np.where(grown < 0, totals, grown)
                self._rates[self._place, rows] = grown / (now - self._at)
                self._totals[rows] = totals
            self._at = now

    def latest(self) -> dict[Hashable, list[float]]:
        """Return the newest rates by key; nothing while there is only one sample."""
        if self._taken < 2:
            return {}
        newest = self._rates[self._place, list(self._rows.values())].tolist()
        return dict(zip(self._rows, newest, strict=True))

    def past(self, key: Hashable) -> Rates:
        """Return a row for each sample, the oldest first; none where the key is not known."""
        row = self._rows.get(key)
        if row is None:
            return np.zeros((0, self._width), dtype=np.float32)
        return self._in_order(self._rates[:, row])

    def total(self) -> Rates:
        """Return the sum over all keys, a row for each sample, the oldest first."""
        return self._in_order(self._rates[:, list(self._rows.values())].sum(axis=1))

    def _in_order(self, ring: Rates) -> Rates:
        # The first sample of all has nothing before it to be compared with.
        kept = min(self._taken, self._points) - (self._taken < self._points)
        return np.roll(ring, self._points - 1 - self._place, axis=0)[self._points - max(kept, 0) :]

    def _make_room(self, wanted: int) -> None:
        if len(self._free) >= wanted:
            return
        before = len(self._totals)
        more = max(wanted - len(self._free), before // 2, 16)
        self._free += range(before + more - 1, before - 1, -1)
        self._totals = np.concatenate((self._totals, np.zeros((more, self._width))))
        room = np.zeros((self._points, more, self._width), dtype=np.float32)
        self._rates = np.concatenate((self._rates, room), axis=1)


@dataclass(frozen=True, slots=True)
class Latest:
    """The newest rates, in the order of RATES: by service, and by service and endpoint."""

    services: Mapping[Hashable, Sequence[float]] = field(default_factory=dict)
    backends: Mapping[Hashable, Sequence[float]] = field(default_factory=dict)


class Samples:
    """The series of one balancer. `add` and reading may be in different threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._services = Series(len(RATES))
        self._backends = Series(len(RATES))
        self._verdicts = Series(1)

    def add(self, now: float, counted: Iterable[tuple[Installed, Counters]]) -> None:
        """Take a sample of everything: what is installed and counted, by address family."""
        services: dict[Hashable, Sequence[int]] = {}
        backends: dict[Hashable, Sequence[int]] = {}
        verdicts: dict[Hashable, Sequence[int]] = {}
        for installed, counters in counted:
            for slot, service in installed.services.items():
                _sum_up(services, service.name, _numbers(counters.services.get(slot)))
            for slot, backend in installed.backends.items():
                if (of := installed.services.get(backend.service_slot)) is not None:
                    traffic = counters.backends.get(slot)
                    _sum_up(backends, (of.name, backend.endpoint), _numbers(traffic))
            for name, packets in counters.verdicts.items():
                _sum_up(verdicts, name, (packets,))
        with self._lock:
            self._services.add(now, services)
            self._backends.add(now, backends)
            self._verdicts.add(now, verdicts)

    def latest(self) -> Latest:
        """Return the newest rates of everything."""
        with self._lock:
            return Latest(self._services.latest(), self._backends.latest())

    def past_of_service(self, name: str) -> Rates:
        """Return the rates of a service: a row for each sample, the oldest first."""
        with self._lock:
            return self._services.past(name)

    def past_of_backend(self, service: str, endpoint: Endpoint) -> Rates:
        """Return the rates of a backend."""
        with self._lock:
            return self._backends.past((service, endpoint))

    def past_of_verdict(self, name: str) -> Rates:
        """Return how often a second a packet got this verdict."""
        with self._lock:
            return self._verdicts.past(name)

    def total(self) -> Rates:
        """Return the rates of all services together."""
        with self._lock:
            return self._services.total()


def _sum_up(into: dict[Hashable, Sequence[int]], key: Hashable, numbers: Sequence[int]) -> None:
    known = into.get(key)
    into[key] = [a + b for a, b in zip(known, numbers, strict=True)] if known else numbers


def _numbers(traffic: Traffic | None) -> Sequence[int]:
    if traffic is None:
        return _NOTHING
    return (
        traffic.connections,
        traffic.packets_in + traffic.packets_out,
        traffic.bytes_in + traffic.bytes_out,
        traffic.drops,
    )
