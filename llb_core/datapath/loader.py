"""From C text to loaded programs: has a short-lived child compile what was not compiled before, and
says clearly what went wrong."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llb_core.datapath import compile_cache, kernel
from llb_core.datapath.compiled import Compiled, Refused
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
SECONDS = 600
COMPILER_SAID = RUN / "compiler.log"
"""What clang or the verifier had to say when they last refused."""
_PINNED = re.compile(r'\bPIN "([^"]+)"')
"""Where the text has a map pinned, behind the folder; the end of it is the map's name."""
_CHILD = Path(__file__).with_name("compiler_child.py")


def load_programs(
    pins: Path,
    flags: Sequence[str],
    *,
    programs: Sequence[str] = PROGRAMS,
    jumps: Sequence[str] = JUMPS,
    text: str | None = None,
) -> dict[str, int]:
    """Load the classifier against the maps pinned in a folder; return file descriptors by name.

    That of the array of jumps is among them, as "jumps", unless jumps is empty; it is pinned in
    the same folder. What was compiled before is not compiled again.

    Raises HostError: bcc or the C library's headers are missing, clang or the kernel refuses.
    """
    source = text if text is not None else amalgamate()
    request = {"text": source, "flags": list(flags), "programs": [*programs, *jumps]}
    key = compile_cache.key_of(request, SOURCES / "stub")
    compiled = compile_cache.find(key)
    if compiled is None:
        compiled = _compile(request, pins)
        compile_cache.keep(key, compiled)
    pinned = {Path(end).name: Path(f"{pins}{end}") for end in _PINNED.findall(source)}
    try:
        loaded = compiled.load(pinned, programs, jumps)
    except (Refused, OSError) as error:
        raise HostError(_explain_refusal(error)) from None
    if jumps:
        try:
            pin(loaded["jumps"], pins)
        except HostError:
            for fd in loaded.values():
                os.close(fd)
            raise
    return loaded


def _compile(request: Mapping[str, Any], pins: Path) -> Compiled:
    """Have the child compile; HostError with the reason where it doesn't."""
    multiarch = f"/usr/include/{platform.machine()}-linux-gnu"
    include = ("-isystem", "/usr/include", "-isystem", multiarch)
    asked = {
        "headers": str(SOURCES / "stub"),
        "text": request["text"],
        "cflags": [*include, f'-DPIN="{pins}"', *request["flags"]],
        "programs": request["programs"],
    }
    try:
        done = subprocess.run(
            [sys.executable, str(_CHILD)],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            errors="replace",
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise HostError(f"compiling the classifier took more than {SECONDS} s") from None
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {"failed": "child", "why": ""}
    if "failed" in answer:
        raise HostError(_explain(answer, done.stderr, done.returncode))
    return Compiled.from_json(done.stdout)


def _explain(answer: dict[str, str], stderr: str, status: int) -> str:
    """Say in one line what failed, and the remedy; what the child printed is kept in a file."""
    said = stderr.strip() or answer["why"]
    words = _words(said, mark=": error:")
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
    return f"the compiler process ended with status {status}: see {_keep(said)} ({words})"


def _explain_refusal(refused: Refused | OSError) -> str:
    if refused.errno == errno.EPERM:
        return (
            "the kernel does not let this process load eBPF programs: run as root, or with "
            "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
        )
    if refused.errno in (errno.EMFILE, errno.ENFILE):
        return (
            f"the classifier can't be loaded: {os.strerror(refused.errno)}: raise the limit of "
            "open files (LimitNOFILE of the unit, ulimit -n)"
        )
    if refused.errno == errno.ENOMEM:
        return "the classifier can't be loaded: the kernel has no memory for it"
    if isinstance(refused, OSError):
        return f"a map of the classifier is not to be had: {refused.strerror}"
    said = str(refused).strip()
    return (
        f"the kernel ({platform.release()}) refuses the classifier; {kernel.NEEDED}; "
        f"if it is, please report {_keep(said)} ({_words(said)})"
    )


def _words(said: str, mark: str = "") -> str:
    """Return the line that says most: the first one with the mark, or the last."""
    lines = [line for line in said.splitlines() if not line.startswith("processed ")] or [said]
    return next((line for line in lines if mark and mark in line), lines[-1])


def _keep(said: str) -> Path:
    """Write what clang or the verifier said to a file, as far as that can be done."""
    with contextlib.suppress(OSError):
        RUN.mkdir(mode=0o755, parents=True, exist_ok=True)
        COMPILER_SAID.write_text(said + "\n")
    return COMPILER_SAID
