"""What is tested against a real agent where CONSUL_HTTP_ADDR names one, tried with one of our own
that runs in another process than they: so that those tests are right when an agent is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from llb_providers.consul.tests.fake_consul import FakeConsul

HERE = Path(__file__).parent


def test_the_tests_of_every_agent_hold_against_one_that_the_environment_names() -> None:
    agent = FakeConsul()
    agent.start()
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", "real", HERE],
        env=os.environ | {"CONSUL_HTTP_ADDR": agent.url.removeprefix("http://")},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    agent.stop()
    passed = re.search(r"^(\d+) passed", done.stdout, re.MULTILINE)
    assert done.returncode == 0, done.stdout
    assert passed, done.stdout
    assert int(passed[1]) >= 30
    assert "skipped" not in done.stdout
    assert agent.requests, "nobody else was asked"
