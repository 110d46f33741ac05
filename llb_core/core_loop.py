"""The core loop: gather all backends, register them, commit. Again whenever something changed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor
from typing import Protocol, TypeVar

from llb_core.balancer import LoadBalancer
from llb_core.errors import LLBError, NotReady
from llb_core.model import Backend
from llb_core.report import Report

log = logging.getLogger(__name__)

BURST = 0.005
"""Seconds that a turn waits for more to change, so that a burst makes one turn."""

_RETRY = (1.0, 2.0, 5.0, 10.0, 30.0)

T = TypeVar("T")


class SourceLike(Protocol):
    """What the loop needs of a source."""

    @property
    def service(self) -> str:
        """The name of the service that it answers for."""

    def gather_backends(self) -> Sequence[Backend]:
        """Return at once the last good answer, or raise NotReady."""


def register(sources: Collection[SourceLike], llb: LoadBalancer) -> None:
    """Fill the draft with what the sources say. A service without a source stays as it is."""
    for service in llb.services.difference(source.service for source in sources):
        llb.keep(service)
    for source in sources:
        try:
            backends = source.gather_backends()
        except NotReady:
            llb.keep(source.service)  # never heard from it: leave the maps alone
            continue
        if llb.register_again(source.service, backends):
            continue  # the answer of the turn before, as most are
        for backend in backends:
            llb.register_backend(source.service, backend)


def turn(sources: Collection[SourceLike], llb: LoadBalancer) -> Report:
    """Gather, register, commit: one round of the loop."""
    with llb.timed("gather"):
        register(sources, llb)
    return llb.commit()


class CoreLoop:
    """Turn after turn, in a thread of their own, beside an asyncio loop.

    `executor` must have one thread: whatever else touches the balancer goes there too, by
    `in_turn`. `on_turn` is called on the asyncio loop after each turn that succeeded, `on_failure`
    after each other one.
    """

    def __init__(
        self,
        llb: LoadBalancer,
        sources: Iterable[SourceLike],
        executor: Executor,
        *,
        on_turn: Callable[[Report], None] = lambda _: None,
        on_failure: Callable[[], None] = lambda: None,
        interval: float = 5.0,
        burst: float = BURST,
    ) -> None:
        self.llb = llb
        self.sources = tuple(sources)
        self._executor = executor
        self._on_turn = on_turn
        self._on_failure = on_failure
        self._interval = interval
        self._burst = burst
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._failures = 0
        self._complaint = ""
        self._under_way: set[float] = set()

    @property
    def oldest_turn(self) -> float | None:
        """Since when (`time.monotonic`) a turn, or something between two, has not ended."""
        return min(self._under_way, default=None)

    @property
    def complaint(self) -> str:
        """Why the last turn failed; empty where it did not."""
        return self._complaint

    def wake(self) -> None:
        """Make a turn happen soon. From any thread."""
        try:
            self._loop.call_soon_threadsafe(self._wake.set)
        except RuntimeError:  # the loop is closed: nothing is to happen any more
            return

    async def in_turn(self, action: Callable[[], T]) -> T:
        """Run something between two turns, in their thread."""
        began = time.monotonic()
        self._under_way.add(began)
        try:
            return await self._loop.run_in_executor(self._executor, action)
        finally:
            self._under_way.discard(began)

    async def run(self) -> None:
        """Make turns until cancelled: at once, on each wake, and at the interval.

        A turn that fails is told of once, and tried again, less and less often.
        """
        while True:
            self._wake.clear()
            await self.turn()
            pause = self._interval
            if self._failures:
                pause = _RETRY[min(self._failures, len(_RETRY)) - 1]
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue
            await asyncio.sleep(self._burst)

    async def turn(self) -> Report | None:
        """Make one turn now; return None where it failed, which is logged."""
        sources = self.sources
        try:
            report = await self.in_turn(lambda: turn(sources, self.llb))
        except LLBError as error:
            self._complain(str(error))
            return None
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the loop
            self._complain(f"{type(error).__name__}: {error}", with_traceback=True)
            return None
        if self._failures:
            log.info("changes are installed again")
        self._failures, self._complaint = 0, ""
        for sentence in report.sentences:
            log.info("%s", sentence)
        if report.plan and not report.sentences:
            log.info("%s%s", next(report.plan.lines), ", …" if len(report.plan) > 1 else "")
        self._on_turn(report)
        return report

    def _complain(self, text: str, *, with_traceback: bool = False) -> None:
        self._failures += 1
        if text != self._complaint:
            log.error("nothing more is changed for now: %s", text, exc_info=with_traceback)
        self._complaint = text
        self._on_failure()
