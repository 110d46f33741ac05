"""How much memory the C library keeps for the daemon; mallopt(3), malloc_trim(3).

Both calls are the GNU one's. Where there is another, it keeps what it will.
"""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def set_up() -> None:
    """Have the C library return what is freed to the kernel, but for 8 MiB.

    One heap for all threads, and large arrays outside it. What the filling of a table works with is
    inside: new pages for it took longer than the filling.
    """
    with suppress(AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_ARENA_MAX, 1)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 20)
        libc.mallopt(_M_TRIM_THRESHOLD, 8 << 20)


def give_back() -> None:
    """Give back what lies free between what is in use: the C library keeps that by itself, and
    comes to keep more than the daemon has in use. So does what refers to itself in a circle, until
    Python looks, which it does the less often the less is made: at all that is young, since what
    was in use the last time is not found by a look at the youngest alone."""
    gc.collect(1)
    with suppress(AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
