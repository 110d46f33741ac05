"""Fakes: a provider that says what a test tells it to, a clock that a test turns, backends."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from llb_core.errors import ProviderError
from llb_core.model import Backend, Endpoint
from llb_core.provider import Provider, ProviderContext, ProviderOptions

_FIRST = {4: ipaddress.ip_address("10.0.0.0"), 6: ipaddress.ip_address("fd00::")}


def some_backends(*numbers: int, port: int = 8080, family: int = 4) -> tuple[Backend, ...]:
    """Return backends by number: 1 is 10.0.0.1:8080, or [fd00::1]:8080 of family 6."""
    return tuple(Backend(Endpoint(_FIRST[family] + number, port)) for number in numbers)


class Clock:
    """A clock that the test turns, in seconds."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the time."""
        return self.now


class FakeProvider(Provider[ProviderOptions]):
    """A provider that says what the test tells it to: any answer, an error, or nothing for ever.

    `asked` counts the questions; what is told is seen at once, as by a provider that watches.
    """

    name: ClassVar[str] = "fake"
    refresh = 60.0

    def __init__(self, context: ProviderContext | None = None) -> None:
        super().__init__(ProviderOptions(), context or ProviderContext("web", Path("/")))
        self.asked = 0
        self.is_hanging = False
        self._answer: Callable[[], Any] = tuple
        self._changed = threading.Event()
        self._released = threading.Event()

    def say(self, answer: object) -> None:
        """Answer this from now on, whatever it is."""
        self._tell(lambda: answer)

    def fail(self, error: BaseException | str) -> None:
        """Raise this from now on; a text becomes a ProviderError."""
        raised = ProviderError(error) if isinstance(error, str) else error

        def _raise() -> Any:
            raise raised

        self._tell(_raise)

    def hang(self, then: object = ()) -> None:
        """Don't come back from the next question until `release` or `close`; answer `then`."""
        self._released = released = threading.Event()

        def _hang() -> Any:
            self.is_hanging = True
            released.wait()
            self.is_hanging = False
            return then

        self._tell(_hang)

    def release(self) -> None:
        """Let go of a question that hangs."""
        self._released.set()

    def gather_backends(self) -> Sequence[Backend]:
        """Answer as told."""
        self.asked += 1
        answer: Sequence[Backend] = self._answer()
        return answer

    def wait_for_change(self, timeout: float) -> bool:
        """Return True as soon as something else is told."""
        if self.closed.is_set():
            return False
        is_changed = self._changed.wait(timeout) and not self.closed.is_set()
        self._changed.clear()
        return is_changed

    def close(self) -> None:
        """End what is under way."""
        super().close()
        self._changed.set()
        self._released.set()

    def _tell(self, answer: Callable[[], Any]) -> None:
        self._answer = answer
        self._changed.set()
