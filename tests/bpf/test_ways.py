"""The way back to a client: what the kernel's routes say of it, and for how long that is kept."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from llb_core.datapath.layout import Verdict
from tests.bpf.harness.family import address
from tests.bpf.harness.packets import tcp
from tests.bpf.harness.rig import Rig
from tests.bpf.harness.world import GATEWAY, MTU, PUBLIC, VIP

pytestmark = pytest.mark.root

NARROW = 1400
NEIGHBOUR = "198.51.100.77"
"""On the link, and nobody has asked for its address."""


def open_from(rig: Rig, client: str, port: int) -> int:
    """Open a connection, and return the MTU of its way back."""
    assert rig.send(tcp(client, VIP, port, 80, "S")).verdict is Verdict.FORWARD_NEW
    (flow,) = [flow for flow in rig.pairs() if flow.sport == port]
    return rig.pairs()[flow][1].mtu


@contextmanager
def route(rig: Rig, client: str) -> Iterator[None]:
    """A route of a client's own, with an MTU that is locked: no other counts for forwarding."""
    mtu = ["mtu", "lock", str(NARROW)]
    way = [str(address(client)), "via", str(address(GATEWAY)), "dev", PUBLIC.name]
    ip = ["ip", f"-{rig.family}", "route"]
    subprocess.run([*ip, "add", *way, *mtu], check=True)
    try:
        yield
    finally:
        subprocess.run([*ip, "del", *way], check=True)


def test_mtu_is_known_before_the_neighbour_is(rig: Rig) -> None:
    assert open_from(rig, NEIGHBOUR, 5000) == MTU


def test_mtu_of_the_route_counts(rig: Rig) -> None:
    with route(rig, "192.0.2.91"):
        assert open_from(rig, "192.0.2.91", 5000) == NARROW


def test_way_is_asked_for_once_a_second_and_client(rig: Rig) -> None:
    assert open_from(rig, "192.0.2.92", 5000) == MTU
    asked = rig.datapath.now()

    with route(rig, "192.0.2.92"):
        while rig.datapath.now() - asked < rig.datapath.ticks_per_second:
            time.sleep(0.05)

        assert open_from(rig, "192.0.2.92", 5001) == NARROW


def test_no_client_has_the_way_of_another(rig: Rig) -> None:
    """Both are asked for at once, and there are fewer places than clients."""
    with route(rig, "192.0.2.93"):
        found = [
            open_from(rig, "192.0.2.93", 5000),
            *(open_from(rig, f"192.0.{third}.94", 5000 + third) for third in range(3, 9)),
            open_from(rig, "192.0.2.93", 5001),
        ]

    assert found == [NARROW, *[MTU] * 6, NARROW]
