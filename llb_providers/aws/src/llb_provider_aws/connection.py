"""Reach AWS: sessions, credentials, assumed roles and retries, all of them boto3's own.

What asks with the same options shares one connection: clients take memory, and AWS throttles by
account and region, so that retries should have one quota. What the answers mean is not here
(`target_group`, `auto_scaling`, `instances`).
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import boto3  # type: ignore[import-untyped]
import botocore.session  # type: ignore[import-untyped]
from botocore import xform_name
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.credentials import (  # type: ignore[import-untyped]
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.exceptions import (  # type: ignore[import-untyped]
    NoCredentialsError,
    NoRegionError,
)
from botocore.loaders import create_loader  # type: ignore[import-untyped]

from llb_provider_aws.faults import explain, unreadable

Answer = Mapping[str, Any]
"""A part of an answer as botocore parses it: anything in it may be missing."""
_RENEWAL = 5.0
"""Seconds for which a session serves at least, however often its credentials are refused."""
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Access:
    """How AWS is reached; the options of the same names say it. Timeouts are in seconds."""

    region: str | None = None
    profile: str | None = None
    role_arn: str | None = None
    external_id: str | None = field(default=None, repr=False)
    role_session_name: str = "llb"
    endpoint_url: str | None = None
    connect_timeout: float = 3.0
    read_timeout: float = 8.0
    max_attempts: int = 3


_connections: weakref.WeakValueDictionary[Access, Connection] = weakref.WeakValueDictionary()
_connecting = threading.Lock()


def connect(access: Access) -> Connection:
    """Return the connection of that access, shared as long as anybody holds it. Asks nobody."""
    with _connecting:
        connection = _connections.get(access)
        if connection is None:
            connection = _connections[access] = Connection(access)
        return connection


class Connection:
    """Calls to AWS in one region as one identity. For several threads."""

    def __init__(self, access: Access, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._access = access
        self._clock = clock
        self._region = access.region
        self._lock = threading.Lock()
        self._session: Any = None
        self._made_at = 0.0
        self._clients: dict[str, Any] = {}
        self._unparsed = threading.local()
        _silence_the_sdk()

    def __repr__(self) -> str:
        return f"<Connection to {self.place}>"

    @property
    def place(self) -> str:
        """What errors call it."""
        return f"AWS {self._region}" if self._region else "AWS"

    def call(
        self,
        service: str,
        operation: str,
        key: str,
        /,
        *,
        about: str = "",
        find_wrong: Callable[[bytes], str] = lambda _: "",
        **arguments: Any,
    ) -> list[Answer]:
        """Call an operation, and return the list that stands under `key` in the answer.

        `about` is what errors call the one that is asked for, as " of target group web"; an answer
        that botocore can't parse goes to `find_wrong`, which returns what is wrong with it, where
        it sees that. Raises AwsError; a list that is missing is an error, not an empty one.
        """

        def ask() -> Any:
            return getattr(self._client(service), xform_name(operation))(**arguments)

        answer = self._asked(ask, operation, about, find_wrong)
        return self._list(answer, key, operation, about)

    def pages(
        self, service: str, operation: str, key: str, /, *, size: int, **arguments: Any
    ) -> Iterator[list[Answer]]:
        """Do the same page by page, of `size` entries at most."""

        def begin() -> Iterator[Any]:
            paginator = self._client(service).get_paginator(xform_name(operation))
            return iter(paginator.paginate(**arguments, PaginationConfig={"PageSize": size}))

        pages = self._asked(begin, operation)
        while (page := self._asked(lambda: next(pages, None), operation)) is not None:
            yield self._list(page, key, operation)

    def _asked(
        self,
        ask: Callable[[], _Result],
        operation: str,
        about: str = "",
        find_wrong: Callable[[bytes], str] = lambda _: "",
    ) -> _Result:
        self._unparsed.body = b""
        try:
            return ask()
        except Exception as error:  # noqa: BLE001 - botocore's parsers raise what they will
            wrong = find_wrong(self._unparsed.body) if isinstance(error, ValueError) else ""
            told = explain(error, self.place, operation, about=about, wrong=wrong)
        finally:
            self._unparsed.body = b""
        if told.is_of_credentials:
            self._forget_credentials()
        raise told

    def _list(self, answer: Any, key: str, operation: str, about: str = "") -> list[Answer]:
        found = answer.get(key) if isinstance(answer, Mapping) else None
        if not isinstance(found, list) or not all(isinstance(each, Mapping) for each in found):
            raise unreadable(self.place, operation, about=about, lacks=key)
        return found

    def _client(self, service: str) -> Any:
        with self._lock:  # a session, unlike a client, is for one thread
            client = self._clients.get(service)
            if client is None:
                if self._session is None:
                    self._session, self._made_at = self._make_session(), self._clock()
                client = self._clients[service] = self._session.client(
                    service, endpoint_url=self._access.endpoint_url, config=self._config()
                )
                client.meta.events.register("before-parse", self._keep_unparsed)
            return client

    def _keep_unparsed(self, response_dict: Mapping[str, Any], **_: Any) -> None:
        """Keep an answer's text until it is parsed; botocore calls it in the thread that asks."""
        self._unparsed.body = response_dict.get("body") or b""

    def _forget_credentials(self) -> None:
        """Begin anew with the next call: who renews keys in a file has them read again."""
        with self._lock:
            if self._session is not None and self._clock() - self._made_at >= _RENEWAL:
                self._session = None
                self._clients = {}

    def _make_session(self) -> Any:
        session = _session(self._access.profile)
        region = self._access.region or session.get_config_variable("region")
        if not region:
            raise NoRegionError
        self._region = region
        if self._access.role_arn is not None:
            role = _AssumedRole(session, self._access, region, self._config())
            session = _session(self._access.profile)
            session.register_component("credential_provider", CredentialResolver([role]))
        return boto3.Session(botocore_session=session, region_name=region)

    def _config(self) -> Config:
        access = self._access
        return Config(
            connect_timeout=access.connect_timeout,
            read_timeout=access.read_timeout,
            retries={"mode": "standard", "total_max_attempts": access.max_attempts},
            user_agent_extra="llb-provider-aws",
        )


