"""The routes to backends, remembered: a turn asks the kernel for new addresses only.

Asking costs some ten microseconds an address, too much for every turn of ten thousand backends. So
what is known is asked for anew between the turns, and a turn is made where something changed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llb_core.model import Address, Route

FindRoutes = Callable[[Iterable[Address]], Mapping[Address, Route]]


class KnownRoutes:
    """Answers like the kernel (`find`), from memory. `refresh` may run beside a turn."""

    def __init__(self, find: FindRoutes) -> None:
        self._find = find
        self._known: dict[Address, Route | None] = {}
        self._storing = threading.Lock()
        self._answer: tuple[object, frozenset[Address], dict[Address, Any]] | None = None

    def __call__(self, addresses: Iterable[Address]) -> dict[Address, Route]:
        """Return the route to each of all addresses that matter now, without those that have none.

        What is not asked for is forgotten. Where nothing has changed, the answer is the same
        object as before: hashing ten thousand addresses takes some milliseconds each time.
        """
        wanted = frozenset(addresses)
        known = self._known
        if self._answer and self._answer[0] is known:
            _, before, same = self._answer
            if wanted is before or wanted == before:
                return same
        # Sets and dictionaries hand each other the hashes that they know.
        missing = wanted.difference(known)
        found = self._find(missing) if missing else {}
        with self._storing:
            # Some may have been found to be others meanwhile.
            known = {**self._known, **dict.fromkeys(missing), **found}
            for address in set(known) - wanted:
                del known[address]
            self._known = known
        answer: dict[Address, Any] = dict(known)
        for address in [address for address, route in known.items() if route is None]:
            del answer[address]
        self._answer = known, wanted, answer
        return answer

    def refresh(self) -> bool:
        """Ask again for all that is known; return whether any route is another now."""
        before = self._known
        found = self._find(before)
        changed = {
            address: found.get(address)
            for address, route in before.items()
            if route != found.get(address)
        }
        if changed:
            with self._storing:
                # A turn may have asked for others meanwhile: only what was asked here is replaced.
                known = self._known
                self._known = known | {a: route for a, route in changed.items() if a in known}
        return bool(changed)
