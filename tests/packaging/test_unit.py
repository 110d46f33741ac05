"""The unit for systemd: hardened, and true to what the daemon keeps."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from llb_core.capabilities import NEEDED

UNIT = Path(__file__).parents[2] / "packaging" / "systemd" / "llb.service"
MOST = 3.0


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


def test_keeps_what_traffic_and_operators_rely_on() -> None:
    assert settings("RuntimeDirectoryPreserve") == ["yes"], "what was changed on the host"
    assert settings("StateDirectory") == ["llb"], "the orders"
