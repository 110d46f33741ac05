"""The contract of a provider: what answers "which backends exist?" for a service.

A provider is asked from one thread of its own, and by nobody else at the same time. Time limits,
back-off, the last good answer and the guard against sudden loss are the core's (`source`), once,
for all providers: one that can't answer raises, and is asked again later.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from llb_core.model import Backend, Transport


class ProviderOptions(BaseModel):
    """What a provider's options are derived from: the keys of its table in llb.toml, beside
    `name`. An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


OptionsT = TypeVar("OptionsT", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class ProviderContext:
    """Whom the provider answers for. Paths in its options are relative to `base`, the folder of
    llb.toml."""

    service: str
    base: Path
    protocol: Transport = Transport.TCP


class Provider(ABC, Generic[OptionsT]):
    """One service's answer to "which backends exist?".

    A subclass sets `name`, the word in the configuration, and `Options`, a model of its options.
    Its constructor may take a while: it runs in the provider's thread.
    """

    name: ClassVar[str]
    Options: ClassVar[type[BaseModel]] = ProviderOptions

    refresh: float = 10.0
    """Seconds after which it is asked again though nothing seems to have changed: above 0, and a
    day at most."""

    time_limit: float = 30.0
    """Seconds that an answer may take; a later one does not count. Above 0, a day at most."""

    def __init__(self, options: OptionsT, context: ProviderContext) -> None:
        self.options = options
        self.context = context
        self.closed = threading.Event()
        """Set by `close`, which comes from another thread: whatever waits should wait on it."""

    @abstractmethod
    def gather_backends(self) -> Sequence[Backend]:
        """Return all backends of the service; raise ProviderError where that can't be said.

        An empty answer means that there are none. Never return a part.
        """

    def wait_for_change(self, timeout: float) -> bool:
        """Return True once the answer may be another, and False after `timeout` seconds at most.

        This one only sleeps, which suits a provider that can't watch. One that can returns as
        soon as it sees a change, and soon after `close`.
        """
        self.closed.wait(timeout)
        return False

    def close(self) -> None:
        """End a wait that is under way, and let go of what the provider holds. May be called
        from another thread, and twice."""
        self.closed.set()
