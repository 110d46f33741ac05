"""The options of the provider, parsed once: what may stand in llb.toml, and what it means there."""

from __future__ import annotations

import enum
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, SecretStr, StrictBool, StrictInt, model_validator

from llb_core import ProviderOptions, parse_duration

ADDRESS_VARIABLE = "CONSUL_HTTP_ADDR"
TOKEN_VARIABLE = "CONSUL_HTTP_TOKEN"


class Treatment(enum.StrEnum):
    """What becomes of an instance in a certain state."""

    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
    UNKNOWN = "unknown"
    """LLB's own checks alone decide."""
    DRAIN = "drain"
    EXCLUDE = "exclude"
    """It is no backend."""


@dataclass(frozen=True, slots=True)
class Agent:
    """Where Consul's HTTP API is; `host` as it stands in a URL."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{self.host}:{self.port}"


def parse_agent(value: object) -> Agent:
    """Return the agent of `"https://consul.example:8501"` or `"127.0.0.1:8500"`."""
    shown = f'"{value}" is not the address of a Consul agent, like "http://127.0.0.1:8500"'
    if isinstance(value, Agent):
        return value
    if not isinstance(value, str):
        raise ValueError(shown)
    if value.startswith("unix:"):
        raise ValueError(f'"{value}" is a Unix socket: give the agent\'s TCP address')
    try:
        parts = urlsplit(value if "//" in value else f"//{value}", scheme="http")
        port = parts.port
    except ValueError:
        raise ValueError(shown) from None
    if "@" in parts.netloc:
        raise ValueError("a name and password in the URL are not supported: use an ACL token")
    is_bare = parts.path in ("", "/") and not parts.query and not parts.fragment
    if parts.scheme not in ("http", "https") or not parts.hostname or not is_bare or port == 0:
        raise ValueError(shown)
    if port is None:
        port = 8501 if parts.scheme == "https" else 8500
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return Agent(parts.scheme, host, port)


def _between(shortest: str, longest: str) -> BeforeValidator:
    """Return what makes a number of seconds of a duration within these limits."""

    def parse(value: object) -> float:
        seconds = parse_duration(value)
        if parse_duration(shortest) <= seconds <= parse_duration(longest):
            return seconds
        shown = f'"{value}"' if isinstance(value, str) else value
        raise ValueError(f'{shown} is not a duration from "{shortest}" to "{longest}"')

    return BeforeValidator(parse)


def _parse_tags(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _parse_service(value: object) -> str:
    if isinstance(value, str) and re.fullmatch(r"[^/\s\x00-\x1f]+", value) and value.strip("."):
        return value
    shown = f'"{value}"' if isinstance(value, str) else value
    raise ValueError(f"{shown} is not the name of a service in Consul")


def _agent_of_environment() -> Any:
    return os.environ.get(ADDRESS_VARIABLE) or "http://127.0.0.1:8500"


Word = Annotated[str, Field(min_length=1)]


class ConsulOptions(ProviderOptions):
    """The options of the provider `consul`. Paths are relative to llb.toml."""

    service: Annotated[str, BeforeValidator(_parse_service)] = Field(
        description="the service's name in Consul"
    )
    url: Annotated[Any, BeforeValidator(parse_agent)] = Field(
        default_factory=_agent_of_environment,
        validate_default=True,
        json_schema_extra={"type": "URL, http or https"},
        description=f"the agent; by default ${ADDRESS_VARIABLE} or http://127.0.0.1:8500",
    )
    datacenter: Word | None = Field(None, description="by default the agent's")
    namespace: Word | None = Field(None, description="of Consul Enterprise")
    partition: Word | None = Field(None, description="of Consul Enterprise")
    tags: Annotated[list[Word], BeforeValidator(_parse_tags)] = Field(
        [], description="one or a list: an instance must have them all"
    )
    filter: Word | None = Field(
        None, description='a filter expression of Consul\'s: Service.Meta.zone == "a"'
    )
    near: Word | None = Field(
        None,
        description="a node, or _agent: the answer is sorted by the way from there",
    )

    consistency: Literal["stale", "default", "consistent"] = Field(
        "stale", description="which of Consul's servers may answer, and what it asks the others"
    )
    max_stale: Annotated[float, _between("1ms", "1h")] = Field(
        10.0,
        json_schema_extra={"type": "duration, 1ms to 1h"},
        description="how long a server that answers may have been without the leader",
    )
    wait: Annotated[float, _between("1s", "10m")] = Field(
        60.0,
        json_schema_extra={"type": "duration, 1s to 10m"},
        description="how long a blocking query may take at most",
    )
    timeout: Annotated[float, _between("100ms", "25s")] = Field(
        10.0,
        json_schema_extra={"type": "duration, 100ms to 25s"},
        description="how long any other query may take",
    )

    address: Literal["service", "node"] = Field(
        "service",
        description="the instance's address (the node's where it has none), or the node's",
    )
    port: Annotated[StrictInt, Field(ge=1, le=65535)] | None = Field(
        None, description="instead of the instance's"
    )
    passing: Treatment = Field(Treatment.HEALTHY, description="all checks pass, or there are none")
    warning: Treatment = Field(Treatment.HEALTHY, description="a check warns")
    critical: Treatment = Field(Treatment.UNHEALTHY, description="a check is critical")
    maintenance: Treatment = Field(
        Treatment.DRAIN, description="the instance or its node is in maintenance mode"
    )

    token_file: Path | None = Field(None, description="a file with the ACL token, read every time")
    token_env: Word | None = Field(
        None, description=f"the variable with the ACL token, by default {TOKEN_VARIABLE}"
    )
    token: SecretStr | None = Field(None, description="the ACL token itself")
    anonymous: StrictBool = Field(
        default=False, description="believe an empty answer though no ACL token was sent"
    )

    ca_file: Path | None = Field(None, description="the authorities that may sign the agent's name")
    cert_file: Path | None = Field(None, description="the certificate that LLB shows")
    key_file: Path | None = Field(None, description="its key, where it is not in cert_file")
    server_name: Word | None = Field(
        None, description="the name in the agent's certificate, where it is not the URL's"
    )

    @model_validator(mode="after")
    def _have_one_meaning(self) -> ConsulOptions:
        tokens = sorted(self.model_fields_set & {"token", "token_env", "token_file"})
        if len(tokens) > 1:
            raise ValueError(f"{' and '.join(tokens)} are given: give one of them")
        tls = sorted(self.model_fields_set & {"ca_file", "cert_file", "key_file", "server_name"})
        if tls and self.url.scheme != "https":
            raise ValueError(f"{' and '.join(tls)} go with an https:// url only, not {self.url}")
        if self.key_file and not self.cert_file:
            raise ValueError("key_file goes with cert_file")
        return self
