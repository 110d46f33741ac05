"""Who opens most connections, and sends most bytes: two looks at the tables, and what came between.

What was opened and gone again between the two looks is not seen; the counters of `llb status` have
it.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from llb_core.api.taking_turns import Pieces
from llb_core.datapath import reading
from llb_core.datapath.answers import flow_hashes
from llb_core.datapath.connection_columns import Columns, read_connections
from llb_core.datapath.family import Family, pinned
from llb_core.datapath.layout import Records, records
from llb_core.datapath.programs import ticks_now
from llb_core.errors import ConfigurationError

GROUPS = ("client", "backend", "service")
ORDERS = ("opened", "bytes", "packets", "connections")
_NUMBERS = ("packets_in", "packets_out", "bytes_in", "bytes_out")

Look = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]
"""Connections by their hashes, sorted, and the numbers of each."""


@dataclass(frozen=True, slots=True)
class Top:
    """Which groups of connections, in what order; `seconds` lie between the two looks."""

    by: str = "client"
    sort: str = "opened"
    seconds: float = 1.0
    limit: int = 20

    def check(self) -> None:
        """Raise ConfigurationError, with the place, where something in it can't be meant."""
        if self.by not in GROUPS:
            raise ConfigurationError(f'by: "{self.by}": one of {", ".join(GROUPS)}')
        if self.sort not in ORDERS:
            raise ConfigurationError(f'sort: "{self.sort}": one of {", ".join(ORDERS)}')
        if not 0.1 <= self.seconds <= 60:
            raise ConfigurationError(f"seconds: {self.seconds:g}: from 0.1 to 60")
        if self.limit < 1:
            raise ConfigurationError(f"limit: {self.limit}: at least 1")

    def answer(self, balancer: str, source: str) -> Pieces:
        """Return `{"source": …, "seconds": …, "by": …, "top": […]}`, rates a second each. The first
        look is over then, the other comes as that is written: nobody waits for the first line."""
        with pinned(balancer) as families:
            before = {
                number: _look(family.maps, records(number)) for number, family in families.items()
            }
        began = time.monotonic()

        def make(_: int) -> bytes:
            time.sleep(max(0.0, began + self.seconds - time.monotonic()))
            with pinned(balancer) as families:
                rows = [
                    row
                    for number, family in families.items()
                    for row in self._rows(records(number), family, before.get(number), began)
                ]
            rows.sort(key=lambda row: row[self.sort], reverse=True)
            answer = {"source": source, "seconds": self.seconds, "by": self.by}
            return json.dumps(answer | {"top": rows[: self.limit]}).encode() + b"\n"

        return Pieces(1, make)

    def _rows(
        self, of: Records, family: Family, before: Look | None, began: float
    ) -> Iterator[dict[str, Any]]:
        found = read_connections(family.maps, of, ticks_now())
        seconds = time.monotonic() - began
        ticks = seconds * reading.ticks_per_second(family.maps)
        installed = family.installed(with_tables=False)
        names = {slot: each.name for slot, each in installed.services.items()}
        grew = _growth(of, found, before)
        return _grouped(of, found, grew, found["age"] < ticks, self.by, names, seconds)


def _look(maps: Any, of: Records) -> Look:
    found = read_connections(maps, of, ticks_now())
    hashes = _hashes(of, found)
    order = np.argsort(hashes)
    return hashes[order], _numbers(found)[order]


def _hashes(of: Records, found: Columns) -> npt.NDArray[np.uint64]:
    keys = np.zeros(len(found), dtype=of.flow_key)
    keys["src"], keys["dst"], keys["proto"] = found["client"], found["vip"], found["proto"]
    keys["sport"], keys["dport"] = found["client_port"], found["vip_port"]
    return flow_hashes(keys)


def _numbers(found: Columns) -> npt.NDArray[np.int64]:
    return np.stack([found[name].astype(np.int64) for name in _NUMBERS], axis=1)


def _growth(of: Records, found: Columns, before: Look | None) -> npt.NDArray[np.int64]:
    """Return by how much each connection's numbers grew; one opened anew counts from zero."""
    now = _numbers(found)
    if before is None or not len(before[0]):
        return now
    hashes, numbers = before
    own = _hashes(of, found)
    places = np.minimum(np.searchsorted(hashes, own), len(hashes) - 1)
    is_known = np.equal(hashes[places], own).reshape(-1, 1)
    earlier = np.where(is_known, numbers[places], 0)
    has_grown = np.all(now >= earlier, axis=1, keepdims=True)
    return np.where(has_grown, now - earlier, now)


def _grouped(
    of: Records,
    found: Columns,
    grew: npt.NDArray[np.int64],
    is_new: npt.NDArray[np.bool_],
    by: str,
    names: dict[int, str],
    seconds: float,
) -> Iterator[dict[str, Any]]:
    if by == "service":
        column = found["service_slot"]
    else:
        words = np.ascontiguousarray(of.words(found[by]))
        column = (words if words.shape[1] == 1 else words.view("V16")).ravel()
    distinct, places = np.unique(column, return_inverse=True)
    places = places.ravel()
    count = len(distinct)
    sums = np.stack([np.bincount(places, grew[:, each], count) for each in range(4)], axis=1)
    connections = np.bincount(places, minlength=count)
    opened = np.bincount(places, is_new, count)
    for row in range(count):
        if by == "service":
            group = names.get(int(distinct[row]), f"(slot {distinct[row]})")
        else:
            group = str(of.unpack(distinct[row : row + 1].view(of.address)[0]))
        rates = {
            name: round(float(each) / seconds, 1)
            for name, each in zip(_NUMBERS, sums[row], strict=True)
        }
        yield {
            "name": group,
            "connections": int(connections[row]),
            "opened": round(float(opened[row]) / seconds, 1),
            "packets": round(rates["packets_in"] + rates["packets_out"], 1),
            "bytes": round(rates["bytes_in"] + rates["bytes_out"], 1),
            **rates,
        }
