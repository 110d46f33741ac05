"""A service's table as memory is the map itself; a table that can't be mapped is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from llb_core.datapath import bpf_map
from llb_core.datapath.bpf_map import MapWriter
from llb_core.datapath.layout import INNER_MAP_FLAG, INNER_TABLE
from llb_core.datapath.mapped import map_places
from llb_core.errors import MapError

SIZES = pytest.mark.parametrize("entries", [1, 9, 16_382])


@pytest.fixture
def table(entries: int) -> Iterator[MapWriter]:
    made = MapWriter.of(bpf_map.create_inner(entries))
    yield made
    made.close()


def filled(entries: int) -> np.ndarray:
    return np.arange(entries, dtype=np.uint32) * 7 + 1


@SIZES
def test_what_is_written_as_memory_is_in_the_map(table: MapWriter, entries: int) -> None:
    map_places(table, writable=True)[:] = filled(entries)

    assert np.array_equal(table.read_all()[1], filled(entries))
    assert np.array_equal(map_places(table), filled(entries))


@SIZES
def test_the_memory_follows_what_the_kernel_writes(table: MapWriter, entries: int) -> None:
    places = map_places(table)

    table.update_batch(np.arange(entries, dtype=np.uint32), filled(entries))

    assert np.array_equal(places, filled(entries))


@SIZES
def test_the_memory_outlives_the_descriptor(table: MapWriter, entries: int) -> None:
    places = map_places(table, writable=True)
    places[:] = filled(entries)

    table.close()

    assert np.array_equal(places, filled(entries))


@pytest.mark.parametrize("entries", [9])
def test_memory_to_read_can_not_be_written(table: MapWriter, entries: int) -> None:
    places = map_places(table)

    with pytest.raises(ValueError, match="read-only"):
        places[0] = entries


def test_a_table_that_can_not_be_mapped_is_read() -> None:
    spec = replace(INNER_TABLE, entries=9, flags=INNER_MAP_FLAG)
    old = MapWriter(spec, bpf_map.create(spec))
    old.update_batch(np.arange(9, dtype=np.uint32), filled(9))

    assert np.array_equal(map_places(old), filled(9))
    with pytest.raises(MapError, match="map maglev: can't map"):
        map_places(old, writable=True)
    old.close()
