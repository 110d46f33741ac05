"""Somebody sets the clock of the host by a day, back and forth, while the daemon runs: what it does
goes by a clock that nobody sets, and what it tells goes by the one that is set."""

from __future__ import annotations

import json
import struct
import subprocess
import time
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import wait_until
from llb_core.demo.traffic import Traffic
from tests.netns.conftest import Balance, shown
from tests.netns.test_outlives import SHORT, held, requests_go_on, say
from tests.netns.test_steering import is_reset

pytestmark = pytest.mark.netns

DAY = 86_400
SOURCE = Path(__file__).with_name("native") / "other_clock.c"


class Clock:
    """The time of day of the load balancer's host, for all that begins there from now on."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        library, self._ahead = folder / "other_clock.so", folder / "ahead"
        build = ("gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", library, SOURCE)
        subprocess.run(build, check=True)
        self.set(0)
        self._began = time.time()
        llb = lab.llb_command()
        command = ["env", f"LD_PRELOAD={library}", f"OTHER_CLOCK={self._ahead}", *llb]
        monkeypatch.setattr(lab, "llb_command", lambda: command)

    def set(self, seconds: int) -> None:
        """Set it so far from the right time."""
        self.ahead = seconds
        with self._ahead.open("r+b" if self._ahead.exists() else "xb") as file:
            file.write(struct.pack("=q", seconds))  # Into the file that is mapped.

    def now(self) -> float:
        """What time it is there, in seconds since 1970."""
        return time.time() + self.ahead

    def beginning(self) -> float:
        """What time it was when this test began, as it would be told there now."""
        return self._began + self.ahead


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(tmp_path, monkeypatch)


def test_all_goes_on_when_the_clock_is_set(balance: Balance, clock: Clock) -> None:
    balancer = balance(clients=2, service=SHORT)
    hosts = balancer.lab
    with Traffic(hosts.clients, hosts.vip, lab.PORT, rate=100) as traffic:
        traffic.phase("load")
        for seconds in (-DAY, DAY):
            clock.set(seconds)
            checks_go_on(balancer)
            the_provider_is_heard(balancer)
            requests_go_on(traffic)
            what_is_told_has_the_new_time(balancer, clock)
        assert not traffic.finish()["load"].failed


def checks_go_on(balancer: lab.Balancer) -> None:
    backend = balancer.lab.backends[2]
    for is_well in (False, True):
        backend.turn()
        wait_until(lambda w=is_well: balancer.is_active(backend) is w, lab.LIMIT, "it is checked")


def the_provider_is_heard(balancer: lab.Balancer) -> None:
    *others, last = balancer.lab.backends
    for those in (others, [*others, last]):
        balancer.write_backends(those)
        wanted = last in those
        wait_until(lambda w=wanted: balancer.is_active(last) is w, lab.LIMIT, "it is heard")


def what_is_told_has_the_new_time(balancer: lab.Balancer, clock: Clock) -> None:
    """Also of connections that ended before it was set."""
    address = lab.ADDRESSES[4].backend(1)

    def ended() -> list[float]:
        answer = json.loads(b"".join(balancer.control.stream("/who", address=address)))
        assert answer["ended_since"] <= clock.now()
        return [each["ended"] for each in answer["ended"]]

    wait_until(ended, lab.LIMIT, "some have ended")
    assert all(clock.beginning() <= each <= clock.now() for each in ended())
    assert clock.beginning() <= balancer.control.get("/status")["turned"] <= clock.now()


def test_a_drain_ends_when_its_time_has_passed_whatever_the_clock_says(
    balance: Balance, clock: Clock
) -> None:
    balancer = balance()
    first, *others = balancer.lab.backends
    for each in others:
        shown(balancer, "drain", each.endpoint)
    with held(balancer.lab) as connection:
        assert say(connection, "hello") == "hello"
        shown(balancer, "drain", first.endpoint, "--deadline", "2s")
        clock.set(-DAY)
        connection.settimeout(lab.LIMIT)
        assert is_reset(connection)
