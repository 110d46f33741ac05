"""py-consul's client, with what it lacks: read options that its health endpoint doesn't know, time
limits that hold whatever the server does, and queries that another thread can end.

What an answer means is not here (`instances`), nor when to ask again (`blocking`, `provider`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import consul  # type: ignore[import-untyped]
import requests
from consul.base import Response  # type: ignore[import-untyped]
from consul.std import HTTPClient  # type: ignore[import-untyped]

from llb_provider_consul.line import Line, open_session
from llb_provider_consul.options import Agent, ConsulOptions
from llb_provider_consul.trust import check_headers, is_blind

_LARGEST = 64 * 1024 * 1024
_MOST_VALUES = 2_500_000
"""Values in an answer, roughly: as objects of Python's they take some thirty times their text."""
_PIECE = 64 * 1024
_EMPTY = re.compile(r"\s*\[\s*\]\s*")
_ENDLESS = re.compile(r"-?\d{400,}")
_LONGEST_CONNECT = 3.0
"""Seconds; a connection that is being made can't be cut."""

Params = Sequence[tuple[str, Any]]


@dataclass(frozen=True, slots=True)
class Answer:
    """What Consul said, as it said it, and the index to wait for a change of it."""

    index: int
    instances: object


@dataclass(frozen=True, slots=True)
class _Reads:
    """What is said with every query."""

    params: Params
    max_stale: float | None
    must_see: bool
    """Whether an empty answer counts only if somebody was allowed to look."""


class _BoundedHTTP(HTTPClient):  # type: ignore[misc]
    """py-consul's HTTP client for GET, within `limit` seconds, on a line that can be cut."""

    def __init__(
        self, agent: Agent, reads: _Reads, verify: bool | str, cert: Any, server_name: str | None
    ) -> None:
        super().__init__(agent.host, agent.port, agent.scheme, verify, cert)
        self.line = Line()
        self.limit = 0.0
        self.session = open_session(self.line, server_name)
        self._reads = reads

    def get(
        self,
        callback: Callable[[Response], Any],
        path: str,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bool = False,  # noqa: ARG002 - the signature is py-consul's
    ) -> Any:
        """Ask, and hand the answer to `callback`; raises ConsulException and requests' errors."""
        uri = self.uri(path, [*(params or ()), *self._reads.params])
        status, found, body = self._fetch(uri, headers or {})
        if status == 404:
            raise consul.NotFound(f"404 {body}")
        if status < 400:
            if 300 <= status < 400:
                raise consul.ConsulException(
                    f"{status}, a redirect, and none is followed (the token is for one host): set "
                    "url to the agent itself"
                )
            if status != 200:
                raise consul.ConsulException(
                    f"{status}, which is no answer of Consul's: does url lead to the agent?"
                )
            check_headers(found, self._reads.max_stale)
            has_token = "X-Consul-Token" in (headers or {})
            is_empty = _EMPTY.fullmatch(body) is not None
            if is_empty and self._reads.must_see and is_blind(found, has_token=has_token):
                raise consul.ACLPermissionDenied(
                    "the answer is empty, but no ACL token was sent and Consul's default policy is "
                    "deny (set anonymous = true if nobody needs one)"
                )
        # Python's JSON fails over such a number, and can't say where it stands; infinity is refused
        # with its place.
        return callback(Response(status, found, _ENDLESS.sub("1e999", body)))

    def close(self) -> None:
        """Cut the line, and close what is not in use."""
        self.line.cut()
        self.session.close()

    def _fetch(self, uri: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str], str]:
        """Return status, headers and body; raise consul.Timeout where they take too long."""
        failure: Exception | None = None
        with self.line.within(self.limit):
            try:
                answer = self._fetch_on_line(uri, headers)
            except Exception as error:  # noqa: BLE001 - which one, a cut line leaves to chance
                failure = error
        try:
            if self.line.is_late or isinstance(failure, requests.ReadTimeout):
                # Even where there is an answer: one that is cut among its headers passes for whole.
                raise consul.Timeout(
                    f"no answer within {self.limit:.3g} s: does the agent hang? or raise timeout"
                ) from failure
            if failure is not None:
                raise failure
        finally:
            del failure  # Its traceback holds this frame, and all that was read till then.
        return answer

    def _fetch_on_line(
        self, uri: str, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], str]:
        # Follows no redirect: the token is for one host only.
        with self.session.get(
            uri,
            headers=dict(headers),
            verify=self.verify,
            cert=self.cert,
            timeout=(min(self.limit, _LONGEST_CONNECT), self.limit),
            allow_redirects=False,
            stream=True,
        ) as response:
            return response.status_code, response.headers, _read(response)


