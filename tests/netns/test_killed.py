"""The daemon is killed at one step after the other, under load: no request fails."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Iterator

import pytest

from llb_core.config import load
from llb_core.datapath import Datapath
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from llb_core.demo.traffic import Traffic
from llb_core.errors import HostError, LLBError
from tests.netns.conftest import Balance, one_more
from tests.netns.test_outlives import requests_go_on, say
from tests.soak.invariants import alone

pytestmark = pytest.mark.netns

STRIDE = int(os.environ.get("LLB_KILL_STRIDE", "24"))
"""Every how many-th step; with 1 each of them is met."""
SEED = int(os.environ.get("LLB_KILL_SEED", random.randrange(1_000_000)))
"""Another in each run, so that in time each step is met; it is printed."""
STEPS_OF_WORK = 30
"""How far into its work a daemon comes at most, in steps."""


def test_no_request_fails_wherever_a_start_is_killed(
    balance: Balance, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = random.Random(SEED).randint(2, STRIDE + 1)
    print(f"LLB_KILL_SEED={SEED}: the first step, then every {STRIDE}th from {first}")
    balancer = balance(clients=2)
    balancer.kill()
    with under_load(balancer) as (sock, traffic):
        for step in itertools.chain([1], itertools.count(first, STRIDE)):
            has_served = serves_until_it_dies(balancer, str(step), monkeypatch)
            assert not (has_served and step == 1), "the steps of a start are counted"
            if has_served:
                balancer.kill()
            assert say(sock, f"{step}") == f"{step}"
            requests_go_on(traffic)
            if has_served:
                break
        balancer.start()
        requests_go_on(traffic)
        tally = traffic.finish()["load"]
    assert not tally.failed
    assert set(tally.answered) == {"b1", "b2", "b3"}


def test_no_request_fails_wherever_its_work_is_killed(
    balance: Balance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Orders, reloads, self-repair, and collection, which runs beside them all."""
    at_random = random.Random(SEED)
    balancer = balance(clients=2, service='timeouts = { closed = "1s", closing = "1s" }')
    balancer.kill()
    with under_load(balancer) as (sock, traffic):
        for work in (order, reload, take_the_address, nothing_more):
            step = at_random.randint(1, STEPS_OF_WORK)
            print(f"LLB_KILL_SEED={SEED}: {work.__name__}, at step {step}")
            assert serves_until_it_dies(balancer, f"{step}@", monkeypatch)
            work_until_it_dies(balancer, work)
            assert say(sock, f"{step}") == f"{step}"
            requests_go_on(traffic)
        balancer.start()
        wait_until(lambda: not balancer.control.get("/plan")["changes"], lab.LIMIT, "no plan")
        wait_until(lambda: not halves_alone(balancer), lab.LIMIT, "every half has its twin")
        requests_go_on(traffic)
        tally = traffic.finish()["load"]
    assert not tally.failed


@contextlib.contextmanager
def under_load(balancer: lab.Balancer) -> Iterator[tuple[socket.socket, Traffic]]:
    """Requests all the while, and a connection that stays."""
    with (
        balancer.lab.client.socket() as sock,
        Traffic(balancer.lab.clients, lab.VIP, lab.PORT, rate=100) as traffic,
    ):
        traffic.phase("load")
        sock.connect((lab.VIP, lab.PORT))
        yield sock, traffic


def work_until_it_dies(balancer: lab.Balancer, work: Callable[[lab.Balancer, int], None]) -> None:
    """Have the daemon count its steps from now on, and work, until it has died of it."""
    daemon = balancer.daemon
    assert daemon is not None
    daemon.send_signal(signal.SIGUSR1)
    turns = itertools.count()

    def has_died() -> bool:
        with contextlib.suppress(LLBError):  # It dies over it.
            work(balancer, next(turns))
        return daemon.poll() is not None

    wait_until(has_died, lab.LIMIT, "it dies")
    assert daemon.returncode == -signal.SIGKILL, balancer.last_words()


def order(balancer: lab.Balancer, turn: int) -> None:
    name = balancer.lab.backends[0].endpoint
    balancer.control.post(("/drain", "/undrain")[turn % 2], backend=name)
    balancer.control.post("/weight", backend=name, weight=turn % 100 + 1)


def reload(balancer: lab.Balancer, turn: int) -> None:
    text = balancer.config.read_text()
    more = one_more("more", lab.ADDRESSES[4].other_vip)
    lab.replace(balancer.config, text.replace(more, "") if more in text else text + more)
    balancer.control.post("/reload")


def take_the_address(balancer: lab.Balancer, turn: int) -> None:
    with contextlib.suppress(HostError):  # It is not back yet.
        balancer.lab.lb.ip(f"addr del {lab.VIP}/32 dev lo")


def nothing_more(balancer: lab.Balancer, turn: int) -> None:
    """Leave it to its collection."""


def halves_alone(balancer: lab.Balancer) -> set[bytes]:
    with balancer.lab.lb.entered():
        reading = Datapath.open_reading(load(balancer.config).loadbalancer)
    try:
        return alone(reading, 4)
    finally:
        reading.close()


def serves_until_it_dies(
    balancer: lab.Balancer, step: str, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Start a daemon that dies before that step, as `tests.dying` takes it; say whether it serves
    before."""
    with monkeypatch.context() as patch:
        command = [sys.executable, "-m", "tests.dying", step]
        patch.setattr(lab, "llb_command", lambda: command)
        balancer.start(wait=False)
    daemon = balancer.daemon
    assert daemon is not None
    wait_until(lambda: daemon.poll() is not None or balancer.is_answering(), lab.LIMIT, "it dies")
    if daemon.poll() is None:
        return True
    assert daemon.returncode == -signal.SIGKILL, balancer.last_words()
    return False
