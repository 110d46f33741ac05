"""A provider and its last good answer.

Each source asks its provider in a thread of its own, so that one that is slow, hangs or raises
holds up nobody else; time limits, back-off and the guard against sudden loss are here, once, for
all providers. What is not here: what to do with the backends (`balancer`).
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llb_core.answer import NO_ADDRESSES, check_answer, check_seconds
from llb_core.errors import NotReady, ProviderError, told
from llb_core.guard import Guard, lost
from llb_core.model import Address, Backend, Endpoint, Network
from llb_core.provider import Provider

log = logging.getLogger(__name__)

_FIRST_DELAY = 0.5
_LONGEST_DELAY = 30.0
_SHORTEST_GAP = 0.02
"""Seconds from one question to the next, whatever a provider that watches may see."""
_GRACE = 2.0
"""Seconds that a wait may last beyond its timeout."""
_HASTE = 1.0
"""Seconds. One that fails and sees changes sooner than that is asked less and less."""
_PATIENCE = 30.0
"""Seconds that a provider has to return after it was closed, before its thread is left to it."""
_MOST_LEFT = 3
"""Threads that providers of one source may hang in for ever, besides the one that asks; and as many
more that hang in closing them."""

_ASKING = (
    "asking the provider takes too long, more than {limit:g} s: see what it waits for (llb "
    "providers test {name}), lower its timeouts, or set a longer time_limit in its class"
)
_MAKING = (
    "making the provider takes too long, more than {limit:g} s: see what it waits for where it is "
    "made (llb providers test {name})"
)
_SILENT = "it has not answered yet"
_WAITING = (
    "waiting for a change takes too long: its wait_for_change() must return after its timeout, and "
    "soon after close()"
)


def back_off(failures: int, chance: float) -> float:
    """Return seconds to wait after so many failures in a row (from 1); `chance` is from 0 to 1.

    Doubled each time, and spread over the upper half, so that many don't come back at once.
    """
    delay = min(_FIRST_DELAY * 2.0 ** min(failures - 1, 16), _LONGEST_DELAY)
    return delay * (0.5 + 0.5 * chance)


@dataclass(slots=True)
class _Known:
    """What is known of a provider; guarded by the source's lock."""

    answer: tuple[Backend, ...] | None = None
    answered_at: float = 0.0
    error: str = ""
    deadline: float | None = None
    """When what the provider is doing now takes too long."""
    if_late: str = ""
    """The error that it is then: what takes too long, and what helps."""
    is_late_told: bool = False


@dataclass(frozen=True, slots=True)
class _Held:
    """A loss that is held back: what is gone, in every answer since."""

    gone: frozenset[Endpoint]
    since: float


