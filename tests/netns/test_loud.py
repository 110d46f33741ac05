"""Thousands of lines of log a second that nobody reads: the daemon does its work, in the memory
that it has, and ends when it is told to."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.processes import resident
from llb_core.demo import lab
from llb_core.demo.network import Network, Process, wait_until
from tests.metrics import read_metric

pytestmark = pytest.mark.netns

LOUD = """
import itertools
import logging
import threading
import time
from llb_core import Provider, hookimpl

log = logging.getLogger("llb_providers.loud")

def speak():
    for number in itertools.count():
        log.warning("line %d %s", number, "." * 20_000)
        if number % 50 == 0:
            time.sleep(0.01)

class Loud(Provider):
    name = "loud"
    def gather_backends(self):
        threading.Thread(target=speak, daemon=True).start()
        return []

@hookimpl
def llb_provider():
    return Loud
"""
SERVICE = """
[services.loud]
address = "203.0.113.21"
port = 80
provider = { name = "loud" }
"""
MANY = 1000
"""Lines that are lost. If only their number were bounded, 10,000 would wait: 200 MB."""
MOST = 200
"""MiB that the daemon may have had."""


@pytest.fixture
def balancer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[lab.Balancer]:
    """A daemon that is not started yet."""
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # Without it, what is left waits, too.
    info = tmp_path / "llb_provider_loud-0.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: llb-provider-loud\nVersion: 0.1\n")
    (info / "entry_points.txt").write_text("[llb]\nloud = llb_provider_loud\n")
    (tmp_path / "llb_provider_loud.py").write_text(LOUD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Network() as network:
        hosts = lab.build(network, backends=2)
        hosts.start_backends()
        balancer = lab.Balancer(hosts, tmp_path)
        balancer.write_config(extra=SERVICE)
        balancer.write_backends(hosts.backends)
        yield balancer
        balancer.remove()


def test_lines_that_nobody_reads_cost_neither_time_nor_memory(balancer: lab.Balancer) -> None:
    first, second = balancer.lab.backends
    daemon = started_unread(balancer)
    wait_until(lambda: balancer.is_active(first), lab.LIMIT, "it is active")

    wait_until(lambda: lost(balancer) > MANY, lab.LIMIT, "lines are lost")
    first.kill()
    wait_until(lambda: not balancer.is_active(first), lab.LIMIT, "it is out")
    assert balancer.is_active(second)
    balancer.llb("drain", second.endpoint)

    assert resident(daemon.pid, "VmHWM") < MOST
    assert balancer.stop() == 0


def started_unread(balancer: lab.Balancer) -> Process:
    """Start the daemon with a pipe as its standard error; nobody reads from it."""
    command = (*lab.llb_command(), "run", "-c", balancer.config)
    balancer.daemon = balancer.lab.lb.start(*command, stderr=subprocess.PIPE)
    wait_until(balancer.serves, lab.LIMIT, "the daemon answers")
    return balancer.daemon


def lost(balancer: lab.Balancer) -> float:
    """How many lines of its log are lost, as its metrics say."""
    return read_metric(balancer.control, "llb_log_lines_lost_total")[()]
