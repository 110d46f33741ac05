"""A service's table as memory: read and written without asking the kernel for each place.

By batches of bpf(2) a table of 16,381 places takes a millisecond either way; as memory it takes a
fortieth of that.
"""

from __future__ import annotations

import mmap

import numpy as np

from llb_core.datapath.bpf_map import MapReader, Records, map_errors
from llb_core.datapath.layout import INNER_TABLE, MMAPABLE, PLACE, PLACES_A_WORD
from llb_core.model import Table

HEAD = PLACES_A_WORD
"""What stands before the places, in places: a word with their number."""


def packed(table: Table) -> Records:
    """Return a table as its map holds it: the head, the places, and none up to the word's end."""
    memory = np.zeros(HEAD + -(-table.size // PLACES_A_WORD) * PLACES_A_WORD, dtype=PLACE)
    memory[:HEAD].view(np.uint32)[0] = table.size
    memory[HEAD : HEAD + table.size] = table
    return memory


def map_table(inner: MapReader, *, writable: bool = False) -> Records:
    """Return a table as its map holds it: the map's own memory, until nobody holds the array.

    Each place is written whole, so a packet that reads it meanwhile finds the old one or the new
    one.
    """
    return np.frombuffer(_memory(inner, writable=writable), dtype=PLACE)


def read_table(inner: MapReader) -> Table:
    """Return what is in a table, which may be one of an earlier layout: a place was a word then,
    and those of layout 1 can't be mapped."""
    if inner.spec.value.itemsize == INNER_TABLE.value.itemsize:
        memory = map_table(inner)
        size = int(memory[:HEAD].view(np.uint32)[0])
        return memory[HEAD : HEAD + size].astype(np.uint32)
    if not inner.spec.flags & MMAPABLE:
        return np.array(inner.read_all()[1][1:])
    return np.array(np.frombuffer(_memory(inner), dtype=np.uint32)[::2][1:])


def _memory(inner: MapReader, *, writable: bool = False) -> mmap.mmap:
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    length = inner.spec.entries * INNER_TABLE.value.itemsize
    with map_errors(inner.spec.name, "map"):
        return mmap.mmap(inner.fd, length, mmap.MAP_SHARED, access)
