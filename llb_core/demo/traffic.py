"""The load of a lab, and what became of its requests, by phase: drives `load.py` in clients."""

from __future__ import annotations

import collections
import json
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from llb_core.demo.network import Namespace, Process, python
from llb_core.errors import HostError


@dataclass
class Tally:
    """What became of the requests that were begun in one phase."""

    answered: collections.Counter[str] = field(default_factory=collections.Counter)
    """By the name of the backend that answered."""
    failed: collections.Counter[str] = field(default_factory=collections.Counter)
    """By reason."""

    @property
    def sent(self) -> int:
        """Requests that have ended, one way or the other."""
        return self.answered.total() + self.failed.total()

    def copy(self) -> Tally:
        """The same numbers, to keep."""
        return Tally(self.answered.copy(), self.failed.copy())


class Traffic:
    """A steady load from some clients to one address, as long as the context lasts."""

    def __init__(
        self,
        clients: Sequence[Namespace],
        address: str,
        port: int,
        rate: float = 400,
        workers: int = 16,
        timeout: float = 10,
    ) -> None:
        share = ("--rate", f"{rate / len(clients):g}", "--workers", str(workers // len(clients)))
        patience = ("--timeout", f"{timeout:g}")
        self._processes = [
            client.start(
                *python("load.py", address, str(port)),
                *share,
                *patience,
                stdin=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for client in clients
        ]
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        self._readers = [
            threading.Thread(target=self._read, args=(process,), name="traffic", daemon=True)
            for process in self._processes
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.kill()

    def phase(self, name: str) -> None:
        """Count the requests that begin from now on under `name`."""
        for process in self._processes:
            assert process.stdin is not None
            try:
                process.stdin.write(f"{name}\n")
                process.stdin.flush()
            except OSError:
                raise HostError(f"the load generator ended: {_last_words(process)}") from None

    def tallies(self) -> dict[str, Tally]:
        """What is known by now, by phase; some 0.1 s behind."""
        with self._lock:
            return {phase: tally.copy() for phase, tally in self._tallies.items()}

    def finish(self, seconds: float = 60) -> dict[str, Tally]:
        """Begin no more requests, wait for those under way, give what became of all of them."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.close()
        for process, reader in zip(self._processes, self._readers, strict=True):
            if process.wait(seconds):
                raise HostError(f"the load generator failed: {_last_words(process)}")
            reader.join(seconds)
        return self.tallies()

    def _read(self, process: Process) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._lock:
                for count in json.loads(line)["counts"]:
                    tally = self._tallies.setdefault(count["phase"], Tally())
                    if "answered" in count:
                        tally.answered[count["backend"]] += count["answered"]
                    else:
                        tally.failed[count["why"]] += count["failed"]


def _last_words(process: Process) -> str:
    assert process.stderr is not None
    return process.stderr.read().strip()[-500:]
