"""Say which connections are over. Pure: the clock and the records are arguments.

A connection is two records, one in the DNAT table and its twin in the SNAT table, each in the
layout of the maps (fields `state`, `seen`, `service`, `backend`). Times in them are kernel ticks
(`hz` of them a second) in 32 bits that wrap, and are compared by their signed difference. What is
not here: reading the tables, and claiming and deleting what is over.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.model import Timeouts
from llb_core.planning.states import (
    BACKEND_CLOSED_FIRST,
    BACKEND_FIN,
    CLIENT_FIN,
    STATE_MASK,
    ConnectionState,
)

_BOTH_FINS = CLIENT_FIN | BACKEND_FIN

# Columns of the table of limits: which of a service's timeouts a record is held to.
_OPENING, _ESTABLISHED, _CLOSING, _CLOSED, _UDP, _AT_ONCE = range(6)


def is_over(dnat: np.void, snat: np.void | None, now: int, hz: int, timeouts: Timeouts) -> bool:
    """Say whether a connection is over, by both its halves.

    It is over once neither half has seen a packet for the timeout of its state; the state is that
    of the half which has come further. `snat` is None where the twin is missing: a lone half
    never forwards, so it is over.
    """
    if snat is None:
        return True
    halves = np.array([_halved(dnat), _halved(snat)], dtype=np.uint32)
    state = int(np.bitwise_or.reduce(halves[:, 0] & ~np.uint32(STATE_MASK)))
    state |= int((halves[:, 0] & STATE_MASK).max())
    column = int(_columns(np.array([state], dtype=np.uint32))[0])
    idle = int(_idle(halves[:, 1], now).min())
    return idle >= int(_limits(timeouts, hz)[column])


def select_candidates(
    values: npt.NDArray[Any],
    now: int,
    hz: int,
    timeouts_by_service_slot: Mapping[int, Timeouts],
) -> npt.NDArray[np.bool_]:
    """Return a mask of the records of one table that may be over: ask `is_over` of the pair.

    Both halves carry the state and only `seen` differs, so no connection that is over is missed.
    A record whose service is not in the mapping is held to the default timeouts.
    """
    last = max(timeouts_by_service_slot, default=-1)
    limits = np.tile(_limits(Timeouts(), hz), (last + 2, 1))
    for slot, timeouts in timeouts_by_service_slot.items():
        limits[slot] = _limits(timeouts, hz)
    rows = np.minimum(values["service"], np.uint32(last + 1))
    result: npt.NDArray[np.bool_] = (
        _idle(values["seen"], now) >= limits[rows, _columns(values["state"])]
    )
    return result


def _halved(record: np.void) -> tuple[int, int]:
    return int(record["state"]), int(record["seen"])


def _limits(timeouts: Timeouts, hz: int) -> npt.NDArray[np.int64]:
    """Return the timeouts in ticks, by column; a claimed record is over at once."""
    seconds = (
        timeouts.opening,
        timeouts.established,
        timeouts.closing,
        timeouts.closed,
        timeouts.udp,
    )
    return np.array([*(math.ceil(each * hz) for each in seconds), 0], dtype=np.int64)


def _columns(states: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
    """Say which timeout each state is held to. A connection that only one side has closed is
    still established: the other may send for as long as it likes (RFC 9293, 3.6)."""
    kind = states & STATE_MASK
    has_both_fins = (states & _BOTH_FINS) == _BOTH_FINS
    columns = np.full(states.shape, _ESTABLISHED, dtype=np.intp)
    columns[kind == ConnectionState.OPENING] = _OPENING
    columns[
        ((kind == ConnectionState.ESTABLISHED) | (kind == ConnectionState.CLOSING)) & has_both_fins
    ] = _CLOSING
    is_closed = kind == ConnectionState.CLOSED
    columns[is_closed] = _CLOSING
    columns[is_closed & ((states & BACKEND_CLOSED_FIRST) != 0)] = _CLOSED
    columns[kind == ConnectionState.UDP] = _UDP
    columns[kind == ConnectionState.CLAIMED] = _AT_ONCE
    return columns


def _idle(seen: npt.NDArray[np.uint32], now: int) -> npt.NDArray[np.int64]:
    """Return ticks since `seen`; none where a packet came after `now` was read."""
    since = (np.uint32(now & 0xFFFFFFFF) - seen.astype(np.uint32)).astype(np.int32)
    return np.maximum(since, 0).astype(np.int64)
