"""Document a provider's options from their pydantic model, in the words of llb.toml. Pure."""

from __future__ import annotations

import enum
import ipaddress
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from llb_core.durations import parse_duration
from llb_core.validation import show, sounds_secret

_WORDS: tuple[tuple[type[Any], str], ...] = (
    (bool, "true or false"),
    (int, "whole number"),
    (float, "number"),
    (PurePath, "path"),
    (str, "string"),
    (SecretStr, "string"),
    (ipaddress.IPv4Address, "IP address"),
    (ipaddress.IPv6Address, "IP address"),
    (ipaddress.IPv4Network, "network"),
    (ipaddress.IPv6Network, "network"),
    (Mapping, "table"),
    (BaseModel, "table"),
)


@dataclass(frozen=True, slots=True)
class OptionDoc:
    """An option as it is documented. `default` is None where it must be given, and empty where
    nothing stands for it; the default of a secret is not told."""

    name: str
    type: str
    default: str | None
    is_secret: bool
    description: str


def describe(options: type[BaseModel]) -> tuple[OptionDoc, ...]:
    """Return the options of a model, those that must be given first; the keys of an inner table
    `a` as `a.b`, after a line of its own where it is described."""
    return tuple(sorted(_walk(options), key=lambda option: option.default is not None))


def _walk(options: type[BaseModel], prefix: str = "") -> Iterator[OptionDoc]:
    for name, field in options.model_fields.items():
        key = prefix + (field.alias or name)
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            if field.description:
                needed = None if field.is_required() else ""
                yield OptionDoc(
                    key, "table", needed, is_secret=False, description=field.description
                )
            yield from _walk(inner, f"{key}.")
            continue
        is_secret = sounds_secret(name) or SecretStr in _parts(inner)
        yield OptionDoc(
            name=key,
            type=_said_type(field) or _type(inner, field.metadata),
            default=_default(field, is_secret),
            is_secret=is_secret,
            description=field.description or "",
        )


def _said_type(field: FieldInfo) -> str:
    """Return what the model itself calls its type: `Field(json_schema_extra={"type": "URL"})`."""
    extra = field.json_schema_extra
    return str(extra.get("type", "")) if isinstance(extra, Mapping) else ""


def _default(field: FieldInfo, is_secret: bool) -> str | None:
    if field.is_required():
        return None
    if field.default_factory is not None and field.default_factory_takes_validated_data:
        return ""
    value = field.get_default(call_default_factory=True)
    if value is None or value in ((), [], {}) or is_secret:
        return ""
    return show(value)


def _type(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """Write a type: `whole number, 1 to 65535`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(arguments[0], [*_flat(arguments[1:]), *metadata])
    if origin in (Union, types.UnionType):
        return _either(_type(each, metadata) for each in arguments if each is not type(None))
    if origin is Literal:
        return _either(map(show, arguments))
    if isinstance(annotation, type) and issubclass(annotation, enum.Enum):
        return _either(show(each.value) for each in annotation)
    kind = origin or annotation
    if not isinstance(kind, type):
        return "value"
    if issubclass(kind, list | tuple | set | frozenset):
        items = [each for each in arguments if each is not Ellipsis]
        return f"list ({_type(items[0])})" if items else "list"
    metadata = list(_flat(metadata))
    word = next((word for known, word in _WORDS if issubclass(kind, known)), "value")
    if any(getattr(each, "func", None) is parse_duration for each in metadata):
        word = "duration (seconds, or as 500ms, 5s, 2h)"
    return word + _limits(metadata)


def _either(words: Iterable[str]) -> str:
    *others, last = dict.fromkeys(words)
    return f"{', '.join(others)} or {last}" if others else last


def _limits(metadata: Iterable[Any]) -> str:
    low = high = above = below = None
    for each in metadata:
        low = getattr(each, "ge", low) if isinstance(each, annotated_types.Ge) else low
        high = getattr(each, "le", high) if isinstance(each, annotated_types.Le) else high
        above = getattr(each, "gt", above) if isinstance(each, annotated_types.Gt) else above
        below = getattr(each, "lt", below) if isinstance(each, annotated_types.Lt) else below
    if low is not None and high is not None:
        return f", {low} to {high}"
    limits = {"at least": low, "more than": above, "at most": high, "less than": below}
    return "".join(f", {words} {value}" for words, value in limits.items() if value is not None)


def _flat(metadata: Iterable[Any]) -> Iterator[Any]:
    for each in metadata:
        if isinstance(each, FieldInfo):
            yield from each.metadata
        else:
            yield each


def _parts(annotation: Any) -> Iterator[Any]:
    yield annotation
    for each in get_args(annotation):
        yield from _parts(each)
