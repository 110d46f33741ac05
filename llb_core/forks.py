"""Have a process that is forked from the daemon be none of it: a provider may fork.

Such a child would tell the daemon's event loop of the signals that it gets, so that a pool whose
workers are ended would end the daemon; and what it inherits would stay locked, bound and connected
as long as it lives, however the daemon went.
"""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _HasFileno(Protocol):
    def fileno(self) -> int:
        """Return the file descriptor, below 0 once it is closed."""


_kept: WeakSet[_HasFileno] = WeakSet()
_before = threading.local()


def keep_from_children(holder: _HasFileno) -> None:
    """Have no child hold what this holds: a lock, or a socket."""
    _kept.add(holder)


def _begin() -> None:
    """Hold signals back, lest one come to the child while it still has our handlers."""
    _before.mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _go_on() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _before.mask)


def _be_a_child() -> None:
    try:
        if _kept:
            _let_go()
    finally:
        _go_on()


def _let_go() -> None:
    signal.set_wakeup_fd(-1)
    for number in _SIGNALS:
        if callable(signal.getsignal(number)):
            signal.signal(number, signal.SIG_DFL)
    # Their numbers stay taken: a child that closes one later closes nothing else by it.
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for each in tuple(_kept):
        with suppress(OSError, ValueError):  # It is closed.
            os.dup2(nothing, each.fileno(), inheritable=False)
    os.close(nothing)


os.register_at_fork(before=_begin, after_in_parent=_go_on, after_in_child=_be_a_child)
