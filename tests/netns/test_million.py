"""Real traffic beside many connections while these are collected, in a short form: nothing fails,
and what is over is removed and nothing else. `make bench ARGS=million` has a million of them.
"""

from __future__ import annotations

import pytest

from bench import million

pytestmark = pytest.mark.netns

KINDS = {"new", "kept", "transfer"}


def test_traffic_goes_on_beside_many_connections_that_are_collected() -> None:
    said: list[str] = []

    found = million.measure(1, said.append, families=(4,), connections=20_000, seconds=0.3)

    assert said[0] == "IPv4: 20,000 connections, as the daemon counts them"
    of_family = found[4]
    assert {*of_family.passes} == {million.PASSES, million.REMOVING}
    assert {kind for kind, _ in of_family.asked} == KINDS
    assert len(of_family.asked) == 4 * len(KINDS)
    assert len(million.table(found).splitlines()) == 6
