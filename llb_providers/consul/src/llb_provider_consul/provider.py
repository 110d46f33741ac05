"""Ask Consul for a service's instances, and wait for a change of them by blocking queries."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from consul import ConsulException  # type: ignore[import-untyped]
from pydantic import BaseModel
from requests import RequestException
from urllib3.exceptions import HTTPError

from llb_core import Backend, Provider, ProviderContext, ProviderError
from llb_provider_consul.blocking import Pace, longest_wait, next_index
from llb_provider_consul.client import Answer, ConsulClient
from llb_provider_consul.instances import join, to_backends
from llb_provider_consul.options import ConsulOptions
from llb_provider_consul.reasons import reason, without_token
from llb_provider_consul.tls_files import file_fault, refuse_pipes
from llb_provider_consul.token import read_token

log = logging.getLogger(__name__)

_Outcome = tuple[Backend, ...] | ProviderError


class ConsulProvider(Provider[ConsulOptions]):
    """The instances of a service in Consul.

    A blocking query brings the answer along, so that a change takes one query and not two; what
    `wait_for_change` has heard is what `gather_backends` returns next.
    """

    name: ClassVar[str] = "consul"
    Options: ClassVar[type[BaseModel]] = ConsulOptions

    def __init__(
        self,
        options: ConsulOptions,
        context: ProviderContext,
        *,
        clock: Callable[[], float] = time.monotonic,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        super().__init__(options, context)
        self.refresh = options.wait
        self.time_limit = Provider.time_limit + options.timeout
        """So that it is the query that fails, by its own timeout, and says what helps."""
        self._clock = clock
        self._environment = environment
        self._client = ConsulClient(options, context.base)
        self._pace = Pace()
        self._index: int | None = None
        """What to wait for; 0 to ask without waiting, None where the last query failed."""
        self._heard: _Outcome | None = None
        self._last: _Outcome | None = None
        self._doubled: frozenset[str] = frozenset()

    def gather_backends(self) -> Sequence[Backend]:
        """Return the service's instances as Consul last named them."""
        if self._heard is None:
            self._ask(self.options.timeout)
        heard, self._heard = self._heard, None
        if isinstance(heard, ProviderError):
            raise ProviderError(str(heard))
        assert heard is not None
        return heard

    def wait_for_change(self, timeout: float) -> bool:
        """Return True as soon as Consul names other instances than before."""
        until = self._clock() + timeout
        self._heard = None
        if self._index is None:
            self.closed.wait(timeout)
            return False
        self.closed.wait(min(self._pace.delay(self._clock()), timeout))
        left = until - self._clock()
        wait = longest_wait(left, self.options.timeout)
        if self.closed.is_set() or wait is None:
            self.closed.wait(max(0.0, left))
            return False
        before = self._last
        is_blocking = self._index > 0
        try:
            self._ask(left if is_blocking else min(left, self.options.timeout), self._index, wait)
        except ProviderError:
            if self.closed.is_set():
                return False
            raise
        return not _is_same(before, self._last)

    def close(self) -> None:
        """End a query that is under way."""
        super().close()
        self._client.close()

    def _ask(self, limit: float, index: int = 0, wait: str | None = None) -> None:
        """Ask, and remember what was heard. Raises ProviderError where nothing was."""
        self._index = None
        answer, token = self._query(limit, index, wait)
        self._index = next_index(index, answer.index)
        self._heard = self._last = self._understood(answer, token)

    def _query(self, limit: float, index: int, wait: str | None) -> tuple[Answer, str | None]:
        """Return the answer, and the token that was sent for it."""
        token: str | None = None
        try:
            token = read_token(self.options, self.context.base, self._environment)
            refuse_pipes(self.options, self.context.base)
            return self._client.instances(token=token, limit=limit, index=index, wait=wait), token
        except ProviderError as error:
            raise self._error(str(error)) from None
        except (
            ConsulException,
            RequestException,
            HTTPError,
            OSError,
            ValueError,
            RecursionError,
        ) as error:
            fault = file_fault(self.options, self.context.base)
            why = fault or reason(error, self.options.service, token)
            # Not as its cause: a traceback would show what is left out here.
            raise self._error(why) from None

    def _understood(self, answer: Answer, token: str | None) -> _Outcome:
        """Return the backends, or why the answer can't be used: another one may come.

        The answer may hold the token; what is told of it doesn't.
        """
        try:
            understood = to_backends(answer.instances, self.options)
        except ProviderError as error:
            return self._error(without_token(str(error), token))
        self._tell(tuple(without_token(each, token) for each in understood.doubled))
        return understood.backends

    def _tell(self, doubled: Sequence[str]) -> None:
        """Log what is registered in two ways, each once."""
        if news := [each for each in doubled if each not in self._doubled]:
            log.warning("%s: provider consul: %s", self.context.service, join(news))
        self._doubled = frozenset(doubled)

    def _error(self, text: str) -> ProviderError:
        return ProviderError(f'{self.options.url}: service "{self.options.service}": {text}')


def _is_same(before: _Outcome | None, after: _Outcome | None) -> bool:
    if isinstance(before, ProviderError) and isinstance(after, ProviderError):
        return str(before) == str(after)
    return before == after
