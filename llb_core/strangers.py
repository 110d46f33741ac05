"""Run somebody else's code that we wait for: with a time limit, and whatever it raises or prints.

It runs in a thread of ours that is left to itself where it hangs, so it holds up neither the caller
nor the end of the process. What is not here: providers that are asked again and again (`source`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, Generic, TypeVar, cast

from llb_core.errors import ConfigurationError

ResultT = TypeVar("ResultT")

_MOST_HANGING = 3
"""Threads that may hang over the same; another try is refused."""

_hanging: list[_Work[Any]] = []


class _Work(threading.Thread, Generic[ResultT]):
    def __init__(self, work: Callable[[], ResultT], doing: str) -> None:
        super().__init__(name="strangers", daemon=True)
        self.doing = doing
        self.result: ResultT | None = None
        self.error: BaseException | None = None
        self._work = work

    def run(self) -> None:
        try:
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001 - it is raised where it is waited for
            self.error = error


def within(limit: float, work: Callable[[], ResultT], doing: str) -> ResultT:
    """Return what `work` returns, and raise what it raises; or ConfigurationError that says what it
    was doing when it had not ended after `limit` seconds.

    Within a call of this one, it is the outer one's limit that counts.
    """
    if isinstance(threading.current_thread(), _Work):
        now_doing(doing)
        return work()
    thread = _Work(work, doing)
    thread.start()
    thread.join(limit)
    if thread.is_alive():
        _hanging.append(thread)
        raise ConfigurationError(
            f"{thread.doing} takes more than {limit:g} s: mend what it waits for, or do without it"
        )
    if thread.error is not None:
        raise thread.error
    return cast("ResultT", thread.result)


def now_doing(what: str) -> None:
    """Say what the code that runs within a limit does from now on, for the error's text.

    Raises ConfigurationError where too many threads hang over just that.
    """
    _hanging[:] = [thread for thread in _hanging if thread.is_alive()]
    if sum(thread.doing == what for thread in _hanging) >= _MOST_HANGING:
        raise ConfigurationError(
            f"{what} hangs since {_MOST_HANGING} tries: mend it, and restart what called it"
        )
    thread = threading.current_thread()
    if isinstance(thread, _Work):
        thread.doing = what


async def aside(work: Callable[[], ResultT]) -> ResultT:
    """Await `work` in a thread that the end of the process does not wait for."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[ResultT] = loop.create_future()

    def _settle(result: Any, error: BaseException | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    def _run() -> None:
        result: Any = None
        error: BaseException | None = None
        try:
            result = work()
        except BaseException as raised:  # noqa: BLE001 - it is raised where it is awaited
            error = raised
        with suppress(RuntimeError):  # The loop has ended meanwhile.
            loop.call_soon_threadsafe(_settle, result, error)

    threading.Thread(target=_run, name="aside", daemon=True).start()
    return await done


@contextmanager
def stdout_kept() -> Iterator[None]:
    """Keep standard output for the command: what is written to it meanwhile goes to standard error,
    also what is written past Python's own stream."""
    sys.stdout.flush()
    kept: int | None = None
    with suppress(OSError, ValueError):  # Where there is no such descriptor, the stream must do.
        if sys.stdout.fileno() == 1:
            kept = os.dup(1)
            os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)
