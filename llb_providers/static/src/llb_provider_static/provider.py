"""Read backends from a file whenever it has been written, and never while it is."""

from __future__ import annotations

import errno
import fcntl
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, Field

from llb_core import (
    Backend,
    Provider,
    ProviderContext,
    ProviderError,
    ProviderOptions,
    open_regular,
)
from llb_provider_static.backends_file import parse_backends
from llb_provider_static.watch import POLL, FileWatch, Signature, signature

_LARGEST = {"toml": 4 * 1024 * 1024, "json": 16 * 1024 * 1024}
"""Bytes of a file; a megabyte of TOML takes a second to read, which no code in C does."""
_SOON = 0.05
"""Seconds after which a file that has just been found open for writing is looked at again."""
_PATIENCE = 2.0
"""Seconds for which a file may be open for writing before that is worth an error."""
_TURN = 0.1
"""Seconds that one file waits for another to be parsed: a large one takes longer."""
_parsing = threading.Lock()
"""Only one gets on at a time anyhow, and a thread that waits for the interpreter itself wakes
up two hundred times a second."""


class StaticOptions(ProviderOptions):
    """The options of the provider `static`."""

    path: Path = Field(description="the file with the backends, relative to llb.toml")
    format: Literal["toml", "json"] | None = Field(
        None, description="how it is written; by default json where path ends in .json, else toml"
    )

    @property
    def kind(self) -> Literal["toml", "json"]:
        """How the file is written."""
        return self.format or ("json" if self.path.suffix.lower() == ".json" else "toml")


class StaticProvider(Provider[StaticOptions]):
    """Backends from a file that is watched."""

    name: ClassVar[str] = "static"
    Options: ClassVar[type[BaseModel]] = StaticOptions

    def __init__(
        self,
        options: StaticOptions,
        context: ProviderContext,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(options, context)
        self._path = context.base / options.path
        self._clock = clock
        self._watch = FileWatch(self._path)
        self._is_to_read = True
        self._signature: Signature | None = None
        self._written_since: float | None = None
        self._outcome: tuple[Backend, ...] | ProviderError = self._error("has not been read yet")

    def gather_backends(self) -> Sequence[Backend]:
        """Return what the file said when it was last closed."""
        if self._is_to_read or self._signature != signature(self._path):
            self._read()
        if isinstance(self._outcome, ProviderError):
            raise ProviderError(str(self._outcome))
        return self._outcome

    def wait_for_change(self, timeout: float) -> bool:
        """Return True as soon as the file has been closed, replaced or removed."""
        if self.closed.is_set():
            return False
        if self._written_since is not None:
            # The kernel tells of a closing before it lets go of the file (fs/file_table.c,
            # __fput): who looks at once may find it open, and is told no more.
            is_new = self._clock() - self._written_since <= _PATIENCE
            timeout = min(timeout, _SOON if is_new else POLL)
        if self._watch.wait(timeout):
            self._is_to_read = True
            return True
        return False

    def close(self) -> None:
        """Stop watching."""
        super().close()
        self._watch.close()

    def _read(self) -> None:
        """Read the file and remember what came of it, unless somebody is writing it."""
        try:
            with open_regular(self._path) as file:
                before = signature(file.fileno())
                is_written = _is_being_written(file.fileno())
                content = b"" if is_written else file.read(_LARGEST[self.options.kind] + 1)
                is_written = is_written or _is_being_written(file.fileno())
                is_written = is_written or signature(file.fileno()) != before
        except OSError as error:
            reason = error.strerror or str(error)
            if error.errno == errno.ENOENT:
                reason = "there is no such file"
            self._conclude(signature(self._path), self._error(reason))
            return
        if is_written:
            self._put_off()
        else:
            self._conclude(before, self._parsed(content))

    def _parsed(self, content: bytes) -> tuple[Backend, ...] | ProviderError:
        largest = _LARGEST[self.options.kind]
        if len(content) > largest:
            return self._error(
                f"is larger than {largest >> 20} MiB, many times what a service's backends take: "
                "name another file, or leave out what is no backend"
            )
        is_alone = _parsing.acquire(timeout=_TURN)
        try:
            return parse_backends(content.decode(), str(self.options.path), self.options.kind)
        except UnicodeDecodeError as error:
            return self._error(f"is not UTF-8 (at byte {error.start})")
        except ProviderError as error:
            return error
        finally:
            if is_alone:
                _parsing.release()

    def _conclude(
        self, signature: Signature | None, outcome: tuple[Backend, ...] | ProviderError
    ) -> None:
        self._is_to_read = False
        self._written_since = None
        self._signature, self._outcome = signature, outcome

    def _put_off(self) -> None:
        """Wait for the writer to close the file, and complain if that takes long."""
        self._is_to_read = True
        now = self._clock()
        if self._written_since is None:
            self._written_since = now
        is_first = self._signature is None and isinstance(self._outcome, ProviderError)
        if is_first or now - self._written_since > _PATIENCE:
            raise self._error("is being written: it is read when it has been closed")

    def _error(self, text: str) -> ProviderError:
        return ProviderError(f"{self.options.path}: {text}")


def _is_being_written(fd: int) -> bool:
    """Say whether somebody has the file open for writing.

    The kernel grants a read lease (fcntl(2), F_SETLEASE) on a file that nobody writes; it is given
    back at once. This says no where there are no leases, and where the file is another user's and
    the capability CAP_LEASE is missing.
    """
    try:
        # Who opens the file meanwhile waits for us, and we get a signal: one that is ignored.
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
