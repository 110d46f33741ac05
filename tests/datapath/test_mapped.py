"""A service's table as memory is the map itself, four places a word; one of an earlier layout is
read as it was."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from llb_core.datapath import bpf_map
from llb_core.datapath.bpf_map import MapWriter
from llb_core.datapath.layout import INNER_MAP_FLAG, INNER_TABLE, MMAPABLE, U32
from llb_core.datapath.mapped import map_table, packed, read_table
from llb_core.errors import MapError

SIZES = pytest.mark.parametrize("places", [0, 1, 8, 9, 16_381, 100_003])


@pytest.fixture
def table(places: int) -> Iterator[MapWriter]:
    made = MapWriter.of(bpf_map.create_inner(places))
    yield made
    made.close()


def filled(places: int) -> np.ndarray:
    return np.arange(places, dtype=np.uint32) * 7 % 32_768


@SIZES
def test_what_is_written_as_memory_is_in_the_map(table: MapWriter, places: int) -> None:
    map_table(table, writable=True)[:] = packed(filled(places))

    head, *_ = words = table.read_all()[1]
    slots = words[1:].view(np.uint16)
    assert head == places
    assert np.array_equal(slots[:places], filled(places))
    assert not slots[places:].any()
    assert np.array_equal(read_table(table), filled(places))


@SIZES
def test_the_memory_follows_what_the_kernel_writes(table: MapWriter, places: int) -> None:
    memory = map_table(table)
    words = packed(filled(places)).view(np.uint64)

    table.update_batch(np.arange(len(words), dtype=np.uint32), words)

    assert np.array_equal(memory, packed(filled(places)))


@SIZES
def test_the_memory_outlives_the_descriptor(table: MapWriter, places: int) -> None:
    memory = map_table(table, writable=True)
    memory[:] = packed(filled(places))

    table.close()

    assert np.array_equal(memory, packed(filled(places)))


@pytest.mark.parametrize("places", [9])
def test_memory_to_read_can_not_be_written(table: MapWriter, places: int) -> None:
    memory = map_table(table)

    with pytest.raises(ValueError, match="read-only"):
        memory[0] = places


@pytest.mark.parametrize("flags", [INNER_MAP_FLAG, INNER_MAP_FLAG | MMAPABLE])
def test_a_table_of_an_earlier_layout_is_read(flags: int) -> None:
    spec = replace(INNER_TABLE, value=U32, entries=10, flags=flags)
    old = MapWriter(spec, bpf_map.create(spec))
    old.update_batch(np.arange(10, dtype=np.uint32), np.append([9], filled(9)).astype(np.uint32))

    assert np.array_equal(read_table(old), filled(9))
    old.close()


def test_a_table_that_can_not_be_mapped_can_not_be_written() -> None:
    spec = replace(INNER_TABLE, flags=INNER_MAP_FLAG)
    table = MapWriter(spec, bpf_map.create(spec))

    with pytest.raises(MapError, match="map maglev: can't map"):
        map_table(table, writable=True)
    table.close()
