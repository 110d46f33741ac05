"""The files that belong to one balancer: socket and lock under /run/llb, operators' orders under
/var/lib/llb, since they are to outlive a reboot.

What was changed on the host is written down under /run/llb too, by `datapath.host`.
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llb_core.errors import AlreadyRunning, HostError
from llb_core.forks import keep_from_children

RUN = Path("/run/llb")
STATE = Path("/var/lib/llb")


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Where the files of the balancer called `name` are; all in `root`, if that is another."""

    name: str
    root: Path = RUN

    @property
    def socket(self) -> Path:
        """The control socket."""
        return self.root / f"{self.name}.sock"

    @property
    def orders(self) -> Path:
        """The operators' orders."""
        return (STATE if self.root == RUN else self.root) / f"{self.name}.orders.json"

    @property
    def old_orders(self) -> Path:
        """Where version 0.1 kept them, which a reboot emptied."""
        return self.root / f"{self.name}.orders.json"

    @property
    def lock_file(self) -> Path:
        """Held by whoever changes what is installed under this name."""
        return self.root / f"{self.name}.lock"

    @contextlib.contextmanager
    def locked(self, remedy: str = "stop it") -> Iterator[None]:
        """Hold the lock; raise AlreadyRunning, with the remedy, where another process does."""
        try:
            self.root.mkdir(mode=0o755, parents=True, exist_ok=True)
            lock = self._lock(remedy)
        except OSError as error:
            raise HostError(
                f"{self.lock_file}: can't be locked: {error.strerror}: run as root"
            ) from None
        with lock:
            keep_from_children(lock)
            with contextlib.suppress(OSError):  # Who holds it is for people; the disk may be full.
                os.ftruncate(lock.fileno(), 0)
                os.pwrite(lock.fileno(), f"{os.getpid()}\n".encode(), 0)
            yield

    def holder(self) -> int | None:
        """Return the process that holds the lock, None where none does. It is not tried: whoever
        starts meanwhile would find it held."""
        try:
            inode = self.lock_file.stat().st_ino
            number = int(self.lock_file.read_text())
            held = Path("/proc/locks").read_text()
        except (OSError, ValueError):
            return None
        return number if f":{inode} " in held else None

    def remove(self) -> None:
        """Remove the files; the lock must be held. HostError where one can't be removed."""
        for path in (self.socket, self.orders, self.old_orders, self.lock_file):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                if path.exists():
                    raise HostError(
                        f"{path}: can't be removed: {error.strerror}: remove it by hand"
                    ) from None
        for folder in {self.root, self.orders.parent}:
            with contextlib.suppress(OSError):
                folder.rmdir()  # Where no other balancer has files.

    def _lock(self, remedy: str) -> io.FileIO:
        while True:
            descriptor = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it until now may have removed the file: then this is not it.
                if self._is_the_file(descriptor):
                    return io.FileIO(descriptor, "r+")
            except BlockingIOError:
                holder = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
                os.close(descriptor)
                raise AlreadyRunning(
                    f'another process (pid {holder or "unknown"}) runs the balancer "{self.name}": '
                    f"{remedy}"
                ) from None
            os.close(descriptor)

    def _is_the_file(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), self.lock_file.stat())
        except FileNotFoundError:
            return False
