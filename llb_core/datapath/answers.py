"""The other halves of connections: what backends sent, and when they were last heard of. Of each
its key's hash and its numbers are kept, 24 bytes, by which it is found again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.datapath.ahead import ahead
from llb_core.datapath.bpf_map import MapReader

Halves = npt.NDArray[Any]
"""Answers, as records of `ANSWER`."""

ANSWER = np.dtype([("hash", "u8"), ("bytes", "u8"), ("packets", "u4"), ("seen", "u4")])
AT_ONCE = 16_384
"""Connections that are dealt with at a time: fewer take more calls, more don't fit into a CPU's
cache."""

_MIX = np.uint64(0x9E3779B97F4A7C15)


def flow_hashes(keys: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    """Mix each tuple into 64 bits."""
    size = 4 if keys.dtype.itemsize % 8 else 8
    words = np.ascontiguousarray(keys).view(f"u{size}").reshape(len(keys), keys.itemsize // size)
    mixed = np.zeros(len(keys), dtype=np.uint64)
    for column in range(words.shape[1]):
        mixed ^= words[:, column]
        mixed *= _MIX
        mixed ^= mixed >> np.uint64(29)
    return mixed


def read_answers(table: MapReader) -> Halves:
    """Return all answers in a table. Raises MapError where the kernel refuses."""
    room = room_for(table, ANSWER)
    count = 0
    for keys, values in ahead(table.chunks(AT_ONCE)):
        part = room[count : count + len(keys)]
        part["hash"] = flow_hashes(keys)
        for name in ("bytes", "packets", "seen"):
            part[name] = values[name]
        count += len(keys)
    return room[:count]


def room_for(table: MapReader, record: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return room for what a table holds, and for as much that may take the place of what was read
    already. It takes no memory until it is written."""
    return np.zeros(2 * table.spec.entries, dtype=record)


class Answers:
    """Finds answers by their hashes: most by a table with a place for each, the rest, whose place
    another has taken, among their like in order. A tenth of the time of looking among all."""

    def __init__(self, halves: Halves) -> None:
        self._halves = halves
        bits = (2 * len(halves)).bit_length()
        self._shift = np.uint64(64 - bits)
        """The upper bits decide: of tuples that follow each other the lower ones are much alike."""
        self._table = np.zeros(1 << bits, dtype=np.uint32)
        starts = range(0, len(halves), AT_ONCE)
        for start in starts:
            hashes = halves["hash"][start : start + AT_ONCE]
            self._table[hashes >> self._shift] = np.arange(start, start + len(hashes))
        rest = [np.zeros(0, dtype=np.intp)]
        for start in starts:
            hashes = halves["hash"][start : start + AT_ONCE]
            rows = np.arange(start, start + len(hashes))
            rest.append(rows[self._table.take(hashes >> self._shift) != rows])
        self._rest = np.concatenate(rest)
        hashes = halves["hash"][self._rest]
        in_order = np.argsort(hashes)
        self._rest, self._rest_hashes = self._rest[in_order], hashes[in_order]

    def find(self, wanted: npt.NDArray[np.uint64]) -> tuple[npt.NDArray[np.intp], Halves]:
        """Return the places of those of the wanted hashes that are there, and their answers."""
        if not len(self._halves):
            return np.zeros(0, dtype=np.intp), self._halves
        found = self._halves.take(self._table.take(wanted >> self._shift))
        is_known = found["hash"] == wanted
        if len(self._rest):
            others = np.flatnonzero(~is_known)
            among = np.searchsorted(self._rest_hashes, wanted[others])
            is_there = np.take(self._rest_hashes, among, mode="clip") == wanted[others]
            found[others[is_there]] = self._halves.take(self._rest[among[is_there]])
            is_known[others[is_there]] = True
        return np.flatnonzero(is_known), found[is_known]
