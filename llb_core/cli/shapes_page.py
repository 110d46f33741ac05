"""Write docs/json.md from the models of `shapes`: `python -m llb_core.cli.shapes_page >
docs/json.md`. A test holds the page against that.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from llb_core.cli.shapes import SHAPES

_HEAD = """\
# JSON

Every command that shows something takes `--json`, and prints one object (`llb events` one for each
event, a line each): in one line where the output is not a terminal. Names are stable: what is here
stays, more may come. Times are in seconds since 1970, durations in seconds.

`source` says where it is from: `daemon`, or `maps` where none answers. What the daemon answers is
the same as on the [control socket](steering.md), which [openapi.json](openapi.json) describes.

This page is written from `llb_core/cli/shapes.py`, and tests hold what the commands print against
that.
"""


def write() -> str:
    """Return the page."""
    parts = [_HEAD]
    for command, models in SHAPES.items():
        names = ", or ".join(f"[{each.__name__}](#{each.__name__.lower()})" for each in models)
        parts.append(f"\n- `llb {command} --json`: {names}")
    parts.append("\n")
    for model in _all_models():
        doc = " ".join((model.__doc__ or "").split())
        parts.append(f"\n\n## {model.__name__}\n\n{doc}\n\n| key | |\n|---|---|")
        parts += [
            f"\n| `{name}` | {_text(field.annotation)} |"
            for name, field in model.model_fields.items()
        ]
    return "".join(parts).rstrip() + "\n"


def _all_models() -> list[type[BaseModel]]:
    found: dict[type[BaseModel], None] = {}

    def visit(model: type[BaseModel]) -> None:
        if model in found:
            return
        found[model] = None
        for field in model.model_fields.values():
            for inner in _models_in(field.annotation):
                visit(inner)

    for models in SHAPES.values():
        for each in models:
            visit(each)
    return list(found)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _models_in(each)


_WORDS = {
    str: "string", int: "whole number", float: "number", bool: "true or false", type(None): "null"
}  # fmt: skip


def _text(annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f'`"{each}"`' for each in arguments)
    if origin is list:
        return f"list of: {_text(arguments[0])}"
    if origin is dict:
        return f"object: string to {_text(arguments[1])}"
    if origin in (Union, UnionType):
        return ", or ".join(_text(each) for each in arguments)
    if hasattr(annotation, "__metadata__"):
        return _text(arguments[0])
    raise TypeError(f"{annotation} has no words: is its model below the one that uses it?")


if __name__ == "__main__":
    sys.stdout.write(write())
