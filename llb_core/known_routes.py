"""The routes to backends, remembered: a turn asks the kernel for new addresses only.

Asking costs some ten microseconds an address, too much for every turn of ten thousand backends. So
what is known is asked for anew between the turns, and a turn is made where something changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from llb_core.model import Address, Route

FindRoutes = Callable[[Iterable[Address]], Mapping[Address, Route]]


class KnownRoutes:
    """Answers like the kernel (`find`), from memory. `refresh` may run beside a turn."""

    def __init__(self, find: FindRoutes) -> None:
        self._find = find
        self._known: dict[Address, Route | None] = {}

    def __call__(self, addresses: Iterable[Address]) -> dict[Address, Route]:
        """Return the route to each of all addresses that matter now, without those that have none.

        What is not asked for is forgotten.
        """
        wanted = set(addresses)
        known = self._known
        if missing := wanted - known.keys():
            found = self._find(missing)
            known = known | {address: found.get(address) for address in missing}
        self._known = {address: known[address] for address in wanted}
        return {address: route for address, route in self._known.items() if route is not None}

    def refresh(self) -> bool:
        """Ask again for all that is known; return whether any route is another now."""
        before = self._known
        found = self._find(before)
        changed = {
            address: found.get(address)
            for address, route in before.items()
            if route != found.get(address)
        }
        # A turn may have asked for others meanwhile: only what was asked here is replaced.
        self._known = self._known | {a: route for a, route in changed.items() if a in self._known}
        return bool(changed)