class _AssumedRole(CredentialProvider):  # type: ignore[misc] # untyped
    """Credentials of a role, assumed when they are needed and again before they expire."""

    METHOD = "assume-role"

    def __init__(self, source: Any, access: Access, region: str, config: Config) -> None:
        super().__init__()
        self._source = source
        self._access = access
        self._region = region
        self._config = config

    def load(self) -> Any:
        credentials = self._source.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        arguments = {"RoleSessionName": self._access.role_session_name}
        if self._access.external_id is not None:
            arguments["ExternalId"] = self._access.external_id
        fetcher = AssumeRoleCredentialFetcher(
            self._sts_client, credentials, self._access.role_arn, extra_args=arguments
        )
        return DeferredRefreshableCredentials(
            refresh_using=fetcher.fetch_credentials, method=self.METHOD
        )

    def _sts_client(self, service: str, **credentials: Any) -> Any:
        return self._source.create_client(
            service,
            region_name=self._region,
            endpoint_url=self._access.endpoint_url,
            config=self._config,
            **credentials,
        )


def _session(profile: str | None) -> Any:
    session = botocore.session.Session(profile=profile)
    session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


@functools.cache
def _loader(search_path: str | None) -> Any:
    """Return what reads botocore's descriptions of AWS: 10 MiB of JSON, once for all sessions."""
    return create_loader(search_path)


def _silence_the_sdk() -> None:
    """Keep the SDK from logging what it signs and receives, credentials among it, however
    talkative the program is otherwise. What goes wrong is told by our errors."""
    floors = dict.fromkeys(("boto3", "botocore", "s3transfer", "urllib3"), logging.WARNING)
    floors["botocore.credentials"] = logging.ERROR  # tells failures with AWS's whole answer
    for name, floor in floors.items():
        logger = logging.getLogger(name)
        if logger.level < floor:
            logger.setLevel(floor)
