"""Turn the text of a backends file into backends. Pure: reading it is `provider`'s."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterable
from contextlib import suppress
from itertools import islice
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    ValidationError,
)

from llb_core import (
    MAX_BACKENDS,
    MAX_WEIGHT,
    Address,
    Backend,
    Endpoint,
    ProviderError,
    parse_toml,
    problems,
)
from llb_provider_static.file_sd import Group, Groups, backends_of
from llb_provider_static.json_text import read_json

ModelT = TypeVar("ModelT", bound=BaseModel)

_SHOWN = 3
"""Problems that an error names before it counts."""
_LOOKED_AT = 1000
"""Problems that are looked at, in a file that is all wrong."""
_TABLE = re.compile(r"^[ \t]*+\[", re.MULTILINE)
_TOO_MANY = (
    f"more than {MAX_BACKENDS} backends for one service: have fewer named, or share them out among "
    "several services"
)


def _parse_address(value: object) -> Address:
    if isinstance(value, str):
        try:  # In half of the time, as most are.
            return ipaddress.IPv4Address(socket.inet_pton(socket.AF_INET, value))
        except (OSError, ValueError):
            with suppress(ValueError):
                return ipaddress.ip_address(value)
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    raise ValueError(f"{shown:.60} is not an IP address: write one, as 10.0.0.2 or 2001:db8::2")


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")

    address: Annotated[Any, BeforeValidator(_parse_address)]
    port: Annotated[StrictInt, Field(ge=1, le=65535)]
    weight: Annotated[StrictInt, Field(ge=0, le=MAX_WEIGHT)] = 1
    draining: StrictBool = False


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    backends: list[_Entry]


def parse_backends(
    text: str, name: str, kind: Literal["toml", "json"] = "toml"
) -> tuple[Backend, ...]:
    """Return the backends, in the file's order; `name` is what errors call the file.

    A list, which JSON alone can begin with, is in the shape of Prometheus' file_sd. Raises
    ProviderError that names the file and the place in it.
    """
    document = _read_toml(text, name) if kind == "toml" else _read_json(text, name)
    place = _past_the_limit(document)
    if place is not None:
        raise ProviderError(f"{name}: {place}: {_TOO_MANY}")
    if isinstance(document, list):
        groups = _validated(Groups, document, name, keys=Group)
        return _each_once(backends_of(groups), name)
    if not isinstance(document, dict):
        raise ProviderError(f"{name}: is neither a table with the key backends nor a list")
    if "backends" not in document:
        none = "backends = []" if kind == "toml" else '{"backends": []}'
        raise ProviderError(f"{name}: backends: is missing: write {none} for none")
    entries = _validated(_File, document, name, keys=_File).backends
    return _each_once(
        (
            (f"backends[{place}]", Endpoint(e.address, e.port), e.weight, e.draining)
            for place, e in enumerate(entries)
        ),
        name,
    )


def _past_the_limit(document: object) -> str | None:
    """Return the place of the first entry that is one too many, before any is looked at."""
    if isinstance(document, dict):
        entries = document.get("backends")
        is_long = isinstance(entries, list) and len(entries) > MAX_BACKENDS
        return f"backends[{MAX_BACKENDS}]" if is_long else None
    if not isinstance(document, list):
        return None
    left = MAX_BACKENDS
    for number, group in enumerate(document):
        targets = group.get("targets") if isinstance(group, dict) else None
        if isinstance(targets, list):
            if len(targets) > left:
                return f"[{number}].targets[{left}]"
            left -= len(targets)
        if number >= MAX_BACKENDS:
            return f"[{number}]"
    return None


def _read_toml(text: str, name: str) -> Any:
    # Reading a megabyte of tables takes a second and more, so they are counted first.
    table = next(islice(_TABLE.finditer(text), MAX_BACKENDS, None), None)
    if table is not None:
        line = text.count("\n", 0, table.end()) + 1
        raise ProviderError(f"{name}: backends[{MAX_BACKENDS}] (at line {line}): {_TOO_MANY}")
    try:
        return parse_toml(text)
    except ValueError as error:
        raise ProviderError(f"{name}: is not valid TOML: {error}") from None


def _read_json(text: str, name: str) -> Any:
    try:
        return read_json(text)
    except ValueError as error:
        raise ProviderError(f"{name}: {error}") from None


def _validated(
    shape: type[ModelT], document: object, name: str, *, keys: type[BaseModel]
) -> ModelT:
    try:
        return shape.model_validate(document)
    except ValidationError as error:
        lines = problems(error, document, model=keys, most=_LOOKED_AT)
        more = max(0, error.error_count() - _LOOKED_AT)
        raise ProviderError(_join(name, lines, more)) from None


def _each_once(
    entries: Iterable[tuple[str, Endpoint, int, bool]], name: str
) -> tuple[Backend, ...]:
    """Return the backends of (place in the file, endpoint, weight, whether it drains), each of
    which must be there but once."""
    places: dict[Endpoint, str] = {}
    backends, twice = [], []
    for place, endpoint, weight, draining in entries:
        first = places.setdefault(endpoint, place)
        if first != place:
            twice.append(f"{place}: {endpoint} is {first} already: remove one of them")
        backends.append(Backend(endpoint, weight, draining, entry=f"{name}: {place}"))
    if twice:
        raise ProviderError(_join(name, twice))
    return tuple(backends)


def _join(name: str, lines: list[str], unseen: int = 0) -> str:
    """Return an error of these problems, and of so many that were not looked at."""
    more = max(0, len(lines) - _SHOWN) + unseen
    counted = f"; and {more} more" if more else ""
    return f"{name}: {'; '.join(lines[:_SHOWN])}{counted}"
