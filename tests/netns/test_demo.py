"""`llb demo`, as a program gets it, and what is left of it when it is interrupted."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest

from llb_core.demo import lab
from llb_core.demo.network import NAMESPACES, stop, wait_until
from llb_core.run_folder import RUN

pytestmark = pytest.mark.netns

DEMO = (sys.executable, "-m", "llb_core", "demo")


def test_the_demo_keeps_every_promise_and_leaves_nothing() -> None:
    demo = subprocess.Popen([*DEMO, "--json"], stdout=subprocess.PIPE, text=True)
    output, _ = demo.communicate(timeout=lab.LIMIT)
    told = json.loads(output)
    assert told["complaints"] == []
    assert demo.returncode == 0
    assert told["requests"] == told["answered"] + told["failed"]
    assert told["requests"] > 1000
    assert told["seconds"]["dead_backend_noticed"] > 0
    assert traces(demo.pid) == []


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_demo_leaves_nothing(how: signal.Signals) -> None:
    demo = subprocess.Popen(
        DEMO, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
    )
    assert demo.stdout is not None
    assert demo.stderr is not None
    while "b2 killed" not in demo.stdout.readline():
        assert demo.poll() is None
    assert traces(demo.pid) != []
    demo.send_signal(how)
    assert demo.wait(lab.LIMIT) == 130
    assert "interrupted" in demo.stderr.read()
    stop(demo)
    wait_until(lambda: traces(demo.pid) == [], lab.LIMIT, "nothing is left of the demo")


def traces(pid: int) -> list[str]:
    """Everything on this machine that carries that process's names."""
    folders = {NAMESPACES: f"llb-{pid}-*", lab.PINS: f"lab-{pid}-*", RUN: f"lab-{pid}-*"}
    return [str(path) for folder, pattern in folders.items() for path in folder.glob(pattern)]
