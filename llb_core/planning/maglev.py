"""Fill a service's table by consistent hashing. Pure.

After Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4.
Every load balancer with the same backends fills the same table.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from llb_core.model import Endpoint

TABLE_SIZES = (
    32_749, 65_537, 131_071, 262_139, 524_287, 1_000_003
)  # fmt: skip
"""Primes, each about twice the one before. The first is as large as it is so that at most 1 % moves
beside what must when a backend goes: of 2,039 places for ten backends, 2 % would."""

PLACES_PER_BACKEND = 100
_PART = 65_536


def table_size(weights: Sequence[int], installed_size: int = 0) -> int:
    """Return the number of places that makes every weight exact to 1 %.

    That is at least 100 for the lightest backend, so 100 a backend where all weigh the same. A
    size that is installed stays until it is too small, or would do for twice as many.
    """
    positive = [weight for weight in weights if weight > 0]
    if not positive:
        return installed_size or TABLE_SIZES[0]
    needed = PLACES_PER_BACKEND * sum(positive) / min(positive)
    if installed_size in TABLE_SIZES and _listed(needed) <= installed_size <= _listed(2 * needed):
        return installed_size
    return _listed(needed)


def build_table(backends: Sequence[tuple[Endpoint, int]], size: int) -> npt.NDArray[np.intp]:
    """Return, for each of `size` places, the index of the backend that gets it.

    `backends` are endpoints with positive weights, at least one, each endpoint once.
    """
    weights = np.array([weight for _, weight in backends], dtype=np.int64)
    quotas = _quotas(weights, size)
    owners = np.repeat(np.arange(len(backends)), quotas)
    first = np.repeat(np.cumsum(quotas) - quotas, quotas)
    when = (np.arange(size) - first + 0.5) / weights[owners]
    turns = owners[np.lexsort((owners, when))]
    digests = [_digest(endpoint) for endpoint, _ in backends]
    nexts = [int.from_bytes(digest[:8], "little") % size for digest in digests]
    skips = [int.from_bytes(digest[8:], "little") % (size - 1) + 1 for digest in digests]
    is_taken = bytearray(size)  # a megabyte at most, so that the probing stays in the cache
    places = array("l")
    for index in chain.from_iterable(map(np.ndarray.tolist, _parts(turns))):
        place, skip = nexts[index], skips[index]
        while is_taken[place]:
            place += skip
            if place >= size:
                place -= size
        is_taken[place] = 1
        nexts[index] = place
        places.append(place)
    table = np.empty(size, dtype=np.intp)
    table[np.frombuffer(places, dtype=np.intp)] = turns
    return table


def _parts(turns: npt.NDArray[np.intp]) -> Iterator[npt.NDArray[np.intp]]:
    """Yield the turns a part at a time: as objects, a million would take 36 MB."""
    return (turns[start : start + _PART] for start in range(0, len(turns), _PART))


def _digest(endpoint: Endpoint) -> bytes:
    """Return 16 bytes that decide in which order a backend asks for places."""
    return hashlib.blake2b(str(endpoint).encode(), digest_size=16).digest()


def _listed(needed: float) -> int:
    return next((size for size in TABLE_SIZES if size >= needed), TABLE_SIZES[-1])


def _quotas(weights: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Share `size` places out by weight, by largest remainder."""
    total = int(weights.sum())
    quota = weights * size // total
    remainder = weights * size % total
    missing = size - int(quota.sum())
    largest = np.argsort(-remainder, kind="stable")[:missing]
    quota[largest] += 1
    result: npt.NDArray[np.int64] = quota
    return result
