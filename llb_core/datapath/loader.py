"""From C text to loaded programs: asks a short-lived child, and says clearly what went wrong."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from llb_core.datapath.host import RUN
from llb_core.datapath.jumps import JUMPS, pin
from llb_core.datapath.sources import SOURCES, amalgamate
from llb_core.errors import HostError

PROGRAMS = (
    "classify",
    "collect",
    "collect_halves",
    "end_connections",
    "correct",
    "read_clocks",
)
SECONDS = 120
COMPILER_SAID = RUN / "compiler.log"
"""What clang or the verifier had to say when they last refused."""
_CHILD = Path(__file__).with_name("compiler_child.py")


def load_programs(
    pins: Path,
    flags: Sequence[str],
    *,
    programs: Sequence[str] = PROGRAMS,
    jumps: Sequence[str] = JUMPS,
    text: str | None = None,
) -> dict[str, int]:
    """Compile the classifier against the maps pinned in a folder; return file descriptors by name.

    That of the array of jumps is among them, as "jumps", unless jumps is empty; it is pinned in
    the same folder.

    Raises HostError: bcc or the C library's headers are missing, clang or the kernel refuses.
    """
    multiarch = f"/usr/include/{platform.machine()}-linux-gnu"
    request = {
        "headers": str(SOURCES / "stub"),
        "text": text if text is not None else amalgamate(),
        "cflags": [
            *("-isystem", "/usr/include", "-isystem", multiarch),
            f'-DPIN="{pins}"',
            *flags,
        ],
        "programs": list(programs),
        "jumps": list(jumps),
    }
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        try:
            done = subprocess.run(
                [sys.executable, str(_CHILD), str(theirs.fileno())],
                input=json.dumps(request).encode(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise HostError(f"compiling the classifier took more than {SECONDS} s") from None
        theirs.close()
        message, fds, _, _ = socket.recv_fds(ours, 65_536, len(programs) + 1)
    answer = json.loads(message) if message else {"failed": "child", "why": ""}
    if "failed" in answer:
        raise HostError(_explain(answer, done.stderr.decode(errors="replace"), done.returncode))
    names = [*programs, "jumps"] if jumps else programs
    loaded = dict(zip(names, fds, strict=True))
    if jumps:
        try:
            pin(loaded["jumps"], pins)
        except HostError:
            for fd in fds:
                os.close(fd)
            raise
    return loaded


def _explain(answer: dict[str, str], stderr: str, status: int) -> str:
    """Say in one line what failed, and the remedy; what the child printed is kept in a file."""
    said = stderr.strip() or answer["why"]
    lines = [line for line in said.splitlines() if not line.startswith("processed ")] or [said]
    words = next((line for line in lines if ": error:" in line), lines[-1])
    match answer["failed"]:
        case "bcc":
            return (
                "bcc for Python is not installed: apt install python3-bpfcc linux-libc-dev"
                f" ({answer['why']})"
            )
        case "compile" if "file not found" in said:
            return (
                f"the C library's kernel headers are missing: apt install linux-libc-dev ({words})"
            )
        case "compile":
            return f"clang does not compile the classifier: please report {_keep(said)} ({words})"
        case "load" if "not permitted" in said or "not permitted" in answer["why"]:
            return (
                "the kernel does not let this process load eBPF programs: run as root, or with "
                "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
            )
        case "load":
            return (
                f"the kernel ({platform.release()}) refuses the classifier; LLB needs Linux 5.15 "
                f"or newer; if it is, please report {_keep(said)} ({words})"
            )
    return f"the compiler process ended with status {status}: see {_keep(said)} ({words})"


def _keep(said: str) -> Path:
    """Write what clang or the verifier said to a file, as far as that can be done."""
    with contextlib.suppress(OSError):
        RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
        COMPILER_SAID.write_text(said + "\n")
    return COMPILER_SAID
