"""The counts of connections that the classifier goes by: held to the tables, pass by pass.

Of services and backends (arrays), and of the clients of services that limit their clients. What is
not here: when to make a pass (`map_sync`), and how much of what is found to believe
(`planning.drift`).
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from llb_core.datapath import Family, layout, programs
from llb_core.datapath.layout import Corrected
from llb_core.model import Installed
from llb_core.planning.drift import Counts, Drift, agreed

_SIZES = {Corrected.SERVICE: layout.MAX_SERVICES, Corrected.BACKEND: layout.MAX_BACKENDS}
_MAPS = {Corrected.SERVICE: "service_loads", Corrected.BACKEND: "backend_loads"}
_FIELDS = {Corrected.SERVICE: "service", Corrected.BACKEND: "backend"}


class LoadCounts:
    """What one address family's counts are short of; to be told of every entry of a pass."""

    def __init__(self, family: Family) -> None:
        self._family = family
        self._records = layout.records(family.number)
        self._drift = {what: Drift(size) for what, size in _SIZES.items()}
        self._off_sources: dict[bytes, int] = {}
        self._truth: dict[Corrected, Counts] = {}
        self._before: dict[Corrected, Counts] = {}
        self._sources: Counter[bytes] = Counter()
        self._sources_before: dict[bytes, int] = {}
        self._limiting: list[int] = []

    def begin(self, installed: Installed) -> None:
        """Begin a pass over the DNAT table."""
        self._installed = installed
        self._truth = {what: np.zeros(size, dtype=np.int64) for what, size in _SIZES.items()}
        self._before = {what: self._kept(what) for what in _SIZES}
        self._sources = Counter()
        self._limiting = [
            slot
            for slot, service in installed.services.items()
            if service.policy.limits.source_connections
        ]
        self._sources_before = self._kept_sources()

    def note(self, keys: Any, values: Any) -> None:
        """Count entries of the table, those that have not closed."""
        is_live = (values["state"] & layout.STATE_MASK) != layout.ConnectionState.CLOSED
        for what, size in _SIZES.items():
            slots = np.minimum(values[_FIELDS[what]][is_live], size - 1)
            self._truth[what] += np.bincount(slots, minlength=size)
        if self._limiting:
            is_limited = is_live & np.isin(values["service"], self._limiting)
            sources = np.zeros(int(is_limited.sum()), dtype=self._records.source_key)
            sources["service"] = values["service"][is_limited]
            words = self._records.words(sources["network"])
            words[:, :2] = self._records.words(keys["src"][is_limited])[:, :2]
            self._sources.update(row.tobytes() for row in sources)

    @property
    def live_by_backend(self) -> Counts:
        """How many connections this pass has counted, by backend's slot."""
        return self._truth[Corrected.BACKEND]

    def correct(self) -> None:
        """End the pass: add what the counts are short of."""
        found = []
        for what, drift in self._drift.items():
            missing = drift.correct(self._before[what], self._kept(what), self._truth[what])
            slots = np.flatnonzero(missing)
            corrections = np.zeros(len(slots), dtype=self._records.correction)
            corrections["what"][:] = int(what)
            corrections["slot"][:] = slots
            corrections["by"][:] = missing[slots]
            found.append(corrections)
        found.append(self._correct_sources())
        # Joined, addresses would lie in the host's order.
        corrections = np.concatenate(found).astype(self._records.correction)
        programs.run_correction(self._family.program_fds["correct"], corrections)

    def _correct_sources(self) -> Any:
        """Return what clients' counts are short of, by the same rule; one that is not remembered
        counts none."""
        before, after = self._sources_before, self._kept_sources()
        off = {}
        for source in after.keys() | self._sources.keys():
            readings = before.get(source, 0), after.get(source, 0)
            truth = self._sources[source]
            if missing := truth - min(max(truth, min(readings)), max(readings)):
                off[source] = missing
        by = {
            source: agreed(each, self._off_sources.get(source, 0)) for source, each in off.items()
        }
        self._off_sources = {source: each - by[source] for source, each in off.items()}
        rows = {source: each for source, each in by.items() if each}
        sources = np.frombuffer(b"".join(rows), dtype=self._records.source_key)
        corrections = np.zeros(len(rows), dtype=self._records.correction)
        corrections["what"][:] = int(Corrected.SOURCE)
        corrections["slot"][:] = sources["service"]
        corrections["by"][:] = list(rows.values())
        corrections["network"][:] = sources["network"]
        return corrections

    def _kept_sources(self) -> dict[bytes, int]:
        """Return the counts of clients of services that limit them."""
        kept: dict[bytes, int] = {}
        if self._limiting:
            for keys, values in self._family.maps["source_loads"].chunks():
                of_ours = np.isin(keys["service"], self._limiting)
                counted = values["connections"][of_ours].tolist()
                kept |= dict(zip((row.tobytes() for row in keys[of_ours]), counted, strict=True))
        return kept

    def _kept(self, what: Corrected) -> Counts:
        """Return an array of counts, zeros behind the last slot that is in use."""
        of_kind = {
            Corrected.SERVICE: self._installed.services,
            Corrected.BACKEND: self._installed.backends,
        }
        last = max(of_kind[what], default=0)
        _, values = next(self._family.maps[_MAPS[what]].chunks(last + 1))
        counts = np.zeros(_SIZES[what], dtype=np.int64)
        counts[: last + 1] = values["connections"] if what is Corrected.SERVICE else values
        return counts