class ConsulClient(consul.Consul):  # type: ignore[misc]
    """A client of one agent and one service, for one thread."""

    def __init__(self, options: ConsulOptions, base: Path) -> None:
        self._options = options
        self._base = base
        agent: Agent = options.url
        super().__init__(
            host=agent.host,
            port=agent.port,
            scheme=agent.scheme,
            dc=options.datacenter,
            verify=self._path(options.ca_file) or True,
            cert=self._certificate(),
        )
        # py-consul prefers CONSUL_HTTP_TOKEN to what it is given; which token counts is `token`'s.
        self.token = None

    def http_connect(
        self, host: str, port: int, scheme: str, verify: bool | str = True, cert: Any = None
    ) -> _BoundedHTTP:
        """Make the HTTP client; the constructor of py-consul's class asks for it."""
        reads = _Reads(
            params=tuple(_read_params(self._options)),
            max_stale=self._options.max_stale if self._options.consistency == "stale" else None,
            must_see=not self._options.anonymous,
        )
        return _BoundedHTTP(
            Agent(scheme, host, port), reads, verify, cert, self._options.server_name
        )

    def instances(
        self, *, token: str | None, limit: float, index: int = 0, wait: str | None = None
    ) -> Answer:
        """Return the service's instances, within `limit` seconds.

        With an index, wait for a change of what was answered with it. Raises ConsulException and
        requests' errors.
        """
        options = self._options
        self.http.limit = limit
        found, data = self.health.service(
            options.service,
            index=index,
            wait=wait,
            tag=options.tags or None,
            near=options.near,
            token=token,
        )
        return Answer(int(found), data)

    def close(self) -> None:
        """End the query that is under way, and let no other begin. May be called from another
        thread."""
        self.http.close()

    def _path(self, path: Path | None) -> str | None:
        return None if path is None else str(self._base / path)

    def _certificate(self) -> str | tuple[str, str] | None:
        certificate, key = self._path(self._options.cert_file), self._path(self._options.key_file)
        if certificate is None or key is None:
            return certificate
        return certificate, key


def _read_params(options: ConsulOptions) -> Params:
    params: list[tuple[str, Any]] = []
    if options.consistency == "stale":
        # Consul's own agent asks the leader where a server's answer is older than that.
        params += [("stale", "1"), ("max_stale", f"{int(options.max_stale * 1000)}ms")]
    elif options.consistency == "consistent":
        params.append(("consistent", "1"))
    if options.filter is not None:
        params.append(("filter", options.filter))
    if options.namespace is not None:
        params.append(("ns", options.namespace))
    if options.partition is not None:
        params.append(("partition", options.partition))
    return params


def _read(response: requests.Response) -> str:
    body = bytearray()
    for piece in response.iter_content(_PIECE):
        body += piece
        if len(body) > _LARGEST:
            raise consul.ConsulException(f"the answer is larger than {_LARGEST >> 20} MiB")
    if body.count(b",") > _MOST_VALUES:
        raise consul.ConsulException(
            f"the answer has more than {_MOST_VALUES:,} values: ask for fewer by tags or filter"
        )
    return body.decode("utf-8")
