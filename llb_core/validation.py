"""Say in one line each what is wrong with a table of a TOML file: pydantic's errors in our words.

Used for llb.toml, for the options of a provider, and by providers for files of their own.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

_SECRET = re.compile(
    r"token|secret|password|passwd|credential|(access|private)_?key", re.IGNORECASE
)
_LONGEST_VALUE = 60
_DEEPEST_KEY = 16
"""Parts of a dotted key: tomllib's time grows with their number's square and more."""
_PART = r"""(?:[A-Za-z0-9_-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')"""
_TOO_DEEP = re.compile(
    rf"(?:^|[{{,])[ \t]*+\[{{0,2}}+[ \t]*+(?:{_PART}[ \t]*+\.[ \t]*+){{{_DEEPEST_KEY}}}",
    re.MULTILINE,
)
_TOO_LONG = re.compile(r"(\d_?){4300}")

UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
"""The units of durations, in seconds."""
_IN_A_UNIT = re.compile(rf"[\d.]+\s*(?:{'|'.join(UNITS)})")

_SENTENCES = {
    "missing": "is missing",
    "int_type": "{value} is not a whole number: write one, as 1",
    "int_from_float": "{value} is not a whole number: write one, as 1",
    "int_parsing": "{value} is not a whole number",
    "float_type": "{value} is not a number",
    "float_parsing": "{value} is not a number",
    "finite_number": "{value} is not a finite number",
    "string_type": "{value} is not a string",
    "path_type": "{value} is not a path",
    "bool_type": "{value} is neither true nor false",
    "bool_parsing": "{value} is neither true nor false",
    "list_type": "{value} is not a list",
    "dict_type": "{value} is not a table",
    "model_type": "{value} is not a table",
    "model_attributes_type": "{value} is not a table",
    "greater_than": "{value} is not more than {gt}",
    "greater_than_equal": "{value} is less than {ge}: write {ge} or more",
    "less_than": "{value} is not less than {lt}",
    "less_than_equal": "{value} is more than {le}: write {le} or less",
    "literal_error": "{value} is not {expected}",
    "enum": "{value} is not {expected}",
    "too_short": "is empty",
    "string_too_short": "is empty",
}


def parse_toml(text: str) -> dict[str, Any]:
    """Return the document that a TOML text is; raise ValueError that says what is wrong, and in
    which line."""
    deep = _TOO_DEEP.search(text)
    if deep is not None:
        raise ValueError(
            f"a key of more than {_DEEPEST_KEY} parts (at line {_line(text, deep.end())}): "
            "write fewer, with dots between"
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ValueError(str(error)) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except ValueError:  # Python reads no number of more digits (sys.get_int_max_str_digits()).
        long = _TOO_LONG.search(text)
        line = _line(text, long.start()) if long else 1
        raise ValueError(f"a number of thousands of digits (at line {line})") from None


def _line(text: str, place: int) -> int:
    return text.count("\n", 0, place) + 1


def problems(
    error: ValidationError, document: object, *, model: type[BaseModel], most: int | None = None
) -> list[str]:
    """Return a line for each problem: the key, the value, and what is wrong with it.

    `document` is what was validated against `model`: it tells a list's index, which is shown, from
    one that a validator made up. `most` is how many problems are looked at, where there may be very
    many; by default all are.
    """
    lines: dict[str, None] = {}
    for each in error.errors(include_url=False)[:most]:
        place = key_path(each["loc"], document)
        sentence = _sentence(each, model)
        lines[f"{place}: {sentence}" if place else sentence] = None
    return list(lines)


def key_path(location: Sequence[str | int], document: object) -> str:
    """Write a location as the file's reader would: `services.web.address[1]`."""
    path = ""
    here: Any = document
    for step in location:
        if isinstance(step, int):
            if not isinstance(here, list):
                continue
            path += f"[{step}]"
            here = here[step] if step < len(here) else None
        elif step == "[key]":  # pydantic's word for: it is the key itself
            continue
        else:
            shown = step if step.isprintable() else show(step)
            path += f".{shown}" if path else shown
            here = here.get(step) if isinstance(here, dict) else None
    return path


def show(value: object) -> str:
    """Write a value as it stands in the file, cut off where it is long."""
    try:
        text = json.dumps(value, default=str, ensure_ascii=False)
    except ValueError:  # Python writes no number of thousands of digits.
        text = f"{type(value).__name__} of thousands of digits"
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 1] + "…"


def sounds_secret(name: str) -> bool:
    """Say whether a key of that name holds a secret itself, and not the place of one."""
    is_place = name.lower().endswith(("_file", "_path", "_env", "_name"))
    return _SECRET.search(name) is not None and not is_place


def _sentence(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    kind = error["type"]
    location: tuple[str | int, ...] = error["loc"]
    if kind == "extra_forbidden":
        return "unknown key" + _guess(location, model)
    if kind == "value_error":
        return str(error["ctx"]["error"])
    is_secret = any(isinstance(step, str) and _SECRET.search(step) for step in location)
    value = "the value (not shown)" if is_secret else show(error["input"])
    template = _SENTENCES.get(kind)
    if template is None:
        return f"{value}: {error['msg']}"
    context = {key: _bound(each, error["input"]) for key, each in error.get("ctx", {}).items()}
    return template.format(value=value, **context)


def _bound(bound: object, value: object) -> object:
    """Write a bound as the value is written: that of a duration in its largest unit, as `"7d"`."""
    if not isinstance(bound, int | float):
        return bound
    if isinstance(value, str) and _IN_A_UNIT.fullmatch(value.strip()):
        for unit, seconds in reversed(UNITS.items()):
            if bound >= seconds and bound % seconds == 0:
                return f'"{bound / seconds:g}{unit}"'
    return f"{bound:.15g}"


def _guess(location: Sequence[str | int], model: type[BaseModel]) -> str:
    known = _keys_beside(location, model)
    close = difflib.get_close_matches(str(location[-1]), known, n=1)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (known are: {', '.join(known)})" if known else ""


def _keys_beside(location: Sequence[str | int], model: type[BaseModel]) -> list[str]:
    """Return the keys that the table at this place may have, by walking the models' fields."""
    here: type[BaseModel] | None = model
    for step in location[:-1]:
        if here is None:
            return []
        if isinstance(step, str) and step in here.model_fields:
            inner = _model_in(here.model_fields[step].annotation)
            if inner is not None:
                here = inner
    return sorted(here.model_fields) if here else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
