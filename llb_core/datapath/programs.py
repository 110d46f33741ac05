"""The programs that user space runs by BPF_PROG_TEST_RUN: the collector and the clock."""

from __future__ import annotations

import os
import struct
import time
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.datapath import bpf_syscall as sys
from llb_core.datapath.layout import MAX_COLLECT, MAX_END, records
from llb_core.errors import HostError

_ETHERNET = bytes(12) + b"\x08\x00"
_REMOVED = 1
_SCHED_CLS = 3
"""`enum bpf_prog_type`: the classifier's kind."""
_CLOCKS_ROOM = 46
"""The kernel refuses frames shorter than an IP header; two clocks need 16 bytes."""
_APART = 0.06
"""Seconds between two readings of the clocks: enough to tell 250 ticks a second from 300."""
_ATTEMPTS = 8
KNOWN_HZ = (100, 250, 300, 1000)


def run_collector(fd: int, keys: np.ndarray[Any, np.dtype[Any]], family: int = 4) -> int:
    """Hand keys to the collector, which judges, claims and removes; return how many it removed."""
    return int(removed_by_collector(fd, keys, family).sum())


def removed_by_collector(
    fd: int, keys: np.ndarray[Any, np.dtype[Any]], family: int
) -> npt.NDArray[np.bool_]:
    """Hand keys to the collector; return which of them it removed."""
    record = records(family).flow_key
    removed = np.zeros(len(keys), dtype=bool)
    for start in range(0, len(keys), MAX_COLLECT):
        part = np.ascontiguousarray(keys[start : start + MAX_COLLECT], dtype=record)
        run = sys.prog_test_run(fd, _ETHERNET + part.tobytes().ljust(_CLOCKS_ROOM, b"\0"))
        answers = np.frombuffer(run.data, dtype=record, count=len(part), offset=len(_ETHERNET))
        removed[start : start + len(part)] = answers["pad"][:, 0] == _REMOVED
    return removed


def run_end(
    fd: int, keys: np.ndarray[Any, np.dtype[Any]], family: int, *, only_over: bool
) -> np.ndarray[Any, np.dtype[Any]]:
    """Have connections claimed and removed, by their DNAT keys; with only_over those that are over.

    Return the records (`layout.Records.ended`) of those that were: both halves as they were when
    they were claimed, with nothing forwarded by them since.
    """
    record = records(family).ended
    requests = np.zeros(len(keys), dtype=record)
    requests["key"] = keys
    requests["key"]["pad"] = 0
    asked, answered = requests.tobytes(), bytearray()
    header, portion = bytes([only_over]) + _ETHERNET[1:], MAX_END * record.itemsize
    for start in range(0, len(asked), portion):
        text = header + asked[start : start + portion]
        answered += sys.prog_test_run(fd, text).data[len(header) : len(text)]
    answers: Any = np.frombuffer(answered, dtype=record)
    ended: np.ndarray[Any, np.dtype[Any]] = answers[answers["key"]["pad"][:, 0] == _REMOVED]
    return ended


def run_correction(fd: int, corrections: np.ndarray[Any, np.dtype[Any]]) -> None:
    """Add to counts of connections what they are short of."""
    for start in range(0, len(corrections), MAX_COLLECT):
        part = np.ascontiguousarray(corrections[start : start + MAX_COLLECT])
        sys.prog_test_run(fd, _ETHERNET + part.tobytes().ljust(_CLOCKS_ROOM, b"\0"))


def read_ticks(fd: int) -> int:
    """Return the kernel's clock in ticks, in 32 bits, as the classifier notes it."""
    return _read_clocks(fd)[0] & 0xFFFFFFFF


def measure_ticks_per_second(fd: int) -> int:
    """Return how many ticks the kernel counts a second (its HZ).

    Both clocks are read by one run of the program, so the count is wrong by less than a tick,
    however long a busy machine takes from one reading to the next. A virtual machine that was given
    no time counts ticks late, so it is measured again, for longer each time, until it comes out.
    """
    measured = 0.0
    for attempt in range(_ATTEMPTS):
        first, began = _read_clocks(fd)
        time.sleep(_APART * (1 + attempt))
        last, ended = _read_clocks(fd)
        seconds = (ended - began) / 1e9
        measured = (last - first) / seconds
        nearest = min(KNOWN_HZ, key=lambda hz: abs(hz - measured))
        if abs(nearest - measured) <= 1.1 / seconds:
            return nearest
    raise HostError(f"the kernel's tick rate can't be told: {measured:.0f} a second")


def _read_clocks(fd: int) -> tuple[int, int]:
    run = sys.prog_test_run(fd, _ETHERNET + bytes(_CLOCKS_ROOM))
    jiffies, nanoseconds = struct.unpack_from("=QQ", run.data, len(_ETHERNET))
    return jiffies, nanoseconds


def ticks_now() -> int:
    """Return the kernel's clock in ticks, in 32 bits, also where no classifier is loaded.

    A program of two instructions: call bpf_jiffies64, and return the lower half of what it says.
    """
    call, leave = struct.pack("=BBhi", 0x85, 0, 0, 118), struct.pack("=BBhi", 0x95, 0, 0, 0)
    fd = sys.prog_load(_SCHED_CLS, call + leave)
    try:
        return sys.prog_test_run(fd, _ETHERNET + bytes(_CLOCKS_ROOM)).retval & 0xFFFFFFFF
    finally:
        os.close(fd)
