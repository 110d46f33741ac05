"""Read whom a service lets in: the prefixes of `allow`, `deny`, and of the files beside them.

A file has one prefix a line; what follows a # is a remark. It is read with the configuration, at
the start and by a reload, and never by itself: a file half written is a valid one, and of a list of
those who are denied the half that is missing would get in.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from llb_core.config_file import ServiceTable, parse_network
from llb_core.model import Access, Network
from llb_core.rules import Rules


@dataclass(frozen=True, slots=True)
class PrefixLists:
    """What a service's prefixes come to; `rules` for IPv4 and for IPv6."""

    access: Access
    rules: tuple[Rules, ...]


class BadPrefixes(Exception):
    """Prefixes that can't be read, or contradict each other; a line for each problem."""

    def __init__(self, lines: list[str]) -> None:
        super().__init__("\n".join(lines))
        self.lines = lines


def read_prefix_lists(service: str, table: ServiceTable, base: Path) -> PrefixLists:
    """Read the prefixes of a service; raise BadPrefixes, its lines beginning with the key."""
    problems: list[str] = []
    place = f"services.{service}"
    allowed, denied = (
        {*inline, *_read(base, name, f"{place}.{key}_file", problems)}
        for key, inline, name in (
            ("allow", table.allow, table.allow_file),
            ("deny", table.deny, table.deny_file),
        )
    )
    problems += [
        f"{place}.deny: {each} is allowed as well: take it out of the one or the other"
        for each in sorted(allowed & denied, key=str)[:10]
    ]
    if problems:
        raise BadPrefixes(problems)
    if not (allowed or denied or table.allow_file or table.deny_file):
        return PrefixLists(Access.OPEN, ())
    rules = tuple(Rules.of(allowed, denied, family) for family in (4, 6))
    is_closed = bool(allowed or table.allow_file)
    return PrefixLists(Access.DENY if is_closed else Access.ALLOW, rules)


def _read(base: Path, name: str | None, key: str, problems: list[str]) -> Iterator[Network]:
    if name is None:
        return
    path = base / name
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        problems.append(f"{key}: {path}: can't be read: {error.strerror}")
        return
    except UnicodeDecodeError as error:
        problems.append(f"{key}: {path}: is not UTF-8 (at byte {error.start})")
        return
    for number, line in enumerate(lines, 1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        try:
            yield parse_network(text)
        except ValueError as error:
            problems.append(f"{key}: {path}: line {number}: {error}")
            return
