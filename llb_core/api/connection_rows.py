"""The form in which connections are shown: rows of JSON or of text, some thousands at a time. Pure.

A million rows are written within a second: see `text_columns`. For that rows of JSON are as long as
each other, too: between their values are blanks.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from llb_core.api.address_texts import Endpoints
from llb_core.api.text_columns import Bytes, Texts, beside, joined, numbers, padded, texts
from llb_core.datapath.connection_columns import Columns, order
from llb_core.datapath.layout import ConnectionState, Records

COLUMNS = (
    ("SERVICE", 16), ("CLIENT", 23), ("VIP", 21), ("SNAT", 21), ("BACKEND", 21), ("STATE", 11),
    ("AGE s", 9), ("IDLE s", 9), ("PACKETS IN", 10), ("OUT", 10), ("BYTES IN", 12), ("OUT", 12),
)  # fmt: skip
"""What each is called in text, and how wide it is at least."""

_ENDPOINTS = ("client", "vip", "snat", "backend")
_TIMES = ("age", "idle")
_NUMBERS = ("packets_in", "packets_out", "bytes_in", "bytes_out")
_WIDEST_IPV6 = 47
"""`[`, an address, `]:` and a port."""
_BLANK = ord(" ")
_A_PIECE = 8_192
"""Rows: what is known of so many fits into a CPU's cache. Within a piece they are equally long."""

_NAMES = {int(state): state.name.lower() for state in ConnectionState}
_STATES = [_NAMES.get(number, "") for number in range(max(_NAMES) + 1)]
_PROTOCOLS = ["tcp" if number == 6 else "udp" for number in range(256)]


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


class Rows:
    """Connections in order, at most `limit` of them, written a piece at a time. A row of text ends
    with a new line; one of JSON begins with a comma and a new line."""

    def __init__(
        self, parts: Sequence[Part], by: str, *, limit: int | None = None, as_json: bool = False
    ) -> None:
        self._order = order([(part.of, part.found) for part in parts], by)[:limit]
        firsts = np.cumsum([0, *(len(part.found) for part in parts)])
        widths = _widths(parts)
        self._writers = [
            (first, part.found, _Json(part) if as_json else _Text(part, widths))
            for first, part in zip(firsts, parts, strict=False)
        ]

    def __len__(self) -> int:
        """Return how many pieces there are."""
        return -(-len(self._order) // _A_PIECE)

    def __iter__(self) -> Iterator[memoryview]:
        """Write all pieces."""
        return map(self.piece, range(len(self)))

    def piece(self, number: int) -> memoryview:
        """Write the rows of one piece."""
        wanted = self._order[number * _A_PIECE : (number + 1) * _A_PIECE]
        written = []
        for first, found, writer in self._writers:
            places = np.flatnonzero((wanted >= first) & (wanted < first + len(found)))
            if len(places):
                own = np.take(found, wanted[places] - first)
                written.append((places, writer.rows(own)))
        return _merged(written, len(wanted)).data.cast("B")


def _merged(parts: Sequence[tuple[npt.NDArray[np.intp], Bytes]], count: int) -> Bytes:
    """Return all rows, each in its place; what ends a row stays at its end."""
    if len(parts) == 1:
        return parts[0][1]
    merged = np.full((count, max(rows.shape[1] for _, rows in parts)), _BLANK, dtype=np.uint8)
    for places, rows in parts:
        merged[places, : rows.shape[1] - 1] = rows[:, :-1]
        merged[places, -1] = rows[:, -1]
    return merged


class _Cells:
    """Writes what is known of one address family's connections, a column at a time; behind each
    text and each number stands a mark."""

    def __init__(self, part: Part, unknown: str, behind_text: str, behind_number: str) -> None:
        self._ticks_per_second = part.ticks_per_second
        self._endpoints = Endpoints(part.of)
        self._behind_text, self._behind_number = behind_text.encode(), behind_number.encode()
        self._last = max(part.services, default=-1) + 1
        services = [part.services.get(slot, unknown) for slot in range(self._last + 1)]
        self._services, self._states, self._protocols = (
            texts([f"{name}{behind_text}".encode() for name in names])
            for names in (services, _STATES, _PROTOCOLS)
        )
        self._tenths = texts([f".{tenth}{behind_number}".encode() for tenth in range(10)])

    def services(self, own: Columns) -> Texts:
        return self._services.take(np.minimum(own["service_slot"], self._last))

    def protocols(self, own: Columns) -> Texts:
        return self._protocols.take(own["proto"])

    def endpoints(self, own: Columns, name: str) -> Texts:
        return self._endpoints.texts(own[name], own[f"{name}_port"], self._behind_text)

    def states(self, own: Columns) -> Texts:
        return self._states.take(own["state"])

    def seconds(self, own: Columns, name: str) -> Texts:
        ten = np.uint64(10)
        tenths = own[name].astype(np.uint64) * ten // np.uint64(self._ticks_per_second)
        seconds = tenths // ten
        return joined(numbers(seconds), self._tenths.take(tenths - ten * seconds))

    def numbers(self, own: Columns, name: str) -> Texts:
        return numbers(own[name], self._behind_number)


class _Text:
    """Writes rows of text, in columns of these widths."""

    def __init__(self, part: Part, widths: Sequence[int]) -> None:
        self._cells = _Cells(part, '""', "", "")
        self._widths = widths

    def rows(self, own: Columns) -> Bytes:
        cells = self._cells
        columns = [
            cells.services(own),
            *(cells.endpoints(own, name) for name in _ENDPOINTS),
            cells.states(own),
            *(cells.seconds(own, name) for name in _TIMES),
            *(cells.numbers(own, name) for name in _NUMBERS),
        ]
        pieces: list[bytes | Texts] = []
        for column, width in zip(columns, self._widths, strict=True):
            pieces += [padded(column, width), b" "]
        return beside([*pieces[:-1], b"\n"], len(own))


class _Json:
    """Writes rows of JSON."""

    def __init__(self, part: Part) -> None:
        services = {slot: json.dumps(name)[1:-1] for slot, name in part.services.items()}
        self._cells = _Cells(replace(part, services=services), "", '",', ",")

    def rows(self, own: Columns) -> Bytes:
        cells = self._cells
        pieces: list[bytes | Texts] = [b',\n{"service": "', cells.services(own)]
        pieces += [b' "protocol": "', cells.protocols(own)]
        for name in _ENDPOINTS:
            pieces += [f' "{name}": "'.encode(), cells.endpoints(own, name)]
        pieces += [b' "state": "', cells.states(own)]
        for name in _TIMES:
            pieces += [f' "{name}": '.encode(), cells.seconds(own, name)]
        for name in _NUMBERS[:-1]:
            pieces += [f' "{name}": '.encode(), cells.numbers(own, name)]
        pieces += [f' "{_NUMBERS[-1]}": '.encode(), numbers(own[_NUMBERS[-1]])]
        return beside([*pieces, b"}"], len(own))


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
