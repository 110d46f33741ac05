"""Rates over the last minutes, of services, backends and verdicts: samples of the counters.

Its memory is bounded: POINTS samples of what there is now; what has gone takes its past with it.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import is_

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

Rates = npt.NDArray[np.float32]
Totals = npt.NDArray[np.float64]
Places = Mapping[int, int]
"""By slot, which row of a sample counts it."""


class Series:
    """The rates of many counters, each by a key with `width` numbers. Not for several threads."""

    def __init__(self, width: int, points: int = POINTS) -> None:
        self._width = width
        self._points = points
        self._rows: dict[Hashable, int] = {}
        self._free: list[int] = []
        self._order = np.zeros(0, dtype=np.intp)
        """The rows of those that are kept, in the order in which they were given."""
        self._totals: Totals = np.zeros((0, width))
        self._is_new = np.zeros(0, dtype=bool)
        self._rates: Rates = np.zeros((points, 0, width), dtype=np.float32)
        self._place = -1
        self._taken = 0
        self._at: float | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, now: float, counted: Mapping[Hashable, Sequence[int]]) -> None:
        """Keep what is counted, and take a sample of it."""
        self.keep(counted)
        self.note(now, np.array([*counted.values()], dtype=np.float64).reshape(-1, self._width))

    def keep(self, keys: Collection[Hashable]) -> None:
        """Have a row for each of these, and for no others. What is new counts from the next sample
        on."""
        for key in self._rows.keys() - set(keys):
            self._free.append(self._rows.pop(key))
        new = [key for key in keys if key not in self._rows]
        self._make_room(len(new))
        for key in new:
            row = self._rows[key] = self._free.pop()
            self._is_new[row] = True
            self._rates[:, row] = 0.0
        self._order = np.array([self._rows[key] for key in keys], dtype=np.intp)

    def note(self, now: float, totals: Totals) -> None:
        """Take a sample: what each that is kept, in the order in which it was given, has counted up
        to `now`, in seconds of a clock that never goes back. What has begun anew counts from 0."""
        rows = self._order
        is_new = self._is_new[rows]
        self._totals[rows[is_new]] = totals[is_new]
        self._is_new[rows] = False
        if self._at is not None and now <= self._at:
            return
        self._place = (self._place + 1) % self._points
        self._taken = min(self._taken + 1, self._points)
        self._rates[self._place] = 0.0
        if self._at is not None:
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
        self._is_new = np.concatenate((self._is_new, np.zeros(more, dtype=bool)))
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
        self._installed: list[Installed] = []
        self._service_places: list[Places] = []
        self._backend_places: list[Places] = []

    def add(self, now: float, counted: Iterable[tuple[Installed, Counters]]) -> None:
        """Take a sample of everything: what is installed and counted, by address family."""
        counted = list(counted)
        verdicts: Counter[str] = Counter()
        for _, counters in counted:
            verdicts.update(counters.verdicts)
        with self._lock:
            self._arrange([installed for installed, _ in counted])
            of_services = [counters.services for _, counters in counted]
            of_backends = [counters.backends for _, counters in counted]
            _note(self._services, now, of_services, self._service_places)
            _note(self._backends, now, of_backends, self._backend_places)
            self._verdicts.add(now, {name: (packets,) for name, packets in verdicts.items()})

    def _arrange(self, installed: list[Installed]) -> None:
        """Find out which slots count for what, where other things are installed than before."""
        before = self._installed
        if len(before) == len(installed) and all(map(is_, before, installed)):
            return
        self._installed = installed
        services: list[Mapping[int, Hashable]] = []
        backends: list[Mapping[int, Hashable]] = []
        for each in installed:
            names = {slot: service.name for slot, service in each.services.items()}
            services.append(names)
            backends.append(
                {
                    slot: (names[backend.service_slot], backend.endpoint)
                    for slot, backend in each.backends.items()
                    if backend.service_slot in names
                }
            )
        self._service_places = _arranged(self._services, services)
        self._backend_places = _arranged(self._backends, backends)

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


def _arranged(series: Series, keys: Sequence[Mapping[int, Hashable]]) -> list[Places]:
    """Have a series keep these keys, by slot; return their places in its samples."""
    places: dict[Hashable, int] = {}
    arranged: list[Places] = [
        {slot: places.setdefault(key, len(places)) for slot, key in each.items()} for each in keys
    ]
    series.keep(places)
    return arranged


def _note(
    series: Series, now: float, counted: Sequence[Mapping[int, Traffic]], places: Sequence[Places]
) -> None:
    """Take a sample; those that share a place are added."""
    totals = np.zeros((len(series), len(RATES)))
    for by_slot, place_of in zip(counted, places, strict=True):
        known = [slot for slot in by_slot if slot in place_of]  # Most have counted nothing.
        if known:
            numbers = [_numbers(by_slot[slot]) for slot in known]
            np.add.at(totals, [place_of[slot] for slot in known], numbers)
    series.note(now, totals)


def _numbers(traffic: Traffic) -> Sequence[int]:
    return (
        traffic.connections,
        traffic.packets_in + traffic.packets_out,
        traffic.bytes_in + traffic.bytes_out,
        traffic.drops,
    )
