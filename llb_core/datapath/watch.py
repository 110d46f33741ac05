"""Hear from the kernel that something about the network has changed: rtnetlink(7). Read only.

What changed is not worked out here: whoever hears of it looks at how things are.
"""

from __future__ import annotations

import enum
import errno
import socket
from typing import Self

from llb_core.datapath import rtnetlink

_SOL_NETLINK, _ADD_MEMBERSHIP = 270, 1
# enum rtnetlink_groups: links, qdiscs and filters, addresses, routes, rules and the sysctls of
# forwarding (netconf), each of IPv4 and IPv6 where there are two.
_GROUPS = (1, 4, 5, 7, 8, 9, 11, 19, 24, 25)
_ROUTE_TYPES = {24, 25, 32, 33}
"""RTM_NEWROUTE, RTM_DELROUTE, RTM_NEWRULE, RTM_DELRULE."""
_BUFFER = 1 << 20


class Change(enum.Flag):
    """What may be another than it was."""

    NOTHING = 0
    HOST = enum.auto()
    """Links, addresses, qdiscs, filters, forwarding."""
    ROUTES = enum.auto()
    """Routes and rules, and what they hang on."""


class NetworkWatch:
    """A socket that becomes readable as soon as something changes. In the network namespace of the
    thread that makes it."""

    def __init__(self) -> None:
        self._socket = socket.socket(
            socket.AF_NETLINK,
            socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC,
            socket.NETLINK_ROUTE,
        )
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.bind((0, 0))
        for group in _GROUPS:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Return the file descriptor to wait on."""
        return self._socket.fileno()

    def read(self) -> Change:
        """Return what may have changed since it was last read; at once."""
        changed = Change.NOTHING
        while True:
            try:
                text = self._socket.recv(65_536)
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                changed = Change.HOST | Change.ROUTES  # More than fits: all may have changed.
                continue
            for kind, _, _ in rtnetlink.messages(text):
                changed |= Change.ROUTES if kind in _ROUTE_TYPES else Change.HOST | Change.ROUTES
