"""Run a command, and watch what it costs whom: itself, the daemon, and what that has started.

What several processes of the daemon's have in common counts once.

The processor's time is in steps of 10 ms, and of the daemon all that it does meanwhile is in it;
memory is looked at every few milliseconds.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import statistics
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from bench.processes import cpu_of, proportional, resident
from llb_core.api import table_reader

LOOK = 0.005
"""Seconds from one look at the processes to the next."""
CALL = 0.02
"""Seconds from one call at the daemon's loop to the next."""


@dataclass(frozen=True)
class Cost:
    """What a command took, or the medians of several. Processor in seconds, memory in MiB."""

    seconds: float
    cpu_command: float
    cpu_reader: float
    """Of the processes that read the tables for the daemon; 0 where there were none."""
    cpu_daemon: float
    peak_command: float
    peak_reader: float
    growth_daemon: float
    held_up: float
    """The longest that the daemon's loop took to answer another one meanwhile: milliseconds."""


def median(costs: Sequence[Cost]) -> Cost:
    """The median of each figure."""
    return Cost(
        *(statistics.median(getattr(cost, each.name) for cost in costs) for each in fields(Cost))
    )


def watched(command: Sequence[str | Path], output: Path, daemon: int, control: Path) -> Cost:
    """Run a command with its output in a file; CalledProcessError where it fails. `control` is the
    daemon's socket."""
    processes = _Processes(daemon)
    with output.open("wb") as file, _calling(control) as answers:
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.PIPE)
        with processes.looked_at(process.pid):
            _, said = process.communicate()
        seconds = time.monotonic() - began
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command, stderr=said)
    return Cost(
        seconds,
        processes.cpu(process.pid),
        sum(map(processes.cpu, processes.readers)),
        processes.cpu(daemon),
        processes.peaks[process.pid],
        processes.peak_readers,
        processes.peaks[daemon] - processes.before,
        1000 * max(answers),
    )


class _Processes:
    """What is known of the command, the daemon and those that read for it."""

    def __init__(self, daemon: int) -> None:
        self._daemon = daemon
        self._first: dict[int, float] = {daemon: cpu_of(daemon)}
        self._last: dict[int, float] = dict(self._first)
        self.before = resident(daemon, "VmRSS")
        self.peaks: dict[int, float] = {daemon: self.before}
        self.readers: set[int] = set()
        self.peak_readers = 0.0

    def cpu(self, pid: int) -> float:
        """Seconds of the processor since the command was started, as far as was seen."""
        return self._last[pid] - self._first.get(pid, 0.0)

    @contextlib.contextmanager
    def looked_at(self, command: int) -> Iterator[None]:
        """Look at all of them again and again."""
        is_done = threading.Event()

        def look() -> None:
            while not is_done.is_set():
                self._look(command)
                is_done.wait(LOOK)

        self._look(command)
        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield
        finally:
            is_done.set()
            thread.join()
            self._last[self._daemon] = cpu_of(self._daemon)

    def _look(self, command: int) -> None:
        readers = _readers(self._daemon)
        self.readers |= readers
        for pid in {command, self._daemon} | readers:
            try:
                self._last[pid] = cpu_of(pid)
                if pid == self._daemon:
                    self.peaks[pid] = max(self.peaks[pid], resident(pid, "VmRSS"))
                else:  # Begun anew when it becomes another program, so the last is the right one.
                    self.peaks[pid] = resident(pid, "VmHWM")
            except (OSError, LookupError):  # It has ended.
                self._last.setdefault(pid, 0.0)
                self.peaks.setdefault(pid, 0.0)
        with contextlib.suppress(OSError, LookupError):
            together = sum(map(proportional, readers)) if len(readers) > 1 else 0.0
            self.peak_readers = max(self.peak_readers, together)
        self.peak_readers = max(self.peak_readers, *(self.peaks[pid] for pid in readers), 0.0)


@contextlib.contextmanager
def _calling(control: Path) -> Iterator[list[float]]:
    """Ask the daemon for what is not there, over and over; yields how long each answer took."""
    answers: list[float] = []
    is_done, has_begun = threading.Event(), threading.Event()

    def call() -> None:
        connection = _Connection(control)
        with contextlib.closing(connection):
            while not is_done.is_set():
                began = time.monotonic()
                connection.request("GET", "/is-anybody-there")
                connection.getresponse().read()
                answers.append(time.monotonic() - began)
                has_begun.set()
                is_done.wait(CALL)

    thread = threading.Thread(target=call)
    thread.start()
    try:
        has_begun.wait()
        yield answers
    finally:
        is_done.set()
        thread.join()


class _Connection(http.client.HTTPConnection):
    """HTTP over the control socket, one connection for many calls."""

    def __init__(self, path: Path) -> None:
        super().__init__("llb", timeout=30)
        self._path = path

    def connect(self) -> None:
        self.sock: Any = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _readers(daemon: int) -> set[int]:
    """The daemon's children that read the tables for it, and theirs."""
    found: set[int] = set()
    for path in Path(f"/proc/{daemon}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, path.read_text().split()):
                if table_reader.__name__ in Path(f"/proc/{child}/cmdline").read_text():
                    found |= {child} | _readers(child)
    return found
