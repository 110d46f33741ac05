"""What backends answered is found by hashes, also where several share a place."""

from __future__ import annotations

import numpy as np
import pytest

from llb_core.datapath.answers import ANSWER, AT_ONCE, Answers


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
