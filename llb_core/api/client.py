"""The command line's end of the control socket. Blocking, and quick to import."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from pathlib import Path
from typing import Any

from llb_core.errors import ConfigurationError, DaemonUnreachable, LLBError


class Client:
    """Ask the daemon behind a control socket; DaemonUnreachable where none answers."""

    def __init__(self, path: Path, *, timeout: float = 30.0) -> None:
        self._path = path
        self._timeout = timeout

    def get(self, resource: str) -> Any:
        """Return what the daemon says."""
        return self._ask("GET", resource)

    def post(self, resource: str, **arguments: object) -> Any:
        """Have the daemon do something, and return what it says once it is done."""
        return self._ask("POST", resource, json.dumps(arguments))

    def _ask(self, method: str, resource: str, body: str | None = None) -> Any:
        connection = _UnixConnection(self._path, self._timeout)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        with contextlib.closing(connection):
            try:
                connection.request(method, resource, body, headers)
                response = connection.getresponse()
                text = response.read()
            except PermissionError:
                raise DaemonUnreachable(
                    f"{self._path}: you may not ask the daemon: run as root"
                ) from None
            except TimeoutError:
                raise DaemonUnreachable(
                    f"{self._path}: the daemon did not answer within {self._timeout:g} s"
                ) from None
            except (OSError, http.client.HTTPException):
                raise DaemonUnreachable(
                    f"{self._path}: no daemon answers: start one with llb run"
                ) from None
        return _unwrap(response.status, text)


def _unwrap(status: int, text: bytes) -> Any:
    try:
        answer = json.loads(text)
    except ValueError:
        raise LLBError(f"the daemon answers what is no JSON (status {status})") from None
    if status < 400:
        return answer
    message = answer.get("error", f"status {status}") if isinstance(answer, dict) else status
    raise ConfigurationError(message) if status < 500 else LLBError(message)


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("llb", timeout=timeout)
        self._socket_path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._socket_path))
