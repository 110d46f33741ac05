"""Connections that are ended on purpose: a portion after the other, and each is counted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from llb_core import ending
from llb_core.ending import SHOWN, end_those_of_backends, end_those_of_client
from llb_core.model import Endpoint
from llb_core.running import Running
from tests.bpf.harness.packets import tcp
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.world import BACKEND, CLIENT, OTHER_CLIENT, VIP, address

pytestmark = pytest.mark.root

AT_ONCE = 50
MANY = 3 * AT_ONCE + 7


def running(rig: Rig, portions: list[int]) -> Running:
    """A daemon with the maps of a rig, that notes how many connections it ends at a time."""

    class Noting:
        def __getattr__(self, name: str) -> Any:
            return getattr(rig.sync, name)

        def end_connections(self, keys: Any) -> Any:
            portions.append(len(keys))
            return rig.sync.end_connections(keys)

    return cast("Running", SimpleNamespace(map_syncs={rig.family: Noting()}))


def test_those_of_a_backend_are_ended_in_portions_and_counted(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ending, "AT_ONCE", AT_ONCE)
    for port in range(5000, 5000 + MANY):
        rig.send(tcp(CLIENT, VIP, port, 80, "S"))
    rig.send(tcp(OTHER_CLIENT, VIP, 6000, 53, "S"))
    portions: list[int] = []
    web = ("web", Endpoint(address(BACKEND), 8080))

    ended = end_those_of_backends(running(rig, portions), {web})

    assert (ended.count, ended.resets) == (MANY, MANY)
    assert ended.by_backend == {web: MANY}
    assert len(ended.first) == SHOWN
    assert {service for service, _ in ended.first} == {"web"}
    assert sum(portions) == MANY
    assert max(portions) == AT_ONCE
    assert not rig.sync.collect().by_backend.keys() & {rig.backend(BACKEND, 8080).slot}


def test_those_of_a_client_are_ended_and_told(rig: Rig) -> None:
    for port in (5000, 5001):
        rig.send(tcp(CLIENT, VIP, port, 80, "S"))

    ended = end_those_of_client(running(rig, []), Endpoint(address(CLIENT), 5000))

    ((service, connection),) = ended.first
    assert (service, connection.client) == ("web", Endpoint(address(CLIENT), 5000))
    assert (ended.count, ended.resets) == (1, 1)
    assert len(rig.pairs()) == 1
