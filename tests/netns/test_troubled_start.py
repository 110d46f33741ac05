"""LLB starts on a host that lacks something: room on the disk, a place for pins, a compiler. What
runs goes on, and what can't be done is said in one line."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from llb_core.demo import lab
from llb_core.demo.network import wait_until
from llb_core.errors import LLBError
from tests.netns.conftest import Balance, shown, take_away
from tests.netns.test_outlives import snapshot

pytestmark = pytest.mark.netns

BCC = "/usr/lib/python3/dist-packages/bcc"
FULL = (
    "mount -t tmpfs -o size=4k none /run/llb && (cat /dev/zero > /run/llb/full 2> /dev/null; true)"
)
NO_INODES = "mount -t tmpfs -o nr_inodes=1 none /run/llb"
NO_BCC = f"mount -t tmpfs none {BCC}"
READ_ONLY = (
    "mount --bind /sys/fs/bpf /sys/fs/bpf && mount -o remount,ro,bind /sys/fs/bpf /sys/fs/bpf"
)
FAILING = """
from llb_core import cli
from llb_core.api import server
from llb_core.datapath import watch

def fail(*_):
    raise OSError("it is refused")

{what} = fail
cli.main()
"""
NOTHING_COMPILED = "mount -t tmpfs none /var/cache/llb"


def troubled(balancer: lab.Balancer, trouble: str, command: str = "run") -> tuple[str, ...]:
    """Return `llb run`, or another, as a command that has the trouble for itself alone."""
    run = shlex.join([*lab.llb_command(), command, "-c", str(balancer.config)])
    return ("unshare", "--mount", "sh", "-c", f"{trouble} && exec {run}")


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (NO_INODES, "No space left on device"),
        (READ_ONLY, "can't be pinned: Read-only file system: let LLB write to the BPF file system"),
        (f"{NO_BCC} && {NOTHING_COMPILED}", "apt install python3-bpfcc"),
    ],
    ids=["no room for a file", "a read-only BPF file system", "no bcc"],
)
def test_a_restart_that_fails_says_why_and_leaves_traffic(
    balance: Balance, trouble: str, said: str
) -> None:
    balancer = balance()
    balancer.kill()

    failed = balancer.lab.lb.run(*troubled(balancer, trouble), check=False)

    assert failed.returncode == 1
    assert said in failed.stderr
    assert "Traceback" not in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert is_served(balancer)
    balancer.start()
    assert is_served(balancer)


@pytest.mark.parametrize("trouble", [FULL, NO_BCC], ids=["a full disk", "no bcc"])
def test_a_restart_takes_over_by_what_it_has(balance: Balance, trouble: str) -> None:
    """What a first start has written down, and compiled, is there."""
    balancer = balance()
    balancer.kill()
    with balancer.log.open("a") as log:
        daemon = balancer.lab.lb.start(*troubled(balancer, trouble), stdout=log, stderr=log)

    def is_ready() -> bool:
        assert daemon.poll() is None, balancer.last_words()
        return balancer.log.read_text().count("is ready") == 2

    wait_until(is_ready, lab.LIMIT, "it is ready")
    assert is_served(balancer)
    daemon.kill()
    daemon.wait()


def is_served(balancer: lab.Balancer) -> bool:
    """Say whether the VIP answers a new connection."""
    done = balancer.lab.client.run("curl", "-sS", "-m", "5", balancer.lab.url)
    return done.stdout.strip() in {"b1", "b2", "b3"}


def test_a_detach_that_may_not_remove_pins_takes_nothing_away(balance: Balance) -> None:
    balancer = balance()
    balancer.kill()
    before = snapshot(balancer.lab.lb)

    failed = balancer.lab.lb.run(*troubled(balancer, READ_ONLY, "detach"), check=False)

    place = f"{lab.PINS / balancer.name}: can't be changed: Read-only file system: let LLB write to"
    assert failed.returncode == 1
    assert place in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert is_served(balancer)
    assert snapshot(balancer.lab.lb) == before


def test_a_detach_that_may_not_remove_an_order_says_which(balance: Balance) -> None:
    balancer = balance()
    shown(balancer, "drain", balancer.lab.backends[0].endpoint)
    balancer.kill()
    read_only = "mount --bind /var/lib/llb /var/lib/llb && mount -o remount,ro,bind /var/lib/llb"

    failed = balancer.lab.lb.run(*troubled(balancer, read_only, "detach"), check=False)

    assert failed.returncode == 1
    assert "orders.json: can't be removed: Read-only file system: remove it by" in failed.stderr
    assert not (lab.PINS / balancer.name).exists(), "the rest is away"


def test_a_first_start_that_may_not_pin_leaves_the_host_as_it_was(balancer: lab.Balancer) -> None:
    before = snapshot(balancer.lab.lb)

    failed = balancer.lab.lb.run(*troubled(balancer, READ_ONLY), check=False)

    assert failed.returncode == 1
    assert "can't be made: Read-only file system: let LLB write" in failed.stderr
    assert len(failed.stderr.splitlines()) == 1
    assert snapshot(balancer.lab.lb) == before
    assert not (lab.PINS / balancer.name).exists()


@pytest.mark.parametrize("fails", ["watch.NetworkWatch.__init__", "server.web.SockSite.start"])
def test_a_first_start_that_fails_as_it_begins_to_serve_leaves_the_host_as_it_was(
    balancer: lab.Balancer, fails: str
) -> None:
    """Since what goes on beside the turns ends at once, or the control socket can't be opened."""
    before = snapshot(balancer.lab.lb)
    balancer.command = (sys.executable, "-P", "-c", FAILING.format(what=fails))
    balancer.start(wait=False)
    daemon = balancer.daemon
    assert daemon is not None

    assert daemon.wait(lab.LIMIT) == 1

    said = balancer.log.read_text()
    assert "added 203.0.113.10 on lo" in said
    assert "is ready" not in said
    assert "OSError: it is refused" in said
    assert snapshot(balancer.lab.lb) == before
    assert not (lab.PINS / balancer.name).exists()


def test_a_first_start_that_runs_out_of_descriptors_leaves_the_host_as_it_was(
    balancer: lab.Balancer,
) -> None:
    """Wherever it does, from before it touches the host to when it nearly serves."""
    before = snapshot(balancer.lab.lb)
    balancer.start()
    assert balancer.daemon is not None
    wanted = len(list(Path(f"/proc/{balancer.daemon.pid}/fd").iterdir()))
    take_away(balancer)
    run = lab.llb_command()

    failed = 0
    for few in range(wanted - 18, wanted - 5, 6):
        balancer.command = ("prlimit", f"--nofile={few}:{few}", *run)
        balancer.start(wait=False)
        daemon = balancer.daemon
        wait_until(
            lambda daemon=daemon: daemon.poll() is not None or serves_somehow(balancer),
            lab.LIMIT,
            "it ends, or serves",
        )

        if daemon.poll() is None:
            break
        failed += 1
        assert daemon.returncode == 1
        assert "Too many open files" in balancer.last_words()
        assert snapshot(balancer.lab.lb) == before
        assert not (lab.PINS / balancer.name).exists()
    assert failed


def serves_somehow(balancer: lab.Balancer) -> bool:
    """Whether it answers, if only that it has no descriptor left to look with."""
    try:
        return balancer.is_answering()
    except LLBError as error:
        return "Too many open files" in str(error)
