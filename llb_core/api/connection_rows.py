"""The form in which connections are shown: rows of JSON or of text, a chunk at a time. Pure.

A million rows are written within a second: see `text_columns`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.api.address_texts import endpoint_texts
from llb_core.api.text_columns import Bytes, Texts, beside, joined, numbers, padded, texts
from llb_core.datapath.connection_columns import Columns, order
from llb_core.datapath.layout import ConnectionState, Records

COLUMNS = (
    ("SERVICE", 16), ("CLIENT", 23), ("VIP", 21), ("SNAT", 21), ("BACKEND", 21), ("STATE", 11),
    ("AGE s", 9), ("IDLE s", 9), ("PACKETS IN", 10), ("OUT", 10), ("BYTES IN", 12), ("OUT", 12),
)  # fmt: skip
"""What each is called in text, and how wide it is at least."""

_ENDPOINTS = ("client", "vip", "snat", "backend")
_NUMBERS = ("packets_in", "packets_out", "bytes_in", "bytes_out")
_WIDEST_IPV6 = 47
"""`[`, an address, `]:` and a port."""
_BLANK = ord(" ")

_NAMES = {int(state): state.name.lower().encode() for state in ConnectionState}
_STATES = texts([_NAMES.get(number, b"") for number in range(max(_NAMES) + 1)])
_PROTOCOLS = texts([b"tcp" if number == 6 else b"udp" for number in range(256)])
_TENTHS = texts([b".%d" % tenth for tenth in range(10)])


@dataclass(frozen=True, slots=True)
class Part:
    """The connections of one address family, and the names of its services by slot."""

    of: Records
    found: Columns
    services: Mapping[int, str]
    ticks_per_second: int


def header(parts: Sequence[Part]) -> bytes:
    """Return the line above the rows of text."""
    named = zip(COLUMNS, _widths(parts), strict=True)
    return " ".join(f"{name:<{width}}" for (name, _), width in named).rstrip().encode() + b"\n"


def rows(
    parts: Sequence[Part], by: str, *, limit: int | None = None, as_json: bool = False
) -> Iterator[bytes]:
    """Yield the connections in order, a chunk at a time; at most `limit` of them. A row of text
    ends with a new line; one of JSON begins with a comma and a new line."""
    widths = None if as_json else _widths(parts)
    firsts = np.cumsum([0, *(len(part.found) for part in parts)])
    left = limit
    for chunk in order([(part.of, part.found) for part in parts], by):
        wanted = chunk if left is None else chunk[:left]
        written = []
        for first, part in zip(firsts, parts, strict=False):
            places = np.flatnonzero((wanted >= first) & (wanted < first + len(part.found)))
            if len(places):
                own = np.take(part.found, wanted[places] - first)
                cells = _as_json(part, own) if widths is None else _as_text(part, own, widths)
                written.append((places, cells))
        whole = _merged(written, len(wanted)).tobytes()
        # Zero bytes are what a text didn't fill, and what is behind a row that is shorter.
        yield whole.translate(None, b"\0") if as_json or len(written) > 1 else whole
        if left is not None:
            left -= len(wanted)
            if left <= 0:
                return


def _merged(parts: Sequence[tuple[npt.NDArray[np.intp], Bytes]], count: int) -> Bytes:
    """Return all rows, each in its place."""
    if len(parts) == 1:
        return parts[0][1]
    merged = np.zeros((count, max(rows.shape[1] for _, rows in parts)), dtype=np.uint8)
    for places, rows in parts:
        merged[places, : rows.shape[1]] = rows
    return merged


def _as_json(part: Part, own: Columns) -> Bytes:
    services = {slot: json.dumps(name).encode() for slot, name in part.services.items()}
    pieces: list[bytes | Texts] = [b',\n{"service": ', _services(own, services, b'""')]
    pieces += [b', "protocol": "', _PROTOCOLS.take(own["proto"])]
    for name in _ENDPOINTS:
        pieces += [f'", "{name}": "'.encode(), _endpoints(part.of, own, name)]
    pieces += [b'", "state": "', _STATES.take(own["state"]), b'"']
    for name in ("age", "idle"):
        pieces += [f', "{name}": '.encode(), _seconds(own[name], part.ticks_per_second)]
    for name in _NUMBERS:
        pieces += [f', "{name}": '.encode(), numbers(own[name])]
    return beside([*pieces, b"}"], len(own))


def _as_text(part: Part, own: Columns, widths: Sequence[int]) -> Bytes:
    services = {slot: name.encode() for slot, name in part.services.items()}
    cells = [
        _services(own, services, b'""'),
        *(_endpoints(part.of, own, name) for name in _ENDPOINTS),
        _STATES.take(own["state"]),
        *(_seconds(own[name], part.ticks_per_second) for name in ("age", "idle")),
        *(numbers(own[name]) for name in _NUMBERS),
    ]
    pieces: list[bytes | Texts] = []
    for cell, width in zip(cells, widths, strict=True):
        pieces += [padded(cell, width), b" "]
    rows = beside(pieces, len(own))
    np.maximum(rows, _BLANK, out=rows)
    rows[:, -1] = ord("\n")
    return rows


def _widths(parts: Sequence[Part]) -> list[int]:
    """Return how wide each column of text is: the same in every row, but where a number is too
    long for it."""
    longest = max(
        (len(name.encode()) for each in parts for name in each.services.values()), default=0
    )
    endpoint = _WIDEST_IPV6 if any(len(e.found) for e in parts if e.of.family == 6) else 0
    service, *others = (width for _, width in COLUMNS)
    wide = [max(service, longest)]
    wide += [max(width, endpoint) for width in others[: len(_ENDPOINTS)]]
    return [*wide, *others[len(_ENDPOINTS) :]]


def _endpoints(of: Records, own: Columns, name: str) -> Texts:
    return endpoint_texts(of, own[name], own[f"{name}_port"])


def _services(own: Columns, names: Mapping[int, bytes], unknown: bytes) -> Texts:
    slots = own["service_slot"]
    last = max(names, default=-1)
    known = texts([*(names.get(slot, unknown) for slot in range(last + 1)), unknown])
    return known.take(np.minimum(slots, last + 1))


def _seconds(ticks: npt.NDArray[Any], ticks_per_second: int) -> Texts:
    tenths = ticks.astype(np.uint64) * np.uint64(10) // np.uint64(ticks_per_second)
    seconds = tenths // np.uint64(10)
    return joined(numbers(seconds), _TENTHS.take(tenths - np.uint64(10) * seconds))
