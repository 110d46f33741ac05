"""Read JSON, and name the place of what can't be meant. Pure.

Python's own reader takes numbers that are none, keys that are there twice, and text that is no
Unicode; and where it refuses something, it often doesn't say where that stands.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

_MOST_DIGITS = 400
_MOST_VALUES = 2_000_000
"""Values in a text, roughly: as objects of Python's they take some thirty times their text."""
_HALF_A_CHARACTER = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class _Fault:
    """Stands in the document where something is wrong."""

    sentence: str


def read_json(text: str) -> Any:
    """Return the document that a JSON text is; raise ValueError that says what is wrong and where.

    Half of a character (a lone surrogate, RFC 8259, 8.2) becomes U+FFFD, as elsewhere.
    """
    if text.count(",") > _MOST_VALUES:
        raise ValueError(f"it has more than {_MOST_VALUES:,} values: name fewer backends")
    faults: list[_Fault] = []

    def fault(sentence: str) -> _Fault:
        faults.append(_Fault(sentence))
        return faults[-1]

    def constant(word: str) -> _Fault:
        return fault(f"{word} is not a number of JSON: write a whole number")

    def whole(digits: str) -> int | _Fault:
        if len(digits) <= _MOST_DIGITS:
            return int(digits)
        return fault(f"a number of {len(digits)} digits: write a smaller one")

    def table(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _Fault:
        made = dict(pairs)
        if len(made) < len(pairs):
            twice = next(
                key for key, count in Counter(key for key, _ in pairs).items() if count > 1
            )
            return fault(f'the key "{twice:.60}" is there twice in one object: write it once')
        return made

    try:
        document = json.loads(
            text, object_pairs_hook=table, parse_constant=constant, parse_int=whole
        )
        if faults:
            place, found = next(_faults(document, ""))
            raise ValueError(f"{place}: {found.sentence}" if place else found.sentence)
        return _mended(document) if "\\u" in text else document
    except json.JSONDecodeError as error:
        raise ValueError(f"is not valid JSON: {error}") from None
    except RecursionError:
        raise ValueError("is not valid JSON: it is nested too deeply") from None


def _faults(here: Any, place: str) -> Iterator[tuple[str, _Fault]]:
    if isinstance(here, _Fault):
        yield place, here
    elif isinstance(here, list):
        for number, each in enumerate(here):
            yield from _faults(each, f"{place}[{number}]")
    elif isinstance(here, dict):
        for key, each in here.items():
            yield from _faults(each, f"{place}.{key:.60}" if place else f"{key:.60}")


def _mended(here: Any) -> Any:
    if isinstance(here, str):
        return _HALF_A_CHARACTER.sub("\N{REPLACEMENT CHARACTER}", here)
    if isinstance(here, list):
        return [_mended(each) for each in here]
    if isinstance(here, dict):
        return {_mended(key): _mended(each) for key, each in here.items()}
    return here
