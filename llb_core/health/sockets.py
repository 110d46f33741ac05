"""Sockets that ask one backend after another.

To make a socket, to set it up and to close it costs as much as the handshake does. So it is kept:
connect(2) with AF_UNSPEC undoes its connection, by a reset where there is one, so that no port of
ours stays behind in TIME_WAIT, and it can connect anew, from another port. One that did not connect
is not kept: an ICMP error that says so over IPv4 stays in the socket's queue of errors, and every
later connection of its would be taken for failed.
"""

from __future__ import annotations

import ctypes
import socket
import struct

from llb_core.health.poller import Poller
from llb_core.health.source_ports import SourcePorts

_TYPE = socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
_KEPT = 128
"""Sockets of one address family that are kept while they have nobody to ask, at most."""
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)
_NOBODY = struct.pack("=H14x", socket.AF_UNSPEC)
"""A sockaddr."""
_connect = ctypes.CDLL(None).connect
_connect.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)

# SocketType is the socket module's own core, without the Python around it.


class Sockets:
    """Sockets that leave from some ports, and those of them that are idle."""

    def __init__(self, ports: SourcePorts, poller: Poller) -> None:
        self.poller = poller
        self._ports = ports
        # One that we bind ourselves keeps its port, which another may want meanwhile.
        self._kept = _KEPT if ports.chosen_by_kernel else 0
        self._idle: dict[int, list[socket.SocketType]] = {}

    def take(self, family: int) -> socket.SocketType:
        """Return a socket that isn't connected, which the poller knows. Raises OSError."""
        idle = self._idle.get(family)
        return idle.pop() if idle else self._make(family)

    def give_back(self, sock: socket.SocketType, family: int) -> None:
        """Undo the connection of one that has had one, and keep it or close it."""
        self.poller.forget(sock.fileno())
        self.poller.ask(_undo, sock, lambda code: self._keep(sock, family, is_undone=code == 0))

    def drop(self, sock: socket.SocketType) -> None:
        """Close one that did not connect."""
        self._close(sock)

    def close(self) -> None:
        """Keep none any more, nor those that are given back from now on."""
        self._kept = 0
        for idle in self._idle.values():
            for sock in idle:
                self._close(sock)
            idle.clear()

    def _make(self, family: int) -> socket.SocketType:
        sock = socket.SocketType(family, _TYPE)
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            # The handshake's last packet waits for what we say, or for our reset, which spares it.
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 1)
            self._ports.bind(sock)
            self.poller.add(sock.fileno())
        except OSError:
            sock.close()
            raise
        return sock

    def _keep(self, sock: socket.SocketType, family: int, *, is_undone: bool) -> None:
        idle = self._idle.setdefault(family, [])
        if is_undone and len(idle) < self._kept:
            idle.append(sock)
        else:
            self._close(sock)

    def _close(self, sock: socket.SocketType) -> None:
        self.poller.remove(sock.fileno())
        sock.close()


def _undo(sock: socket.SocketType) -> int:
    code: int = _connect(sock.fileno(), _NOBODY, len(_NOBODY))
    return code
