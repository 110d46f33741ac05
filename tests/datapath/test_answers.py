"""What backends answered is found by hashes, also where several share a place; all are read."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from llb_core.datapath.answers import ANSWER, AT_ONCE, Answers, read_answers
from llb_core.datapath.bpf_map import CHUNK, Bookmark, MapWriter, Records, create
from llb_core.datapath.layout import map_specs, records


@pytest.mark.parametrize("count", [0, 1, 2, 1_000, AT_ONCE + 1])
@pytest.mark.parametrize("places", [1, 1 << 30], ids=["one-place-for-all", "many-places"])
def test_each_is_found_and_nothing_else(count: int, places: int) -> None:
    halves = np.zeros(count, dtype=ANSWER)
    halves["hash"] = np.random.default_rng(count).permutation(count).astype(np.uint64) << 31
    halves["hash"] |= np.arange(count, dtype=np.uint64) % places
    halves["bytes"] = np.arange(count)
    wanted = np.concatenate([halves["hash"][::-1], np.array([1 << 63, 3 << 62], dtype=np.uint64)])

    rows, found = Answers(halves).find(wanted)

    assert rows.tolist() == list(range(count))
    assert found["bytes"].tolist() == list(range(count))[::-1]


class Full(MapWriter):
    """A full table, in which others take the places of those that were read."""

    def chunks(
        self, size: int = CHUNK, bookmark: Bookmark | None = None
    ) -> Iterator[tuple[Records, Records]]:
        for keys, values in super().chunks(size, bookmark):
            self.delete_batch(keys)
            others = keys.copy()
            others["sport"] += 1
            self.update_batch(others, values)
            yield keys, values


@pytest.mark.root
def test_more_than_there_is_room_for_may_come_while_a_table_is_read() -> None:
    count, of = 2 * AT_ONCE, records(4)
    spec = next(each for each in map_specs(count, 4) if each.name == "snat_table")
    keys = np.zeros(count, dtype=of.flow_key)
    keys["src"], keys["sport"] = np.arange(count), 1_000
    table = Full(spec, create(spec))
    table.update_batch(keys, np.zeros(count, dtype=of.nat_entry))

    halves = read_answers(table)

    assert count < len(halves) == len(np.unique(halves["hash"]))
    table.close()
