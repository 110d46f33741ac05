"""Compiling for a daemon that has given up the capabilities that it takes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from llb_core.datapath import loader, pins
from llb_core.demo.network import wait_until
from tests.datapath.conftest import NAME, Host

AS_A_DAEMON = f"""
import os, sys
from pathlib import Path
from llb_core import capabilities
from llb_core.datapath import compile_cache
from llb_core.datapath.compiling import compile_programs, helped
from llb_core.errors import HostError
compile_cache.FOLDER = Path("@FOLDER@")
with helped({NAME!r}, 1000):
    capabilities.keep_only()
    fds = compile_programs({NAME!r}, 1000, 4)
    assert all(os.fstat(fd) for fd in fds.values())
    print(*fds)
compile_cache.FOLDER /= "none"
try:
    compile_programs({NAME!r}, 1000, 4)
except HostError as error:
    print("not permitted" in str(error))
"""


@pytest.mark.parametrize("family", [4, 6])
def test_its_maps_are_there(host: Host, family: int) -> None:
    assert pins.open_maps(NAME, family, 1000)


def test_a_helper_compiles_for_a_process_that_may_not(host: Host, tmp_path: Path) -> None:
    pins.open_maps(NAME, 4, 1000)
    program = AS_A_DAEMON.replace("@FOLDER@", str(tmp_path))
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    names = " ".join([*loader.PROGRAMS, "jumps"])
    assert done.stdout.splitlines() == [names, "True"]


def test_the_helper_ends_with_its_daemon(host: Host) -> None:
    """Also with one that is killed: the helper has its socket alone, and no lock."""
    program = f"""
import os
from llb_core.datapath.compiling import helped
with helped({NAME!r}, 1000):
    with open(f"/proc/{{os.getpid()}}/task/{{os.getpid()}}/children") as children:
        print(children.read(), flush=True)
    os.kill(os.getpid(), 9)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == -9
    status = Path(f"/proc/{int(done.stdout)}/status")
    wait_until(lambda: has_ended(status), 30, "the helper has ended")


def has_ended(status: Path) -> bool:
    """Say whether a process is gone, or waits for nothing but being waited for."""
    try:
        return "State:\tZ" in status.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
