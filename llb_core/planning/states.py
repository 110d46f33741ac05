"""The state of a connection, as both its halves hold it: `enum ct_state` in bpf/types.h. Pure."""

from __future__ import annotations

import enum


class ConnectionState(enum.IntEnum):
    """The low byte of an entry's `state`."""

    OPENING = 1
    ESTABLISHED = 2
    """Also half closed: one FIN seen."""
    CLOSING = 3
    """Both FINs seen."""
    CLOSED = 4
    UDP = 5
    CLAIMED = 255
    """Somebody is deleting it: it counts as absent."""


STATE_MASK = 0xFF
ANSWERED = 0x100
CLIENT_FIN = 0x200
BACKEND_FIN = 0x400
BACKEND_CLOSED_FIRST = 0x800
RESET = 0x1000
ASSURED = 0x2000
"""The client has shown that it hears the backend; until then room may be made of it."""
