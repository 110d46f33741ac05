"""Turn the text of a backends file into backends. Pure: reading it is `provider`'s."""

from __future__ import annotations

import ipaddress
import tomllib
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
)

from llb_core import MAX_WEIGHT, Address, Backend, Endpoint, ProviderError, problems

_SHOWN = 3
"""Problems that an error names before it counts."""


def _parse_address(value: object) -> Address:
    if isinstance(value, str):
        try:
            return ipaddress.ip_address(value)
        except ValueError:
            pass
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    raise ValueError(f"{shown:.60} is not an IP address")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    address: Annotated[Any, BeforeValidator(_parse_address)]
    port: Annotated[StrictInt, Field(ge=1, le=65535)]
    weight: Annotated[StrictInt, Field(ge=0, le=MAX_WEIGHT)] = 1
    draining: StrictBool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    backends: list[_Entry]


def parse_backends(text: str, name: str) -> tuple[Backend, ...]:
    """Return the backends, in the file's order; `name` is what errors call the file.

    Raises ProviderError that names the file and the place in it.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ProviderError(f"{name}: is not valid TOML: {error}") from None
    if "backends" not in document:
        raise ProviderError(f"{name}: backends: is missing: write backends = [] for none")
    try:
        entries = _File.model_validate(document).backends
    except ValidationError as error:
        raise ProviderError(_join(name, problems(error, document, model=_File))) from None
    places: dict[Endpoint, int] = {}
    twice = []
    for place, entry in enumerate(entries):
        endpoint = Endpoint(entry.address, entry.port)
        first = places.setdefault(endpoint, place)
        if first != place:
            twice.append(f"backends[{place}]: {endpoint} is backends[{first}] already")
    if twice:
        raise ProviderError(_join(name, twice))
    return tuple(
        Backend(Endpoint(entry.address, entry.port), entry.weight, entry.draining)
        for entry in entries
    )


def _join(name: str, lines: list[str]) -> str:
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return f"{name}: {'; '.join(lines[:_SHOWN])}{more}"
