"""The connection that one thread uses and another may cut.

A read of a socket can't be interrupted from Python, and a time limit of `requests` counts from one
byte to the next, so that a server that trickles could hold us for ever. Cutting the connection
ends whatever waits on it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection


class Line:
    """One client's connection. `within` and `hold` are for the thread that uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._turn = 0
        self._is_cut = False
        self.is_late = False
        """Whether the last `within` ended by its limit."""

    def hold(self, connected: socket.socket | None) -> None:
        """Take the connection that has just been made."""
        with self._lock:
            self._socket = connected
            if self._is_cut or self.is_late:
                self._shut()

    def cut(self) -> None:
        """End what is under way, and whatever comes."""
        with self._lock:
            self._is_cut = True
            self._shut()

    @contextlib.contextmanager
    def within(self, seconds: float) -> Iterator[None]:
        """Cut the connection if what is done here takes longer."""
        with self._lock:
            self._turn += 1
            self.is_late = False
            watch = threading.Timer(seconds, self._expire, (self._turn,))
        watch.daemon = True
        watch.start()
        try:
            yield
        finally:
            watch.cancel()
            with self._lock:
                self._turn += 1

    def _expire(self, turn: int) -> None:
        with self._lock:
            if turn == self._turn:
                self.is_late = True
                self._shut()

    def _shut(self) -> None:
        if self._socket is not None:
            # Not TLS's own shutdown, which changes what the reading thread is using.
            with contextlib.suppress(OSError):
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class LineAdapter(HTTPAdapter):
    """Makes connections that a line holds. `server_name` is the name in the server's certificate,
    where it is not the URL's."""

    def __init__(self, line: Line, server_name: str | None) -> None:
        self._line = line
        self._server_name = server_name
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Have the pools make our connections."""
        if self._server_name is not None:
            kwargs.update(server_hostname=self._server_name, assert_hostname=self._server_name)
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _pools(self._line)


def open_session(line: Line, server_name: str | None = None) -> requests.Session:
    """Return a session whose connections `line` holds.

    The environment has no say in it: neither a proxy nor a .netrc of whoever starts the daemon is
    meant for Consul.
    """
    session = requests.Session()
    session.trust_env = False
    for scheme in ("http://", "https://"):
        session.mount(scheme, LineAdapter(line, server_name))
    return session


def _pools(line: Line) -> dict[str, type[HTTPConnectionPool]]:
    class HeldConnection(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            line.hold(self.sock)

    class HeldSecureConnection(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            line.hold(self.sock)

    class HeldPool(HTTPConnectionPool):
        ConnectionCls = HeldConnection

    class HeldSecurePool(HTTPSConnectionPool):
        ConnectionCls = HeldSecureConnection

    return {"http": HeldPool, "https": HeldSecurePool}
