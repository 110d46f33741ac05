"""The package under a real systemd: started, reloaded, hung, upgraded, stopped, removed.

`make systemd` runs it, and `make test` does not: systemd is process 1 of namespaces and control
groups of its own, over an overlay of this machine's file system, which not every machine allows.
Nothing of it stays.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from llb_core.capabilities import NEEDED
from llb_core.demo import lab
from llb_core.demo.network import wait_until
from tests.packaging.test_package import hosts, machine, package

__all__ = ["hosts", "package"]

pytestmark = pytest.mark.netns

BOOT = Path(__file__).with_name("boot")
CONFIG = "/etc/llb/llb.toml"
CGROUPS = Path("/sys/fs/cgroup")


class Machine:
    """Where systemd runs."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def run(self, *argv: str) -> str:
        """Run a command there that does what it is to do; give what it prints."""
        done = self.tried(*argv)
        assert done.returncode == 0, (argv, done.stdout, done.stderr, self.log())
        return done.stdout.strip()

    def tried(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command there, whatever comes of it."""
        inside = ("nsenter", "--target", str(self._pid), "--all", "--wd", "--root", "--", *argv)
        return subprocess.run(inside, capture_output=True, text=True, check=False)

    def shown(self, name: str) -> str:
        """What systemd says of the unit."""
        return self.run("systemctl", "show", "llb", "--property", name, "--value")

    def has(self, **wanted: str) -> bool:
        """Say whether systemd says so of the unit."""
        return all(self.shown(name) == value for name, value in wanted.items())

    def daemon_status(self) -> dict[str, str]:
        """What the kernel says of the daemon: /proc/PID/status."""
        lines = self.run("cat", f"/proc/{self.shown('MainPID')}/status").splitlines()
        return {name: value.strip() for name, _, value in (each.partition(":") for each in lines)}

    def log(self) -> str:
        """What the daemon and its commands have said."""
        return self.tried("cat", "/run/llb.log").stdout


@contextmanager
def cgroups() -> Iterator[list[Path]]:
    """Control groups of our own, one in each tree, gone afterwards."""
    trees = [CGROUPS] if (CGROUPS / "cgroup.procs").exists() else sorted(CGROUPS.iterdir())
    made = [tree / f"llb-{os.getpid()}" for tree in trees if (tree / "cgroup.procs").exists()]
    for each in made:
        each.mkdir()
        for name in ("cpuset.cpus", "cpuset.mems"):  # Without them it takes no process.
            if (each / name).exists():
                (each / name).write_text((each.parent / name).read_text())
    try:
        yield made
    finally:
        for each in made:
            for folder, _, _ in os.walk(each, topdown=False):
                wait_until(lambda f=folder: removed(Path(f)), 30, f"{folder} is empty")


def removed(folder: Path) -> bool:
    """Remove a control group; False while processes of it end."""
    try:
        folder.rmdir()
    except OSError:
        return False
    return True


@pytest.fixture
def booted(package: Path, hosts: lab.Lab, tmp_path: Path) -> Iterator[Machine]:
    """systemd, with the package installed and configured."""
    (tmp_path / "mount").mkdir()
    (tmp_path / "configuration").mkdir()
    (tmp_path / "configuration" / "llb.toml").write_text(lab.configuration(hosts, "llb"))
    for name, port in (("backends.toml", lab.BACKEND_PORT), ("udp.toml", lab.UDP_PORT)):
        lines = [
            f'[[backends]]\naddress = "{each.address}"\nport = {port}\n' for each in hosts.backends
        ]
        (tmp_path / "configuration" / name).write_text("\n".join(lines))
    with ExitStack() as stack:
        enter = "".join(
            f"echo $$ > {each}/cgroup.procs && " for each in stack.enter_context(cgroups())
        )
        spaces = "--mount --pid --fork --kill-child --uts --ipc --cgroup"
        places = f"{tmp_path}/mount {package} {tmp_path}/configuration"
        boot = f"{enter} exec unshare {spaces} {BOOT} {places}"
        outer = hosts.lb.start("sh", "-c", boot, stderr=None)
        stack.callback(outer.wait)
        stack.callback(outer.kill)
        children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")

        def pid() -> int:
            assert outer.poll() is None, "it does not boot"
            first = children.read_text().split()[:1]
            is_systemd = first and Path(f"/proc/{first[0]}/comm").read_text() == "systemd\n"
            return int(first[0]) if is_systemd else 0

        wait_until(pid, lab.LIMIT, "systemd runs")
        machine = Machine(pid())
        up = ("systemctl", "is-system-running", "--wait")
        wait_until(lambda: machine.tried(*up).stdout == "running\n", lab.LIMIT, "it is up")
        yield machine


def test_systemd_runs_it(booted: Machine, hosts: lab.Lab) -> None:
    before = machine()

    booted.run("systemctl", "start", "llb")  # It waits for READY=1.
    assert booted.has(Type="notify", ActiveState="active", SubState="running")
    assert is_served(hosts)
    status = booted.daemon_status()
    assert int(status["CapEff"], 16) == sum(1 << each for each in NEEDED)
    assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1"), "filtered"

    booted.run("sh", "-c", f"sed -i '/services.echo/,$d' {CONFIG}")
    booted.run("systemctl", "reload", "llb")
    assert booted.has(ActiveState="active")
    (served,) = json.loads(booted.run("llb", "status", "--json"))["services"]
    assert served["name"] == "web", "the other one is withdrawn"
    pid = booted.shown("MainPID")
    booted.run("sh", "-c", f"echo nonsense >> {CONFIG}")
    assert booted.tried("systemctl", "reload", "llb").returncode == 1, "refused"
    assert "is not valid TOML" in booted.log()
    assert booted.has(ActiveState="active", MainPID=pid, NRestarts="0")
    assert is_served(hosts)
    booted.run("sed", "-i", "$d", CONFIG)

    booted.run("kill", "-STOP", pid)
    assert is_served(hosts), "traffic does not notice"
    wait_until(lambda: booted.has(NRestarts="1"), lab.LIMIT, "the watchdog bites")
    wait_until(lambda: booted.has(ActiveState="active"), lab.LIMIT, "it runs again")
    assert booted.shown("MainPID") not in ("0", pid)
    assert is_served(hosts)

    pid = booted.shown("MainPID")
    booted.run("dpkg", "-i", "/tmp/llb.deb")
    assert booted.shown("MainPID") not in ("0", pid), "an upgrade restarts it"
    assert is_served(hosts)

    booted.run("systemctl", "stop", "llb")
    assert booted.has(Result="success", ExecMainStatus="0", ActiveState="inactive")
    assert is_served(hosts), "stopping ends no traffic"
    booted.run("systemctl", "enable", "--now", "llb")
    booted.run("dpkg", "-r", "llb")
    assert booted.tried("systemctl", "is-active", "llb").stdout == "inactive\n"
    assert not booted.run("find", "/etc/systemd/system", "-name", "llb.service")
    refused = hosts.client.run("curl", "-sS", "-m", "5", hosts.url, check=False)
    assert refused.returncode, "removing the package does"
    assert machine() == before, "nothing of it is on this machine"


def is_served(hosts: lab.Lab) -> bool:
    """Say whether the VIP answers a new connection."""
    done = hosts.client.run("curl", "-sS", "-m", "5", hosts.url)
    return done.stdout.strip() in {each.name for each in hosts.backends}
