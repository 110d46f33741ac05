"""Measure the classifier's time for one packet beside that of an earlier commit, or of the same
without events: what it costs that somebody could listen.

The earlier one is unpacked from the repository's history, so a shallow clone does not have it. Each
is measured by its own `bench program-time`, in turns, so that what the machine does meanwhile falls
on both alike; of all turns the least counts. Run it by
`make bench ARGS="program-time --against 3e962e7"` or `--against no-events`; needs root.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
import tempfile
from io import BytesIO
from pathlib import Path

from llb_core.errors import LLBError

ROOT = Path(__file__).parent.parent
ROUNDS_A_TURN = 3
NO_EVENTS = "no-events"

Nanoseconds = dict[tuple[str, str], int]
"""Of each address family, and kind of packet: an early commit knows IPv4 alone."""


def measure(commit: str, rounds: int) -> tuple[Nanoseconds, Nanoseconds]:
    """Return the least nanoseconds at that commit, or without events where it is `NO_EVENTS`, and
    now, each of at least so many rounds.

    Raises LLBError where the commit is not there, or has no such benchmark.
    """
    earlier: Nanoseconds = {}
    now: Nanoseconds = {}
    with tempfile.TemporaryDirectory(prefix="llb-bench-") as folder:
        if commit != NO_EVENTS:
            _unpack(commit, Path(folder))
        for _ in range(-(-rounds // ROUNDS_A_TURN)):
            if commit == NO_EVENTS:
                _keep_least(earlier, _run(ROOT, "--no-events"))
            else:
                _keep_least(earlier, _run(Path(folder)))
            _keep_least(now, _run(ROOT))
    return earlier, now


def table(commit: str, earlier: Nanoseconds, now: Nanoseconds) -> str:
    """Return both as a table, with how much dearer each kind of packet has become."""
    lines = [f"| packet | {commit}, ns | now, ns | change |", "|---|---:|---:|---:|"]
    lines += [
        f"| {family}: {name} | {before} | {now[family, name]} "
        f"| {now[family, name] / before - 1:+.1%} |"
        for (family, name), before in earlier.items()
        if (family, name) in now
    ]
    return "\n".join(lines)


def _unpack(commit: str, folder: Path) -> None:
    done = subprocess.run(
        ["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=False
    )
    if done.returncode:
        raise LLBError(f"--against {commit}: {done.stderr.decode(errors='replace').strip()}")
    with tarfile.open(fileobj=BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _run(tree: Path, *options: str) -> Nanoseconds:
    """Measure what a tree has: run in it, Python takes all modules from it."""
    rounds = ("--rounds", str(ROUNDS_A_TURN))
    done = subprocess.run(
        [sys.executable, "-m", "bench", "program-time", *rounds, "--json", *options],
        cwd=tree,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise LLBError(f"the benchmark of {tree} ended with status {done.returncode}")
    found = json.loads(done.stdout)
    families = {"ipv4": found["nanoseconds"]} if "nanoseconds" in found else found
    return {
        (family.replace("ipv", "IPv"), name): nanoseconds
        for family, of in families.items()
        for name, nanoseconds in of.items()
    }


def _keep_least(least: Nanoseconds, found: Nanoseconds) -> None:
    for each, nanoseconds in found.items():
        least[each] = min(least.get(each, nanoseconds), nanoseconds)
