"""Columns of addresses and ports as they are written: `198.51.100.7:40000`, `[2001:db8::7]:443`.

Pure. Addresses of IPv6 as in RFC 5952: in small letters, no zeros before a group's first digit, and
`::` for the longest run of at least two zero groups, the first of those that are equally long.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from llb_core.api.text_columns import Texts, joined, numbers, texts
from llb_core.datapath.layout import Records

Column = npt.NDArray[np.generic]

_VALUES = 1 << 16
"""Of two bytes: a port, half an address of IPv4, a group of IPv6."""
_GROUPS = 8
_LONGEST_IPV6 = 39
_MIX = np.uint64(0x9E3779B97F4A7C15)
_PLACES, _SHIFT = 1 << 14, np.uint64(64 - 14)


def endpoint_texts(of: Records, addresses: Column, ports: Column) -> Texts:
    """Write endpoints; addresses as the family's records hold them, ports in network order."""
    if of.family == 4:
        return joined(_ipv4(addresses), _ports(":").take(ports))
    return joined(texts([b"["]), _ipv6(addresses), _ports("]:").take(ports))


def _ipv4(addresses: Column) -> Texts:
    halves = np.ascontiguousarray(addresses).view(">u2").reshape(-1, 2)
    first, second = _dotted_pairs()
    return joined(first.take(halves[:, 0]), second.take(halves[:, 1]))


def _ipv6(addresses: Column) -> Texts:
    rows, places = _distinct(np.ascontiguousarray(addresses))
    if len(rows) < len(places) // 2:
        return _each_ipv6(addresses[rows]).take(places)
    return _each_ipv6(addresses)


def _distinct(addresses: Column) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return rows in which every address stands, perhaps more than once, and where among these
    each row finds its own. Two addresses in one place only cost the time of another row."""
    halves = addresses.view(np.uint64).reshape(-1, 2)
    mixed = (halves[:, 0] * _MIX ^ halves[:, 1]) * _MIX
    places = (mixed >> _SHIFT).astype(np.intp)
    first = np.zeros(_PLACES, dtype=np.intp)
    every = np.arange(len(places))
    first[places] = every
    others = halves[first[places]]
    is_same = (others[:, 0] == halves[:, 0]) & (others[:, 1] == halves[:, 1])
    first_of_each = np.where(is_same, first[places], every)
    is_first = first_of_each == every
    rows = np.flatnonzero(is_first)
    return rows, (np.cumsum(is_first) - 1)[first_of_each]


def _each_ipv6(addresses: Column) -> Texts:
    groups = np.ascontiguousarray(addresses).view(">u2").reshape(-1, _GROUPS).T
    zeros = np.zeros(groups.shape[1], dtype=np.intp)
    for place, group in enumerate(groups):
        zeros |= (group == 0).astype(np.intp) << place
    begins, is_shown = _ways_to_write()
    parts = [
        _group_texts().take(begins[place][zeros] + group * is_shown[place][zeros])
        for place, group in enumerate(groups)
    ]
    while len(parts) > 1:
        parts = [joined(*pair) for pair in zip(parts[::2], parts[1::2], strict=True)]
    (whole,) = parts
    return Texts(whole.words, whole.bits, _LONGEST_IPV6)


@cache
def _ports(before: str) -> Texts:
    return joined(texts([before.encode()]), numbers(np.arange(_VALUES)))


@cache
def _dotted_pairs() -> tuple[Texts, Texts]:
    """Return `198.51` and `.100.7`, for each value of two bytes."""
    octets, dot, value = numbers(np.arange(256)), texts([b"."]), np.arange(_VALUES)
    pairs = joined(octets.take(value >> 8), dot, octets.take(value & 0xFF))
    return pairs, joined(dot, pairs)


@cache
def _group_texts() -> Texts:
    """Return `7`, for each group, then `:7`, then nothing, then `::`."""
    groups = [b"%x" % value for value in range(_VALUES)]
    return texts([*groups, *(b":" + group for group in groups), b"", b"::"])


_PLAIN, _BEHIND_COLON, _NOTHING, _RUN = 0, _VALUES, 2 * _VALUES, 2 * _VALUES + 1


@cache
def _ways_to_write() -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return for each of the eight groups, and for which of them are zero (256 ways): where its
    texts begin, and whether it is shown itself."""
    begins = np.zeros((_GROUPS, 1 << _GROUPS), dtype=np.intp)
    is_shown = np.ones_like(begins)
    for zeros in range(1 << _GROUPS):
        run = _longest_run(zeros)
        for place in range(_GROUPS):
            if place in run:
                is_shown[place, zeros] = 0
                begins[place, zeros] = _RUN if place == run.start else _NOTHING
            elif place == 0 or place == run.stop > run.start:
                begins[place, zeros] = _PLAIN
            else:
                begins[place, zeros] = _BEHIND_COLON
    return begins, is_shown


def _longest_run(zeros: int) -> range:
    """Return the groups that `::` stands for."""
    runs = [
        range(start, stop)
        for start in range(_GROUPS)
        for stop in range(start + 2, _GROUPS + 1)
        if all(zeros >> place & 1 for place in range(start, stop))
    ]
    return max(runs, key=len, default=range(0))
