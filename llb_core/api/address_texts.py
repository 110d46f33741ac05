"""Columns of addresses and ports as they are written: `198.51.100.7:40000`, `[2001:db8::7]:443`.

Pure. Addresses of IPv6 as in RFC 5952: in small letters, no zeros before a group's first digit, and
`::` for the longest run of at least two zero groups, the first of those that are equally long.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.api.text_columns import Texts, joined, numbers, texts
from llb_core.datapath.layout import Records

Column = npt.NDArray[np.generic]

_VALUES = 1 << 16
"""Of two bytes: a port, half an address of IPv4, a group of IPv6."""
_GROUPS = 8
_HALVES = np.dtype([("first", "u8"), ("last", "u8")])
_LONGEST, _WORDS = 40, 5
"""Bytes of a bracket and an address of IPv6, and words that hold them."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
_PLACES, _SHIFT = 1 << 16, np.uint64(64 - 16)


class Endpoints:
    """Writes endpoints of one address family, and remembers addresses of IPv6 that it wrote: many
    connections have few addresses, and to write one anew takes ten times as long."""

    def __init__(self, of: Records) -> None:
        self._family = of.family
        if self._family == 6:
            self._addresses = np.zeros(_PLACES, dtype=_HALVES)
            self._known = _each_ipv6(self._addresses[:1]).take(np.zeros(_PLACES, dtype=np.intp))

    def texts(self, addresses: Column, ports: Column, after: bytes = b"") -> Texts:
        """Write endpoints, and behind each of them the same few bytes; addresses as the family's
        records hold them, ports in network order."""
        if self._family == 4:
            return joined(_ipv4(addresses), _ports(b":", after).take(ports))
        return joined(self._ipv6(addresses), _ports(b"]:", after).take(ports)).fitted()

    def _ipv6(self, addresses: Column) -> Texts:
        wanted: npt.NDArray[Any] = np.ascontiguousarray(addresses).view(_HALVES).ravel()
        mixed = (wanted["first"] * _MIX ^ wanted["last"]) * _MIX
        places = (mixed >> _SHIFT).astype(np.intp)
        others = self._others(places, wanted)
        if len(others):
            # Of several new ones in a place the last stays.
            self._addresses[places[others]] = wanted[others]
            new = np.unique(places[others])
            self._known.put(new, _each_ipv6(self._addresses[new]))
            others = self._others(places, wanted)
        found = self._known.take(places)
        if len(others):
            found.put(others, _each_ipv6(wanted[others]))
        return found.fitted()

    def _others(
        self, places: npt.NDArray[np.intp], wanted: npt.NDArray[Any]
    ) -> npt.NDArray[np.intp]:
        """Return the rows whose places other addresses have."""
        known = self._addresses.take(places)
        return np.flatnonzero(
            (known["first"] != wanted["first"]) | (known["last"] != wanted["last"])
        )


def _ipv4(addresses: Column) -> Texts:
    halves = np.ascontiguousarray(addresses).view(">u2").reshape(-1, 2)
    first, second = _dotted_pairs()
    return joined(first.take(halves[:, 0]), second.take(halves[:, 1]))


def _each_ipv6(addresses: Column) -> Texts:
    """Write a bracket and an address."""
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
    whole = joined(texts([b"["]), *parts)
    return Texts(whole.words[:_WORDS], whole.bits, _LONGEST)


@cache
def _ports(before: bytes, after: bytes) -> Texts:
    return joined(texts([before]), numbers(np.arange(_VALUES), after))


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
