"""Which connections of another layout's tables are to be taken over: those not known yet. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from llb_core.datapath import layout


def missing(keys: Any, values: Any, chunks: Iterable[tuple[Any, Any]]) -> Any:
    """Say of each half whether a table, of which `chunks` are keys and records, lacks it, or knows
    less of it."""
    wanted = np.ones(len(keys), dtype=bool)
    hashes = _whole_hashes(keys)
    order = np.argsort(hashes)
    for found, now in chunks:
        known = _whole_hashes(found)
        places = order[np.searchsorted(hashes, known, sorter=order).clip(max=len(keys) - 1)]
        is_same = hashes[places] == known
        places = places[is_same]
        wanted[places] = _is_later(values[places], now[is_same])
    return wanted


def _is_later(values: Any, now: Any) -> Any:
    """Say of which halves another layout's map knows more: of a later connection by the same key,
    or of one that had got further than opening."""
    age = (values["opened"] - now["opened"]).astype(np.int32)
    was, are = now["state"], values["state"]
    is_further = (are & layout.STATE_MASK != layout.ConnectionState.OPENING) | (
        (are & layout.ANSWERED != 0) & (was & layout.ANSWERED == 0)
    )
    is_opening = was & layout.STATE_MASK == layout.ConnectionState.OPENING
    return (age > 0) | ((age == 0) & is_opening & is_further)


def _whole_hashes(keys: Any) -> Any:
    """Mix each key into 64 bits: that two of a million agree is a chance of one in ten million."""
    words = np.ascontiguousarray(keys).view(np.uint64).reshape(len(keys), -1)
    mixed = np.zeros(len(keys), dtype=np.uint64)
    for column in words.T:
        mixed = (mixed ^ column) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed
