"""Which clients a service lets in: prefixes that are allowed and denied, as values. Pure.

The longest prefix that a client's address matches decides. What is not here: reading prefixes from
a configuration (`config`), and what the classifier does by them (`bpf/allow.h`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MOST = 500_000
"""Prefixes that all services of one address family may have together."""

RECORD = np.dtype([("length", "u1"), ("allows", "?"), ("high", "u8"), ("low", "u8")])
"""One prefix: its length in bits, and the network's number as two words."""


def _none() -> npt.NDArray[Any]:
    return np.zeros(0, dtype=RECORD)


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """Prefixes of one address family, each once, sorted by length and address.

    Whoever holds one must not write into `records`.
    """

    records: npt.NDArray[Any] = field(default_factory=_none)

    @classmethod
    def of(cls, allowed: Iterable[Network], denied: Iterable[Network], family: int) -> Rules:
        """Return the prefixes that are of this family; none may be in both."""
        rows = {
            (each.prefixlen, is_allowed, *divmod(int(each.network_address), 1 << 64))
            for networks, is_allowed in ((allowed, True), (denied, False))
            for each in networks
            if each.version == family
        }
        return cls.sorted(np.array(list(rows), dtype=RECORD))

    @classmethod
    def sorted(cls, records: npt.NDArray[Any]) -> Rules:
        """Return records in their order."""
        ordered = records[np.lexsort((records["low"], records["high"], records["length"]))]
        ordered.setflags(write=False)
        return cls(ordered)

    def __len__(self) -> int:
        return len(self.records)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rules):
            return NotImplemented
        return bool(np.array_equal(self.records, other.records))

    def __hash__(self) -> int:
        return hash(self.records.tobytes())

    def __str__(self) -> str:
        allowed = int(self.records["allows"].sum())
        return f"{allowed} allowed, {len(self) - allowed} denied"

    def after(self, put: Rules, deleted: Rules) -> Rules:
        """Return what is there once some are put, in place of those of the same prefix, and some
        are deleted."""
        rows = _by_prefix(self) | _by_prefix(put)
        for prefix in _by_prefix(deleted):
            rows.pop(prefix, None)
        found = [(length, allows, high, low) for (length, high, low), allows in rows.items()]
        return Rules.sorted(np.array(found, dtype=RECORD))


NO_RULES = Rules()


def changes(old: Rules, new: Rules) -> tuple[Rules, Rules]:
    """Return what to put, and then what to delete, to come from the old to the new.

    Put the longest prefixes first, and the default for all others after them; delete the shortest
    first. Then a client that both sets let in is let in all the time, and one that both turn away
    is turned away all the time: whenever a prefix is put, all longer ones of the new set are there,
    and whenever one is deleted, all shorter ones of the old set alone are gone.
    """
    if new == old:
        return Rules(), Rules()
    before, after = _by_prefix(old), _by_prefix(new)
    put = [row for row in new.records[::-1].tolist() if before.get(_prefix(row)) != row[1]]
    deleted = [row for row in old.records.tolist() if _prefix(row) not in after]
    return Rules(np.array(put, dtype=RECORD)), Rules(np.array(deleted, dtype=RECORD))


def _prefix(row: tuple[int, bool, int, int]) -> tuple[int, int, int]:
    return row[0], row[2], row[3]


def _by_prefix(rules: Rules) -> dict[tuple[int, int, int], bool]:
    return {_prefix(row): row[1] for row in rules.records.tolist()}
