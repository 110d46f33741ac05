"""Tell the init system how the daemon is (sd_notify(3)), where it wants to be told."""

from __future__ import annotations

import contextlib
import os
import socket


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
        notice.sendto(state.encode(), address)
