"""What the maps of one address family ought to hold, and what somebody else made of it. Read only.

Map sync keeps it beside its mirror: the records as they were written, byte for byte, so that a look
costs some milliseconds and can be had every second. Repairing is map sync's.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.datapath import bpf_map
from llb_core.datapath.bpf_map import MapReader, Records
from llb_core.datapath.mapped import map_table, packed
from llb_core.planning.mirror import Mirror

ARRAYS = ("backends", "services")
"""The maps that are kept whole; what is pointed to first."""
PLACES_A_LOOK = 32_768
"""Places of tables that one look reads, and those of one table at least: two small tables, in 5 ms.
The next look goes on with the next table."""


_IN_USE = {"backends": "mode", "services": "proto"}


class MapImage:
    """The records of services and backends, as they ought to be."""

    def __init__(self, maps: Mapping[str, MapReader]) -> None:
        self._maps = maps
        self._wanted: dict[str, Records] = {name: maps[name].read_all()[1] for name in ARRAYS}
        self._in_use: dict[str, bytes] = {}
        """The same up to the last slot in use, as bytes, while nothing is written."""
        self._next_table = 0

    def note(self, name: str, slots: Any, records: Any) -> None:
        """Note what was written into slots of one of ARRAYS."""
        self._wanted[name][slots] = records
        self._in_use.pop(name, None)

    def wanted(self, name: str, slots: npt.NDArray[np.intp]) -> Records:
        """Return what ought to be in these slots."""
        return self._wanted[name][slots]

    def changed_slots(self, name: str) -> npt.NDArray[np.intp]:
        """Return the slots of one of ARRAYS that don't hold what they ought to."""
        reader = self._maps[name]
        if (wanted := self._in_use.get(name)) is None:
            used = np.flatnonzero(self._wanted[name][_IN_USE[name]])
            count = int(used[-1]) + 1 if used.size else 1  # What lies behind is never looked at.
            wanted = self._in_use[name] = _as_bytes(reader, self._wanted[name][:count])
        width = reader.spec.value.itemsize
        _, records = next(reader.chunks(len(wanted) // width))
        found = _as_bytes(reader, records)
        if found == wanted:  # As mostly.
            return np.zeros(0, dtype=np.intp)
        rows_wanted, rows_found = (
            np.frombuffer(each, dtype=np.uint8).reshape(-1, width) for each in (wanted, found)
        )
        return np.flatnonzero((rows_wanted != rows_found).any(axis=1))

    def lost_tables(self, mirror: Mirror) -> list[int]:
        """Return the slots of services that have no table, or another one than was put."""
        outer = self._maps["maglev_tables"]
        return [  # One by one: in batches older kernels can't read a map of maps.
            slot
            for slot, service in mirror.services.items()
            if service.table.size
            and int(outer.lookup(slot) or 0) != outer.inner_tables.get(slot, (-1, 0))[0]
        ]

    def changed_places(self, mirror: Mirror) -> Iterator[tuple[int, npt.NDArray[np.intp]]]:
        """Yield services' slots, and the places of their tables, as the maps hold them, that don't
        hold what they ought to; not of all tables at each look."""
        slots = [slot for slot, service in sorted(mirror.services.items()) if service.table.size]
        read = 0
        for _ in range(len(slots)):
            if read >= PLACES_A_LOOK:
                return
            slot = slots[self._next_table % len(slots)]
            self._next_table += 1
            wanted = mirror.services[slot].table
            read += wanted.size
            inner = bpf_map.open_inner(self._maps["maglev_tables"], slot)
            if inner is None:
                continue  # It went meanwhile: the next look finds it lost.
            try:
                found = map_table(inner)
            finally:
                inner.close()
            whole = packed(wanted)
            if len(found) == len(whole):
                changed = np.flatnonzero(found != whole)
                if changed.size:
                    yield slot, changed


def _as_bytes(reader: MapReader, records: Records) -> bytes:
    return records.astype(reader.spec.value, copy=False).tobytes()
