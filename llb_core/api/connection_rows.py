"""The form in which connections are shown: rows of JSON or of text, a chunk at a time. Pure.

A million rows are written within two seconds, so nothing is done for one row alone: each column
becomes bytes of a fixed width, the columns lie side by side as one record, and what is left of
their widths is taken out (JSON) or becomes blanks (text).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.datapath.connection_columns import Columns, order
from llb_core.datapath.layout import ConnectionState, Records

Texts = npt.NDArray[np.bytes_]

COLUMNS = (
    ("SERVICE", 16), ("CLIENT", 23), ("VIP", 21), ("SNAT", 21), ("BACKEND", 21), ("STATE", 11),
    ("AGE s", 9), ("IDLE s", 9), ("PACKETS IN", 10), ("OUT", 10), ("BYTES IN", 12), ("OUT", 12),
)  # fmt: skip
HEADER = " ".join(f"{name:<{width}}" for name, width in COLUMNS).rstrip()

_SMALL = np.arange(65_536).astype("S5")
_OCTETS = _SMALL[:256].astype("S3")
_STATES = np.array([b""] * 256, dtype="S11")
for _state in ConnectionState:
    _STATES[_state] = _state.name.lower().encode()


@dataclass(frozen=True, slots=True)
class Part:
    """The connections of one address family, and the names of its services by slot."""

    of: Records
    found: Columns
    services: Mapping[int, str]
    ticks_per_second: int


def rows(
    parts: Sequence[Part],
    by: str,
    *,
    limit: int | None = None,
    as_json: bool = False,
) -> Iterator[list[bytes]]:
    """Yield the connections in order, a chunk of lines at a time; at most `limit` of them."""
    write = _as_json if as_json else _as_text
    firsts = np.cumsum([0, *(len(part.found) for part in parts)])
    left = limit
    for chunk in order([(part.of, part.found) for part in parts], by):
        wanted = chunk if left is None else chunk[:left]
        lines: list[bytes] = [b""] * len(wanted)
        for first, part in zip(firsts, parts, strict=False):
            places = np.flatnonzero((wanted >= first) & (wanted < first + len(part.found)))
            if not len(places):
                continue
            own = write(part, part.found[wanted[places] - first]).splitlines()
            if len(own) == len(lines):
                lines = own
                break
            for place, line in zip(places.tolist(), own, strict=True):
                lines[place] = line
        yield lines
        if left is not None:
            left -= len(wanted)
            if left <= 0:
                return


def _as_json(part: Part, own: Columns) -> bytes:
    services = {slot: json.dumps(name).encode() for slot, name in part.services.items()}
    protocols = np.where(own["proto"] == 6, b"tcp", b"udp")
    pieces: list[bytes | Texts] = [b'{"service": ', _services(own, services)]
    pieces += [b', "protocol": "', protocols]
    for name in ("client", "vip", "snat", "backend"):
        pieces += [f'", "{name}": "'.encode(), *_endpoint(part.of, own, name)]
    pieces += [b'", "state": "', _STATES[own["state"]], b'"']
    for name in ("age", "idle"):
        pieces += [f', "{name}": '.encode(), *_seconds(own[name], part.ticks_per_second)]
    for name in ("packets_in", "packets_out", "bytes_in", "bytes_out"):
        pieces += [f', "{name}": '.encode(), _numbers(own[name])]
    return _side_by_side([*pieces, b"}\n"], len(own)).replace(b"\0", b"")


def _as_text(part: Part, own: Columns) -> bytes:
    services = {slot: name.encode() for slot, name in part.services.items()}
    cells: list[Sequence[bytes | Texts]] = [
        [_services(own, services)],
        *(_endpoint(part.of, own, name) for name in ("client", "vip", "snat", "backend")),
        [_STATES[own["state"]]],
        *(_seconds(own[name], part.ticks_per_second) for name in ("age", "idle")),
        *([_numbers(own[name])] for name in ("packets_in", "packets_out", "bytes_in", "bytes_out")),
    ]
    pieces: list[bytes | Texts] = []
    for cell, (_, width) in zip(cells, COLUMNS, strict=True):
        text = _joined(cell)
        pieces += [text.astype(f"S{max(width, text.dtype.itemsize)}"), b" "]
    return _side_by_side([*pieces[:-1], b"\n"], len(own)).replace(b"\0", b" ")


def _side_by_side(pieces: Sequence[bytes | Texts], count: int) -> bytes:
    """Return the pieces of each row in a row; what a piece doesn't fill are zero bytes."""
    arrays = [np.asarray(piece) for piece in pieces]
    record = np.dtype([(f"f{place}", each.dtype) for place, each in enumerate(arrays)])
    lines = np.empty(count, dtype=record)
    for place, each in enumerate(arrays):
        lines[f"f{place}"] = each
    return lines.tobytes()


def _joined(pieces: Sequence[bytes | Texts]) -> Texts:
    whole: Any = pieces[0]
    for piece in pieces[1:]:
        whole = np.char.add(whole, piece)
    return np.asarray(whole)


def _services(own: Columns, names: Mapping[int, bytes]) -> Texts:
    slots, places = np.unique(own["service_slot"], return_inverse=True)
    texts: Texts = np.array([names.get(slot, b'""') for slot in slots.tolist()], dtype="S66")
    return texts[places]


def _numbers(column: npt.NDArray[Any]) -> Texts:
    if not len(column) or column.max() < len(_SMALL):
        small: Texts = _SMALL[column]
        return small
    large: Texts = column.astype("S20")
    return large


def _seconds(ticks: npt.NDArray[Any], ticks_per_second: int) -> Sequence[bytes | Texts]:
    tenths = ticks.astype(np.uint64) * np.uint64(10) // np.uint64(ticks_per_second)
    return [_numbers(tenths // np.uint64(10)), b".", _SMALL[:10].astype("S1")[tenths % 10]]


def _endpoint(of: Records, own: Columns, name: str) -> Sequence[bytes | Texts]:
    port = _SMALL[own[f"{name}_port"]]
    if of.family == 4:
        octets = np.ascontiguousarray(own[name]).view("u1").reshape(len(own), 4)
        first, second, third, fourth = (_OCTETS[octets[:, place]] for place in range(4))
        return [first, b".", second, b".", third, b".", fourth, b":", port]
    whole = np.ascontiguousarray(own[name]).view("V16").ravel()
    distinct, places = np.unique(whole, return_inverse=True)
    texts = np.array([f"[{of.unpack(each)}]" for each in distinct.view(of.address)], dtype="S41")
    return [texts[places.ravel()], b":", port]
