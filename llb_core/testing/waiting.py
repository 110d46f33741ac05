"""Wait for what other threads do: for a condition, with a limit; never for a time and hope."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


def until(condition: Callable[[], object], *, limit: float = 30.0, what: str = "") -> None:
    """Return once `condition` holds; raise AssertionError where it doesn't in `limit` seconds."""
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end, what or f"it is not so after {limit:g} s"
        time.sleep(0.002)


class Calling(Generic[T]):
    """A call that is under way in another thread: in `thread`, or else in one of its own."""

    def __init__(self, call: Callable[[], T], thread: OneThread | None = None) -> None:
        self._call = call
        self._outcome: list[T] = []
        self._error: BaseException | None = None
        self._over = threading.Event()
        if thread is not None:
            thread.add(self._run)
        else:
            threading.Thread(target=self._run, daemon=True).start()

    @property
    def is_over(self) -> bool:
        """Whether the call has returned or raised."""
        return self._over.is_set()

    def result(self, *, limit: float = 30.0, what: str = "") -> T:
        """Return what the call returned, or raise what it raised; AssertionError where it has
        done neither in `limit` seconds."""
        assert self._over.wait(limit), what or f"the call is still under way after {limit:g} s"
        if self._error is not None:
            raise self._error
        return self._outcome[0]

    def _run(self) -> None:
        try:
            self._outcome.append(self._call())
        except BaseException as error:  # noqa: BLE001 - raised again by `result`
            self._error = error
        finally:
            self._over.set()


class OneThread:
    """A thread that makes one call after another, until `end`."""

    def __init__(self) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def add(self, call: Callable[[], None]) -> None:
        """Have it call this next."""
        self._calls.put(call)

    def end(self, *, limit: float = 30.0) -> None:
        """Let it end once its calls are made; wait for that, `limit` seconds at most."""
        self._calls.put(None)
        self._thread.join(limit)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()
