"""The unit for systemd: hardened, and true to what the daemon keeps."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from llb_core.capabilities import NEEDED
from llb_core.demo import lab
from llb_core.demo.network import Network, wait_until

UNIT = Path(__file__).parents[2] / "packaging" / "systemd" / "llb.service"
MOST = 3.0


@pytest.fixture
def network() -> Iterator[Network]:
    with Network() as made:
        yield made


def settings(name: str) -> list[str]:
    return re.findall(rf"^{name}=(.*)$", UNIT.read_text(), re.MULTILINE)


def test_systemd_finds_little_exposed() -> None:
    command = ("systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT))
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    level = re.search(r"Overall exposure level for llb\.service: ([\d.]+)", done.stdout)
    assert level, done.stdout
    assert float(level[1]) <= MOST, done.stdout


def test_systemd_understands_it() -> None:
    command = ("systemd-analyze", "verify", "--man=no", str(UNIT))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    complaints = [line for line in done.stderr.splitlines() if "/usr/bin/llb" not in line]
    assert complaints == []


def test_leaves_what_the_daemon_needs() -> None:
    (bounding,) = settings("CapabilityBoundingSet")
    assert {f"CAP_{each.name}" for each in NEEDED} <= set(bounding.split())


@pytest.mark.netns
def test_what_it_leaves_is_enough_to_start_and_to_take_over(
    network: Network, tmp_path: Path
) -> None:
    """The second start finds tables that the first one pinned."""
    hosts = lab.build(network, backends=1)
    hosts.start_backends()
    balancer = lab.Balancer(hosts, tmp_path)
    balancer.write_config()
    balancer.write_backends(hosts.backends)
    (bounding,) = settings("CapabilityBoundingSet")
    words = ",".join(f"+{name.removeprefix('CAP_').lower()}" for name in bounding.split())
    confined = ("setpriv", "--bounding-set", f"-all,{words}", "--inh-caps=-all")
    try:
        for _ in range(2):
            with balancer.log.open("a") as log:
                balancer.daemon = hosts.lb.start(
                    *confined, *lab.llb_command(), "run", "-c", balancer.config,
                    stdout=log, stderr=log,
                )  # fmt: skip
            wait_until(balancer.serves, 60, "the daemon answers")
            wait_until(lambda: balancer.is_active(hosts.backends[0]), 60, "it is active")
            assert balancer.stop() == 0
    finally:
        print(balancer.last_words())
        balancer.remove()


def test_keeps_what_traffic_and_operators_rely_on() -> None:
    assert settings("RuntimeDirectoryPreserve") == ["yes"], "what was changed on the host"
    assert settings("StateDirectory") == ["llb"], "the orders"
