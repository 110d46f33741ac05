"""Fill a service's table by consistent hashing. Pure.

Every load balancer with the same backends fills the same table. As in Eisenbud et al., "Maglev: A
Fast and Reliable Software Network Load Balancer", NSDI 2016, 3.4, each backend has an order of its
own over all places. Who gets which is settled by the highest random weight (Thaler and
Ravishankar, 1998) and not by turns; docs/decisions/filling-tables.md says why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
import numpy.typing as npt

from llb_core.model import Endpoint

TABLE_SIZES = (16_381, 32_749, 65_537, 131_071, 262_139, 524_287, 1_000_003)
"""Primes, each about twice the one before; 11 divides none of them less 1. The first is as large as
it is so that at most 1 % moves beside what must when a backend goes: of 4,099 places for 50
backends, 1.5 % would."""

PLACES_PER_BACKEND = 100

Owners = npt.NDArray[np.uint32]
"""For each place of a table, the index of the backend that gets it."""

_Weights = npt.NDArray[np.float64]
_Whose = Callable[[npt.NDArray[np.intp]], npt.NDArray[np.intp]]
"""Tells of some bids which bidder each is of."""

_NOBODY = np.uint32(0xFFFF_FFFF)
_BIDS = 3
"""How many backends bid for a place on average in the first round: one place in twenty sees none,
and more would be work for nothing."""
_AT_ONCE = 1 << 16
"""Ranks that are shuffled, and places that are bid for, together: so those of a large table take
little room meanwhile, and stay in a processor's cache."""
_LARGEST_KEPT = 131_071
"""Places up to which ranks are kept for the next table, and bids until all are made."""
_MATRIX = 1 << 16
"""Places by backends up to which all bids are worked out at once; half the table's places, at
least."""


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


