"""Ask a provider once, beside the daemon, and say what would come of its answer.

Nothing is installed by it, and nothing repeated: that is a source's (`source`).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from traceback import walk_tb
from typing import Any

from llb_core.answer import NO_ADDRESSES, check_answer, check_seconds
from llb_core.errors import ProviderError, told
from llb_core.model import Address, Backend, BackendMode, Endpoint, Network
from llb_core.provider import Provider

_TO_CLOSE = 0.5
"""Seconds that a provider has to close once it has answered, before nobody waits for that."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a provider said: its backends, or else an error; and the seconds that it took."""

    backends: tuple[Backend, ...] | None
    error: str
    took: float


class Trial:
    """One question to one provider, in a thread of its own; it is under way from the start.

    Without a `limit` in seconds it has those that a source gives it: its own, once it is made.
    """

    def __init__(
        self,
        make: Callable[[], Provider[Any]],
        families: frozenset[int],
        networks: Sequence[Network],
        limit: float | None,
        clock: Callable[[], float] = time.monotonic,
        *,
        ours: Mapping[Address, str] = NO_ADDRESSES,
    ) -> None:
        self._make = make
        self._families = families
        self._networks = networks
        self._ours = ours
        self._limit = Provider.time_limit if limit is None else limit
        self._is_its_own = limit is None
        self._clock = clock
        self._began = self._counts_from = clock()
        self._outcome: Outcome | None = None
        self._told_at = 0.0
        self._news = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def outcome(self) -> Outcome:
        """Return what it said within its limit. One that hangs is left to itself."""
        with self._news:
            while self._outcome is None and (left := self._until - self._clock()) > 0:
                self._news.wait(left)
            outcome = self._outcome
            is_late = outcome is None or self._told_at > self._until
        if outcome is not None:
            self._thread.join(_TO_CLOSE)
            if not is_late:
                return outcome
        late = f"no answer within {self._limit:g} s: see what it waits for, or raise --timeout"
        return Outcome(None, late, self._limit)

    @property
    def _until(self) -> float:
        return self._counts_from + self._limit

    def _run(self) -> None:
        provider: Provider[Any] | None = None
        try:
            provider = self._make()
            check_seconds("refresh", provider.refresh)
            limit = check_seconds("time_limit", provider.time_limit)
            if self._is_its_own:
                with self._news:
                    self._limit, self._counts_from = limit, self._clock()
                    self._news.notify()
            said = provider.gather_backends()
            answer = check_answer(said, self._families, self._networks, self._ours)
            self._tell(Outcome(answer, "", self._clock() - self._began))
        except BaseException as error:  # noqa: BLE001 - somebody else's code, and our thread
            self._tell(Outcome(None, _told_to_author(error), self._clock() - self._began))
        if provider is not None:
            with suppress(BaseException):  # It has answered; how it ends changes nothing.
                provider.close()

    def _tell(self, outcome: Outcome) -> None:
        with self._news:
            self._outcome, self._told_at = outcome, self._clock()
            self._news.notify()


def _told_to_author(error: BaseException) -> str:
    """Return what a provider raised, with the last place in its own code where it didn't mean to.

    Its own is the package that we called: below it are others', and ours again.
    """
    if isinstance(error, ProviderError):
        return told(error)
    frames = [
        (str(frame.f_globals.get("__name__")).partition(".")[0], frame.f_code, line)
        for frame, line in walk_tb(error.__traceback__)
    ]
    called = next((package for package, _, _ in frames if package != "llb_core"), None)
    places = [(code, line) for package, code, line in frames if package == called]
    if not places:
        return told(error)
    code, line = places[-1]
    return f"{told(error)} ({code.co_filename}, line {line}, in {code.co_name})"


@dataclass(frozen=True, slots=True)
class Known:
    """A backend of a service as it is now. `is_ordered` says that an operator's order stands."""

    endpoint: Endpoint
    weight: int
    mode: str
    health: str = "unknown"
    is_ordered: bool = False


def changes(before: Iterable[Known], after: Sequence[Backend], *, is_whole: bool) -> Iterator[str]:
    """Yield what would change, a line each. `is_whole` says that no other provider of the service
    may name what `after` doesn't."""
    known = {each.endpoint: each for each in before if each.mode != BackendMode.RETIRED}
    for backend in after:
        old = known.pop(backend.endpoint, None)
        if old is None:
            yield f"register {backend.endpoint}, weight {backend.weight}"
        elif old.weight != backend.weight:
            if_first = "" if is_whole else ", unless another provider that names it comes first"
            yield (
                f"change the weight of {backend.endpoint} from {old.weight} to "
                f"{backend.weight}{if_first}"
            )
        is_active = old is None or old.mode == BackendMode.ACTIVE
        if backend.healthy is False and (old is None or old.health != "unhealthy"):
            yield f"give {backend.endpoint} no new connections: its provider says it is unhealthy"
        elif backend.draining and is_active:
            yield f"drain {backend.endpoint}"
        elif old is not None and _is_let_go(old, backend):
            yield f"drain {backend.endpoint} no longer"
    if is_whole:
        yield from (f"deregister {endpoint}" for endpoint in sorted(known))


def _is_let_go(old: Known, backend: Backend) -> bool:
    """Whether it drains, and for no reason but what the provider said before."""
    is_spared = old.is_ordered or old.health == "unhealthy" or backend.weight == 0
    return old.mode == BackendMode.DRAINING and not backend.draining and not is_spared
