"""The command line's end of the control socket. Blocking, and quick to import."""

from __future__ import annotations

import contextlib
import http.client
import json
import select
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from llb_core.errors import (
    ConfigurationError,
    DaemonUnreachable,
    LLBError,
    MayNotAsk,
    NotCarriedOut,
)

PATIENCE = 2.0
"""Seconds until whoever waits is told so."""
_PIECE = 1 << 18
_NOT_CARRIED_OUT = 503


class Client:
    """Ask the daemon behind a control socket; DaemonUnreachable where none answers, MayNotAsk where
    it is not for this user. `remark` is told once where the answer takes longer than `PATIENCE`."""

    def __init__(
        self, path: Path, *, timeout: float = 30.0, remark: Callable[[str], None] | None = None
    ) -> None:
        self._path = path
        self._timeout = timeout
        self._remark = remark

    def get(self, resource: str) -> Any:
        """Return what the daemon says."""
        return self._ask("GET", resource)

    def post(self, resource: str, **arguments: object) -> Any:
        """Have the daemon do something, and return what it says once it is done."""
        return self._ask("POST", resource, json.dumps(arguments))

    def stream(self, resource: str, **query: object) -> Iterator[bytes]:
        """Yield what the daemon says as it comes, a line or a piece at a time; query values that
        are lists stand there several times, None not at all."""
        wanted = {name: value for name, value in query.items() if value not in (None, ())}
        path = f"{resource}?{urlencode(wanted, doseq=True)}"
        connection = _UnixConnection(self._path, self._timeout, self._waits)
        with contextlib.closing(connection):
            with self._reaching():
                response = connection.answer_to("GET", path, None, {})
            if response.status != 200:
                _unwrap(response.status, response.read())
            if connection.sock is not None:
                connection.sock.settimeout(None)  # from now on there may be nothing to tell
            try:
                while piece := response.read1(_PIECE):
                    yield piece
            except (ConnectionError, http.client.HTTPException):
                raise LLBError(
                    f"{self._path}: the daemon's answer broke off: see its log, and ask again"
                ) from None

    def _ask(self, method: str, resource: str, body: str | None = None) -> Any:
        connection = _UnixConnection(self._path, self._timeout, self._waits)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        with contextlib.closing(connection), self._reaching():
            response = connection.answer_to(method, resource, body, headers)
            text = response.read()
        return _unwrap(response.status, text)

    def _waits(self) -> Iterator[float]:
        """Yield the seconds to wait; then, once whoever waits is told, those that are left."""
        yield min(PATIENCE, self._timeout)
        if self._timeout > PATIENCE:
            if self._remark is not None:
                self._remark(f"the daemon has not answered yet: waiting up to {self._timeout:g} s")
                self._remark = None
            yield self._timeout - PATIENCE

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except PermissionError:
            raise MayNotAsk(f"{self._path}: you may not ask the daemon: run as root") from None
        except TimeoutError:
            raise DaemonUnreachable(
                f"{self._path}: the daemon did not answer within {self._timeout:g} s"
            ) from None
        except (OSError, http.client.HTTPException):
            raise DaemonUnreachable(
                f"{self._path}: no daemon answers: start one with llb run"
            ) from None


def _unwrap(status: int, text: bytes) -> Any:
    try:
        answer = json.loads(text)
    except ValueError:
        raise LLBError(f"the daemon answers what is no JSON (status {status})") from None
    if status < 400:
        return answer
    message = answer.get("error", f"status {status}") if isinstance(answer, dict) else status
    if status < 500:
        raise ConfigurationError(message)
    raise NotCarriedOut(message) if status == _NOT_CARRIED_OUT else LLBError(message)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float, waits: Callable[[], Iterator[float]]) -> None:
        super().__init__("llb", timeout=timeout)
        self._socket_path, self._limit, self._waits = path, timeout, waits

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        if not any(map(self._has_connected, self._waits())):
            raise TimeoutError
        self.sock.settimeout(self._limit)

    def answer_to(
        self, method: str, resource: str, body: str | None, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        """Return the answer once it begins."""
        self.request(method, resource, body, headers)
        answering = select.poll()
        answering.register(self.sock, select.POLLIN)
        if not any(answering.poll(seconds * 1000) for seconds in self._waits()):
            raise TimeoutError
        return self.getresponse()

    def _has_connected(self, seconds: float) -> bool:
        # With a time limit of Python's it would not wait for its turn where many ask at once.
        whole, rest = divmod(seconds, 1)
        limit = struct.pack("@ll", int(whole), int(rest * 1e6))
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        try:
            self.sock.connect(str(self._socket_path))
        except BlockingIOError:
            return False
        return True
