"""A provider as a source drives it: in one thread, which makes it, asks it and waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llb_core.answer import check_answer
from llb_core.model import Backend
from llb_core.provider import Provider
from llb_core.testing.waiting import Calling, OneThread

BOTH_FAMILIES = frozenset({4, 6})

SLACK = 2.0
"""Seconds that a wait may last beyond its timeout."""


class Driven:
    """A provider in a thread of its own; a call that lasts too long raises AssertionError.

    What the provider itself raises comes out where it is called for. `families` are those that its
    service has addresses of.
    """

    def __init__(
        self,
        make: Callable[[], Provider[Any]],
        *,
        families: frozenset[int] = BOTH_FAMILIES,
        limit: float = 30.0,
    ) -> None:
        self._thread = OneThread()
        self._families = families
        self._limit = limit
        self.provider = self._call(make, limit, "the provider is not made")

    def gather(self) -> tuple[Backend, ...]:
        """Ask, and return the answer, held against the contract and sorted."""
        return check_answer(self.gather_as_it_is(), self._families)

    def gather_as_it_is(self) -> Any:
        """Ask, and return what it returned."""
        return self._call(self.provider.gather_backends, self._limit, "it does not answer")

    def wait(self, timeout: float) -> bool:
        """Wait for a change, for `timeout` seconds at most."""
        waiting = self.waiting(timeout)
        return waiting.result(limit=timeout + SLACK, what=f"a wait of {timeout:g} s goes on")

    def waiting(self, timeout: float) -> Calling[bool]:
        """Begin to wait for a change."""
        return Calling(lambda: self.provider.wait_for_change(timeout), self._thread)

    def close(self) -> None:
        """Close it, from this thread; its own ends afterwards."""
        try:
            Calling(self.provider.close).result(what="close goes on and on")
        finally:
            self._thread.end(limit=SLACK)

    def _call(self, call: Callable[[], Any], limit: float, what: str) -> Any:
        return Calling(call, self._thread).result(limit=limit, what=f"{what} in {limit:g} s")
