"""What the map of clients' prefixes of one address family ought to hold, and what somebody else
made of it. Read only; repairing is map sync's.

A trie is read entry by entry, some 300,000 a second, so each look reads a part of it: a map that is
flushed is at its end at once, and known as such by the next look.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.datapath.answers import flow_hashes
from llb_core.datapath.bpf_map import Bookmark, MapReader, Records

PREFIXES_A_LOOK = 4_096
"""Entries that one look reads: some ten milliseconds. Half a million take two minutes."""

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class Faults:
    """Keys that are none of ours, those of the widest prefixes first; and keys and values that are
    missing or changed, the narrowest first."""

    strange: Records
    missing: Records
    values: Records

    def __len__(self) -> int:
        return len(self.strange) + len(self.missing)


class RulesImage:
    """Compares the map with what is wanted, look by look; begins anew where that has changed."""

    def __init__(self, reader: MapReader) -> None:
        self._reader = reader
        self._wanted: tuple[Records, Records, Hashes] | None = None
        self._is_seen: npt.NDArray[np.bool_] = np.zeros(0, dtype=bool)
        self._place = Bookmark()

    def begin_anew(self) -> None:
        """Forget what was wanted: it has changed."""
        self._wanted = None

    def look(self, wanted: Callable[[], tuple[Records, Records]]) -> Faults:
        """Read the next part, and return what is wrong as far as is known by then."""
        if self._wanted is None:
            self._wanted = _by_hash(*wanted())
            self._restart()
        keys, values, hashes = self._wanted
        found, found_values = self._read()
        if not len(found) and not len(keys):
            return Faults(found, keys, values)  # As for most: no service names any.
        found_hashes = flow_hashes(found)
        places = np.searchsorted(hashes, found_hashes)
        is_ours = np.zeros(len(found), dtype=bool)
        if len(keys):
            is_ours = np.take(hashes, places, mode="clip") == found_hashes
        ours = places[is_ours]
        is_right = found_values[is_ours] == values[ours]
        self._is_seen[ours] = True
        is_wrong = np.zeros(len(keys), dtype=bool)
        is_wrong[ours[~is_right]] = True
        if self._place.token is None:  # The end.
            is_wrong |= ~self._is_seen
            self._restart()
        strange = found[~is_ours]
        if len(strange) or is_wrong.any():
            self._restart()
        narrowest_first = np.argsort(keys["length"][is_wrong], kind="stable")[::-1]
        return Faults(
            strange[np.argsort(strange["length"], kind="stable")],
            keys[is_wrong][narrowest_first],
            values[is_wrong][narrowest_first],
        )

    def _read(self) -> tuple[Records, Records]:
        spec = self._reader.spec
        empty = np.zeros(0, dtype=spec.key), np.zeros(0, dtype=spec.value)
        return next(self._reader.chunks(PREFIXES_A_LOOK, self._place), empty)

    def _restart(self) -> None:
        self._place = Bookmark()
        self._is_seen = np.zeros(len(self._wanted[0]) if self._wanted else 0, dtype=bool)


def _by_hash(keys: Any, values: Any) -> tuple[Records, Records, Hashes]:
    hashes = flow_hashes(keys)
    order = np.argsort(hashes)
    return keys[order], values[order], hashes[order]
