"""Tell the init system how the daemon is (sd_notify(3), sd_watchdog_enabled(3)), where it wants to
be told.
"""

from __future__ import annotations

import contextlib
import os
import socket

PATIENCE = 1.0
"""Seconds to wait for an init system that takes no message."""


def tell(state: str) -> None:
    """Send a state such as `READY=1`; nothing happens without NOTIFY_SOCKET."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]  # An abstract socket.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notice,
    ):
        notice.settimeout(PATIENCE)
        notice.sendto(state.encode(), address)


def watchdog_seconds() -> float | None:
    """Return within what time the init system wants to hear `WATCHDOG=1` each time, None where it
    does not, or wants it of another process."""
    text, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not text.isdecimal() or int(text) == 0 or pid not in ("", str(os.getpid())):
        return None
    return int(text) / 1e6
