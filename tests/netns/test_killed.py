"""The daemon is killed at one step of its start after the other, under load: no request fails."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from llb_core.demo import lab
from llb_core.demo.network import stop, wait_until
from llb_core.demo.traffic import Traffic
from tests.netns.conftest import Balance
from tests.netns.test_outlives import requests_go_on, say

pytestmark = pytest.mark.netns

STRIDE = int(os.environ.get("LLB_KILL_STRIDE", "32"))
"""Every how many-th step: with 1 it takes a quarter of an hour."""


def test_no_request_fails_wherever_a_start_is_killed(
    balance: Balance, monkeypatch: pytest.MonkeyPatch
) -> None:
    balancer = balance(clients=2)
    balancer.kill()
    step = 1
    with (
        balancer.lab.client.socket() as sock,
        Traffic(balancer.lab.clients, lab.VIP, lab.PORT, rate=100) as traffic,
    ):
        traffic.phase("load")
        sock.connect((lab.VIP, lab.PORT))
        has_served = False
        while not has_served:
            has_served = serves_until_it_dies(balancer, step, monkeypatch)
            assert say(sock, f"{step}") == f"{step}"
            requests_go_on(traffic)
            step += STRIDE
        assert step > 2 * STRIDE, "the steps of a start are counted"
        balancer.start()
        requests_go_on(traffic)
        tally = traffic.finish()["load"]
    assert not tally.failed
    assert set(tally.answered) == {"b1", "b2", "b3"}


def serves_until_it_dies(
    balancer: lab.Balancer, step: int, monkeypatch: pytest.MonkeyPatch
) -> bool:
    """Start a daemon that dies before that step; say whether it served before, and then end it."""
    with monkeypatch.context() as patch:
        command = [sys.executable, "-m", "tests.dying", str(step)]
        patch.setattr(lab, "llb_command", lambda: command)
        balancer.start(wait=False)
    daemon = balancer.daemon
    assert daemon is not None
    wait_until(lambda: daemon.poll() is not None or balancer.is_answering(), lab.LIMIT, "it dies")
    if daemon.poll() is None:
        stop(daemon, signal.SIGKILL)
        return True
    assert daemon.returncode == -signal.SIGKILL, balancer.last_words()
    return False