def build_table(backends: Sequence[tuple[Endpoint, int]], size: int) -> Owners:
    """Return, for each of `size` places, the index of the backend that gets it.

    `backends` are endpoints with positive weights, at least one, each endpoint once. They bid for
    the places they like best, in rounds; a place goes to the best bid, until a backend has its
    share. Takes some 3 ms for 100 backends, 0.8 s for 10,000.
    """
    bidders = _Bidders.of(backends, size)
    table = np.full(size, _NOBODY, dtype=np.uint32)
    bids = _BIDS
    while True:
        is_free = table == _NOBODY
        free = np.count_nonzero(is_free)
        eager = np.flatnonzero(bidders.left)
        if not free:
            return table
        if free * eager.size <= max(_MATRIX, size // 2):
            bidders.settle_all(table, np.flatnonzero(is_free), eager)
        else:
            bidders.settle_some(table, is_free, eager, bids)
            bids += _BIDS


def shares(weights: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Share `size` places out by weight, which is exact to one place: by largest remainder."""
    total = int(weights.sum())
    quota = weights * size // total
    remainder = weights * size % total
    missing = size - int(quota.sum())
    largest = np.argsort(-remainder, kind="stable")[:missing]
    quota[largest] += 1
    result: npt.NDArray[np.int64] = quota
    return result


@dataclass(slots=True)
class _Bidders:
    """What the backends want: backend b's place of rank r is (start + order[r] * skip) % size.

    Its bid for that place is the rank's `worth` by its weight, and the lowest bid wins; of equal
    ones the first backend's. `left` is how many places each still gets.
    """

    size: int
    weights: _Weights
    starts: npt.NDArray[np.int64]
    skips: npt.NDArray[np.int64]
    left: npt.NDArray[np.int64]

    @classmethod
    def of(cls, backends: Sequence[tuple[Endpoint, int]], size: int) -> _Bidders:
        weights = np.array([weight for _, weight in backends], dtype=np.int64)
        digests = b"".join(_digest(endpoint) for endpoint, _ in backends)
        numbers = np.frombuffer(digests, dtype="<u8").reshape(-1, 2)
        return cls(
            size=size,
            weights=weights.astype(np.float64),
            starts=(numbers[:, 0] % np.uint64(size)).astype(np.int64),
            skips=(numbers[:, 1] % np.uint64(size - 1)).astype(np.int64) + 1,
            left=shares(weights, size),
        )

    def settle_some(
        self,
        table: Owners,
        is_free: npt.NDArray[np.bool_],
        eager: npt.NDArray[np.intp],
        bids: int,
    ) -> None:
        """Have each of the `eager` bid for so many of its best places that `bids` meet on one."""
        weights = self.weights[eager]
        shares = weights / weights.sum()
        reach = np.ceil(self.size * -np.expm1(-bids * shares)).astype(np.int64)
        step = max(1, _AT_ONCE // int(reach.max()))
        blocks = [slice(first, first + step) for first in range(0, eager.size, step)]
        ranks = _ranks(self.size, int(reach.max()))
        make = partial(self._bids, is_free, eager, ranks, reach)
        # Those of a large table are worked out twice: to keep them takes ten times its own room.
        kept = [*map(make, blocks)] if self.size <= _LARGEST_KEPT else None
        best = np.full(self.size, np.inf)
        for places, offers, _ in kept or map(make, blocks):
            np.minimum.at(best, places, offers)
        leader = np.full(self.size, eager.size, dtype=np.uint32)
        for places, offers, whose in kept or map(make, blocks):
            leads = np.flatnonzero(offers == best[places])
            np.minimum.at(leader, places[leads], whose(leads).astype(np.uint32))
        self._give(table, best, leader, eager)

    def _bids(
        self,
        is_free: npt.NDArray[np.bool_],
        eager: npt.NDArray[np.intp],
        ranks: _Ranks,
        reach: npt.NDArray[np.int64],
        own: slice,
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64], _Whose]:
        """Return what some of the `eager` bid for free places, as far as each one's `reach`:
        places and offers, and which of the `eager` each of them is of."""
        most = int(reach[own].max())
        places = self._places(eager[own], ranks.order[:most])
        offers = ranks.worth[:most] / self.weights[eager[own], None]
        is_bid = is_free[places]
        if int(reach[own].min()) < most:
            is_bid &= np.arange(most) < reach[own, None]
        places, offers = places.ravel(), offers.ravel()
        if is_bid.all():
            return places, offers, lambda bids: bids // most + own.start
        is_of = np.flatnonzero(is_bid)
        return places[is_of], offers[is_of], lambda bids: is_of[bids] // most + own.start

    def _give(
        self,
        table: Owners,
        best: npt.NDArray[np.float64],
        leader: npt.NDArray[np.uint32],
        eager: npt.NDArray[np.intp],
    ) -> None:
        """Give each of the `eager` the places where it leads: those it likes best, up to what is
        left for it."""
        nobody = eager.size
        blocks = [slice(first, first + _AT_ONCE) for first in range(0, self.size, _AT_ONCE)]
        count = np.sum([np.bincount(leader[each], minlength=nobody + 1) for each in blocks], axis=0)
        left = np.append(self.left[eager], self.size)
        has_too_many = count > left
        crowded = np.concatenate(
            [each.start + np.flatnonzero(has_too_many[leader[each]]) for each in blocks]
        )
        leads = leader[crowded]
        order = _by_leader(leads, best[crowded], self.weights[eager])
        too_many = np.where(has_too_many, count, 0)
        leader[crowded[order[~_is_within(left, too_many)]]] = nobody
        owners = np.append(eager, _NOBODY).astype(np.uint32)
        for each in blocks:
            np.copyto(table[each], owners[leader[each]], where=leader[each] < nobody)
        self.left[eager] -= np.minimum(count, left)[:nobody]

    def settle_all(
        self, table: Owners, free: npt.NDArray[np.intp], eager: npt.NDArray[np.intp]
    ) -> None:
        """Give all `free` places to the `eager`."""
        inverses = np.array([pow(skip, -1, self.size) for skip in self.skips[eager].tolist()])
        distances = free[:, None] - self.starts[eager]
        distances %= self.size
        distances *= inverses
        distances %= self.size
        ranks = _ranks(self.size, self.size)
        bids = ranks.worth[ranks.rank[distances]]
        bids /= self.weights[eager]
        del distances
        while free.size:
            leaders = bids.argmin(axis=1)
            offers = bids[np.arange(free.size), leaders]
            order = _by_leader(leaders, offers, self.weights[eager])
            count = np.bincount(leaders, minlength=eager.size)
            won = order[_is_within(self.left[eager], count)]
            winners = eager[leaders[won]]
            table[free[won]] = winners
            self.left -= np.bincount(winners, minlength=self.left.size)
            is_left = np.full(free.size, fill_value=True)
            is_left[won] = False
            stays = self.left[eager] > 0
            bids = bids[is_left][:, stays]
            free, eager = free[is_left], eager[stays]

    def _places(
        self, backends: npt.NDArray[np.intp], order: npt.NDArray[np.uint32]
    ) -> npt.NDArray[np.intp]:
        """Return the places of each of these backends that are of the first ranks, whose order this
        is."""
        kind = np.dtype(np.uint32 if self.size**2 < 1 << 32 else np.uint64)
        places = self.skips[backends, None].astype(kind) * order.astype(kind)
        places += self.starts[backends, None].astype(kind)
        size = kind.type(self.size)
        rounds = places // size  # Twice as quick as a remainder.
        rounds *= size
        places -= rounds
        found: npt.NDArray[np.intp] = places.astype(np.intp)
        return found


@dataclass(frozen=True, slots=True)
class _Ranks:
    """What is the same for all backends, by size.

    `order` shuffles the ranks, and `rank` undoes that: by multiples of a skip alone, two backends
    whose skips are as 1 to 2 would want the same places. `worth` is -ln(1 - share of the places
    before): among bids of that distribution the lowest is a backend's in proportion to its weight.
    """

    order: npt.NDArray[np.uint32]
    rank: npt.NDArray[np.uint32]
    worth: npt.NDArray[np.float64]

    @classmethod
    def of(cls, size: int, count: int) -> _Ranks:
        """Return those of the first ranks, so many; `rank` knows these alone."""
        order, rank = np.empty(count, dtype=np.uint32), np.zeros(size, dtype=np.uint32)
        worth = np.empty(count, dtype=np.float64)
        for first in range(0, count, _AT_ONCE):
            ranks = np.arange(first, min(first + _AT_ONCE, count), dtype=np.int64)
            square = ranks * ranks % size
            fourth = square * square % size
            # To the eleventh: a bijection, as 11 doesn't divide size - 1 for any of our primes.
            shuffled = fourth * fourth % size * square % size * ranks % size
            order[ranks], rank[shuffled] = shuffled, ranks
            worth[ranks] = -np.log1p(-(ranks + 0.5) / size)
        return cls(order, rank, worth)


_kept_ranks = lru_cache(maxsize=1)(_Ranks.of)


def _ranks(size: int, count: int) -> _Ranks:
    """Return at least the first ranks, so many: all are 16 MB for the largest size."""
    return _kept_ranks(size, size) if size <= _LARGEST_KEPT else _Ranks.of(size, count)


@lru_cache(maxsize=1 << 14)
def _digest(endpoint: Endpoint) -> bytes:
    """Return 16 bytes that decide in which order a backend asks for places."""
    packed = endpoint.address.packed + endpoint.port.to_bytes(2)
    return hashlib.blake2b(packed, digest_size=16).digest()


def _by_leader(
    leaders: npt.NDArray[np.integer], offers: npt.NDArray[np.float64], weights: _Weights
) -> npt.NDArray[np.intp]:
    """Return the order that sorts bids by leader, and each one's own by how good they are.

    One number says both: an offer by the weight is a rank's worth again, which is below 16 and no
    other rank's, so no two are alike, and which way of sorting a processor has is all one.
    """
    return np.argsort(leaders * 16.0 + offers * weights[leaders])


def _is_within(most: npt.NDArray[np.int64], count: npt.NDArray[np.intp]) -> npt.NDArray[np.bool_]:
    """Say of `count` things each, one kind after the other, which are among the first `most`."""
    first = np.cumsum(count) - count
    within: npt.NDArray[np.bool_] = np.arange(count.sum()) < np.repeat(first + most, count)
    return within


def _listed(needed: float) -> int:
    return next((size for size in TABLE_SIZES if size >= needed), TABLE_SIZES[-1])
