"""The daemon stops while it looks at its maps: it closes none that a thread still reads, or that
thread would read, and write, whatever gets the descriptor next."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until
from tests.lingering import WORK

pytestmark = pytest.mark.netns


@pytest.mark.parametrize("work", WORK)
def test_what_is_under_way_comes_to_its_end_first(
    network: Network, tmp_path: Path, work: str
) -> None:
    hosts = lab.build(network, backends=1)
    hosts.start_backends()
    command = [sys.executable, "-m", "tests.lingering", work]
    balancer = lab.Balancer(hosts, tmp_path, command=command)
    try:
        balancer.write_config()
        balancer.write_backends(hosts.backends)
        balancer.start()
        wait_until(lambda: balancer.log.read_text().count("lingering: "), lab.LIMIT, "it lingers")

        code = balancer.stop()

        said = [line for line in balancer.log.read_text().splitlines() if "lingering: " in line]
        assert set(said) == {f"lingering: {work}: begun", f"lingering: {work}: to its end"}
        assert code == 0
    finally:
        print(balancer.last_words())
        balancer.remove()
