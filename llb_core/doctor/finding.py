"""One thing that was looked at, and how it is."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass

from llb_core.errors import LLBError


class State(enum.StrEnum):
    """How a thing is."""

    OK = "ok"
    WARN = "warn"
    """It works, or will: but somebody should know."""
    FAIL = "fail"
    """Something does not work that should."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What was looked at, how it is, what was found, and the remedy, empty where it is well."""

    what: str
    state: State
    found: str
    remedy: str = ""


def judge(
    what: str, is_well: bool, found: str, remedy: str, otherwise: State = State.FAIL
) -> Finding:
    """Return a finding: well, or else, with a remedy."""
    return Finding(what, State.OK, found) if is_well else Finding(what, otherwise, found, remedy)


def attempt(what: str, look: Callable[[], object], found: str, remedy: str) -> Finding:
    """Return a finding: well, unless `look` raises what is wrong."""
    try:
        look()
    except LLBError as error:
        return Finding(what, State.FAIL, str(error), remedy)
    return Finding(what, State.OK, found)


def some(names: list[str], most: int = 5) -> str:
    """Name so many, and count the others."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
