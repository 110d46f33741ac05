"""Give up the capabilities that are needed no more, and core dumps; capabilities(7).

Linux keeps them for each thread: whoever calls this does so in every thread that there is, before
more are started, which inherit what is left. What is executed later gets no more, either.
"""

from __future__ import annotations

import ctypes
import enum
import os
from collections.abc import Iterable
from pathlib import Path

from llb_core.errors import HostError


class Capability(enum.IntEnum):
    """By their numbers in linux/capability.h."""

    NET_ADMIN = 12
    NET_RAW = 13
    SYS_ADMIN = 21
    LEASE = 28
    PERFMON = 38
    BPF = 39


NEEDED = frozenset(Capability) - {Capability.SYS_ADMIN}
"""What the daemon needs once it has started: to write maps and run programs (BPF, and PERFMON, as
the kernel wants it for programs that it must not slow down), to attach programs and to set
addresses (NET_ADMIN), to send resets for connections and announcements to neighbours (NET_RAW), and
to see whether somebody is writing a provider's file, whoever owns it (LEASE)."""

TO_COMPILE = frozenset(Capability) - {Capability.NET_RAW, Capability.LEASE}
"""What it takes to compile and load: bcc opens pinned maps by their ids (SYS_ADMIN)."""

_PR_SET_DUMPABLE = 4
_PR_CAPBSET_READ, _PR_CAPBSET_DROP = 23, 24
_PR_SET_NO_NEW_PRIVS = 38
_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def keep_only(wanted: Iterable[Capability] = NEEDED) -> None:
    """Give up all others in the calling thread, for good; HostError where the kernel refuses.

    What the thread does not have it does not get.
    """
    kept = {int(each) for each in wanted}
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    # The bounding set first: to drop from it takes CAP_SETPCAP, which is given up below. Where that
    # is missing, no_new_privs alone keeps what is executed from getting more.
    for number in range(last + 1):
        if number not in kept and _libc.prctl(_PR_CAPBSET_READ, number, 0, 0, 0) == 1:
            _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    _check(_libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0))
    header, data = _Header(_VERSION_3, 0), (_Data * 2)()
    _check(_libc.capget(ctypes.byref(header), data))
    for place in range(2):
        mask = sum(1 << (number - 32 * place) for number in kept if number // 32 == place)
        data[place].effective &= mask
        data[place].permitted &= mask
        data[place].inheritable = 0
    _check(_libc.capset(ctypes.byref(header), data))
    _check(_libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def leave_no_core() -> None:
    """Have the kernel write no core dump of this process, which would have providers' secrets."""
    _check(_libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0))


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise HostError(f"capabilities and core dumps can't be given up: {os.strerror(number)}")