class Source:
    """One provider of one service. `start` begins to ask, `close` ends it.

    `on_change` is called from the source's thread when the answer is another. `make` makes the
    provider, in that thread; again if that failed, or once it was closed because it hung.
    `families` and `networks` are what backends may be of, no network is any; `ours` are addresses
    that they must not have, each with what it is.
    """

    def __init__(
        self,
        service: str,
        provider: str,
        make: Callable[[], Provider[Any]],
        *,
        families: frozenset[int] = frozenset({4}),
        networks: Sequence[Network] = (),
        ours: Mapping[Address, str] = NO_ADDRESSES,
        on_change: Callable[[], None] = lambda: None,
        guard: Guard | None = None,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
        origin: object = None,
    ) -> None:
        self.service = service
        self.provider = provider
        self.origin = origin
        """What it was made from: a source made from the same can be kept over a reload."""
        self.ours = ours
        """May be set anew: it counts from the next answer on."""
        self._make = make
        self._families = families
        self._networks = networks
        self._on_change = on_change
        self._guard = guard or Guard()
        self._clock = clock
        self._chance = chance
        self._lock = threading.Lock()
        self._known = _Known()
        self._held: _Held | None = None
        self._passed: tuple[object, Mapping[Address, str], tuple[Backend, ...]] | None = None
        """What the provider said last that passed, with which addresses of ours, and as what."""
        self._made: Provider[Any] | None = None
        self._is_cut = False
        """Whether the provider was closed because it hung."""
        self._cut_at = 0.0
        self._closed = threading.Event()
        self._left: list[threading.Thread] = []
        self._closers: list[threading.Thread] = []
        self._thread = self._new_thread()

    def __repr__(self) -> str:
        return f"<Source {self.service} from {self.provider}>"

    def _new_thread(self) -> threading.Thread:
        name = f"source-{self.service}-{self.provider}"
        return threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Begin to ask; nothing happens where it has begun."""
        if not self._thread.is_alive() and not self._closed.is_set():
            self._thread.start()

    def close(self, timeout: float = 1.0) -> None:
        """Stop asking. A provider that hangs is left to itself after `timeout` seconds."""
        self._closed.set()
        threading.Thread(target=self._close_provider, args=(self._made,), daemon=True).start()
        self.join(timeout)

    def join(self, timeout: float) -> None:
        """Wait for the end of the asking, at most so many seconds."""
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(timeout)

    def gather_backends(self) -> Sequence[Backend]:
        """Return at once the last good answer; raise NotReady where there never was one."""
        self._tell_if_late()
        with self._lock:
            answer = self._known.answer
        if answer is None:
            raise NotReady(f"{self.service}: provider {self.provider}: {self.error or _SILENT}")
        return answer

    @property
    def error(self) -> str:
        """Why the provider can't answer now; empty where it can."""
        now = self._clock()
        with self._lock:
            known = self._known
            if known.deadline is not None and now > known.deadline:
                return known.if_late
            return known.error

    def complaint(self, *, if_silent: str = _SILENT) -> str:
        """Return a sentence about why the provider can't answer now, and what stays meanwhile;
        nothing where it can. `if_silent` is why for one that has neither answered nor failed."""
        why = self.error
        with self._lock:
            answer, answered_at = self._known.answer, self._known.answered_at
        if answer is not None and not why:
            return ""
        stays = "what is installed stays"
        if answer is not None:
            age = self._clock() - answered_at
            count = f"{len(answer)} backend{'' if len(answer) == 1 else 's'}"
            stays = f"its last answer stays ({count}, {age:.0f} s old)"
        return f"{self.service}: provider {self.provider}: {why or if_silent}; {stays}"

    @property
    def is_ready(self) -> bool:
        """Whether there is an answer."""
        with self._lock:
            return self._known.answer is not None

    @property
    def is_stale(self) -> bool:
        """Whether there is an answer, and the provider can't say whether it still holds."""
        return self.is_ready and bool(self.error)

    @property
    def age(self) -> float | None:
        """Seconds since the provider last answered; None where it never did."""
        with self._lock:
            known = self._known
            return None if known.answer is None else max(0.0, self._clock() - known.answered_at)

    def _tell_if_late(self) -> None:
        """Log, once, that the provider hangs, and close it: its own thread can't.

        That ends what many hang in, a connection that is dead, say; it is made anew then. One that
        hangs all the same, or while it is being made, is left to its thread, and another begins.
        """
        now = self._clock()
        with self._lock:
            known = self._known
            if known.deadline is None or now <= known.deadline:
                return
            late, is_news = known.if_late, not known.is_late_told
            known.is_late_told = True
            self._held = None  # Nobody can say that the loss lasted all the while.
            if self._made is not None and is_news:
                self._is_cut, self._cut_at = self._cut(self._made), now
            elif self._made is None or now > self._cut_at + _PATIENCE:
                self._leave_thread(late)
        if is_news:
            log.warning("%s: provider %s: %s", self.service, self.provider, late)

    def _cut(self, provider: Provider[Any]) -> bool:
        """Close it from another thread; return False where too many hang in closing already, and
        then it is kept: a new one each time would be one more that nobody closes."""
        self._closers = [thread for thread in self._closers if thread.is_alive()]
        if len(self._closers) >= _MOST_LEFT:
            return False
        closer = threading.Thread(target=self._close_provider, args=(provider,), daemon=True)
        self._closers.append(closer)
        closer.start()
        return True

    def _leave_thread(self, error: str) -> None:
        """Go on in another thread, unless too many hang already; the lock is held."""
        self._left = [thread for thread in self._left if thread.is_alive()]
        if len(self._left) >= _MOST_LEFT or self._closed.is_set():
            return
        self._left.append(self._thread)
        self._made, self._is_cut = None, False
        self._known.error, self._known.deadline = error, None
        self._thread = self._new_thread()
        self._thread.start()

    @property
    def _is_left(self) -> bool:
        """Whether another thread has taken over from the one that asks this."""
        return threading.current_thread() is not self._thread

    def _run(self) -> None:
        failures = wait_failures = hasty = 0
        while not self._closed.is_set():
            asked_at = self._clock()
            self._drop_if_cut()
            pause = self._ask()
            self._drop_if_cut()
            if pause is None:
                failures += 1
                pause = back_off(failures, self._chance())
            else:
                failures = 0
            waits_since, gap = self._clock(), _SHORTEST_GAP
            if self._wait(pause):
                wait_failures = 0
                is_hasty = failures and self._clock() - waits_since < min(pause, _HASTE)
                hasty = hasty + 1 if is_hasty else 0
                if hasty > 1:  # Once is a fault that was mended.
                    gap = back_off(hasty - 1, self._chance())
            else:
                wait_failures += 1
                self._closed.wait(back_off(wait_failures, self._chance()))
            if self._is_left:
                return
            self._closed.wait(max(0.0, asked_at + gap - self._clock()))
        self._close_provider(self._made)

    def _drop_if_cut(self) -> None:
        with self._lock:
            if self._is_cut and not self._is_left:
                self._made, self._is_cut = None, False

    def _ask(self) -> float | None:
        """Ask once; return seconds until the next time, or None where it failed."""
        try:
            provider = self._made
            if provider is None:
                provider = self._make_anew()
            check_seconds("refresh", provider.refresh)
            limit = check_seconds("time_limit", provider.time_limit)
            began = self._begin(limit, _ASKING.format(limit=limit, name=self.provider))
            answer = self._checked(provider.gather_backends())
            took = self._clock() - began
            if took > limit:
                raise ProviderError(
                    f"the answer took {took:.1f} s; it counts within {limit:g} s: have it answer "
                    "sooner, or set a longer time_limit in its class"
                )
            return self._accept(answer, check_seconds("refresh", provider.refresh))
        except BaseException as error:  # noqa: BLE001 - somebody else's code, and our thread
            self._forget_held()
            self._fail(error)
            return None

    def _checked(self, said: object) -> tuple[Backend, ...]:
        """Hold an answer against the contract, unless it is a tuple, which nobody can change, that
        passed the time before: at rest ten thousand backends are said again and again."""
        passed, ours = self._passed, self.ours
        if passed is not None and passed[0] is said and passed[1] is ours:
            return passed[2]
        answer = check_answer(said, self._families, self._networks, ours)
        self._passed = (said, ours, answer) if isinstance(said, tuple) else None
        return answer

    def _make_anew(self) -> Provider[Any]:
        limit = Provider.time_limit
        self._begin(limit, _MAKING.format(limit=limit, name=self.provider))
        provider = self._make()
        with self._lock:
            if not self._is_left:
                self._made = provider
                return provider
        provider.close()
        raise ProviderError("made too late: another was made")

    def _wait(self, pause: float) -> bool:
        """Wait until the answer may be another; return False where the provider can't wait."""
        provider = self._made
        if self._is_left:
            return True
        if provider is None or self._closed.is_set():
            self._closed.wait(pause)
            return True
        try:
            self._begin(pause + _GRACE, _WAITING)
            provider.wait_for_change(pause)
        except BaseException as error:  # noqa: BLE001 - somebody else's code, and our thread
            self._fail(error)
            return False
        self._end()
        return True

    def _begin(self, limit: float, if_late: str) -> float:
        now = self._clock()
        with self._lock:
            if not self._is_left:
                self._known.if_late, self._known.deadline = if_late, now + limit
                self._known.is_late_told = False
        return now

    def _end(self) -> None:
        with self._lock:
            if not self._is_left:
                self._known.deadline = None

    def _accept(self, answer: tuple[Backend, ...], refresh: float) -> float:
        """Make an answer the last good one, or hold it back; return seconds until the next."""
        if self._is_left:
            return refresh
        left = self._hold(answer)
        if left > 0:
            return min(refresh, left)
        self._take(answer)
        return refresh

    def _take(self, answer: tuple[Backend, ...]) -> None:
        with self._lock:
            self._held = None
            known = self._known
            is_new = known.answer != answer
            was_failing = known.error
            if is_new:  # An equal one would take its room twice, and each turn compares them.
                known.answer = answer
            known.answered_at = self._clock()
            known.error, known.deadline = "", None
        if was_failing:
            log.info("%s: provider %s answers again", self.service, self.provider)
        if is_new:
            self._on_change()

    def _hold(self, answer: tuple[Backend, ...]) -> float:
        """Return for how many seconds an answer is still held back.

        It counts once each backend that it lacks has been missing for the whole hold: a failure,
        or one that is missing only now, begins the hold anew.
        """
        before = self._known.answer
        if before is None or not self._guard.is_sudden_loss(before, answer):
            return 0.0
        gone, now = lost(before, answer), self._clock()
        with self._lock:
            is_repeated = self._held is not None and gone <= self._held.gone
            since = self._held.since if self._held is not None and is_repeated else now
            self._held = _Held(gone, since)
        left = since + self._guard.hold - now
        if left > 0:
            told_gone = f"{len(gone)} of {len(before)} backends are gone at once"
            self._fail(ProviderError(f"{told_gone}: held back for {self._guard.hold:g} s"))
        return left

    def _forget_held(self) -> None:
        with self._lock:
            if not self._is_left:
                self._held = None

    def _fail(self, error: BaseException) -> None:
        text = told(error)
        with self._lock:
            if self._is_left:
                return
            known = self._known
            is_news = known.error != text
            known.error, known.deadline = text, None
        if is_news and not self._closed.is_set():
            log.warning("%s", self.complaint())

    def _close_provider(self, provider: Provider[Any] | None) -> None:
        if provider is None:
            return
        try:
            provider.close()
        except BaseException as error:  # noqa: BLE001 - somebody else's code, and our thread
            log.warning("%s: provider %s: close: %s", self.service, self.provider, told(error))
