"""Find providers among the installed distributions, and import none.

Each distribution is looked at by itself: one that is broken, by an installation that was cut off,
say, is told of, and hides no other.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import Distribution, EntryPoint, distributions
from itertools import chain

from llb_core.errors import HostError

log = logging.getLogger(__name__)

GROUP = "llb"


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A distribution that can't be read, and may bring a provider."""

    path: str
    why: str

    def __str__(self) -> str:
        return f"{self.path}: {self.why}"


@dataclass(frozen=True, slots=True)
class Found:
    """The entry points of the group, and what may bring more of them."""

    entries: tuple[EntryPoint, ...]
    unreadable: tuple[Unreadable, ...] = ()


FindEntryPoints = Callable[[], Found]


@dataclass(frozen=True, slots=True)
class InstalledProvider:
    """A provider that is installed, without its having been imported."""

    name: str
    distribution: str
    version: str


def find_entry_points() -> Found:
    """Look at all that is installed. What can't be read is logged, once."""
    entries: dict[str, tuple[EntryPoint, ...]] = {}
    unreadable: list[Unreadable] = []
    for distribution in distributions():
        try:
            own = _entry_points(distribution)
            if own:  # Of one that is there twice, the first is what would be imported.
                entries.setdefault(_name(distribution), own)
        except HostError as error:
            unreadable.append(Unreadable(_path(distribution), str(error)))
    for each in unreadable:
        _tell(each)
    return Found(tuple(chain.from_iterable(entries.values())), tuple(unreadable))


def once(find: FindEntryPoints = find_entry_points) -> FindEntryPoints:
    """Return what looks when it is first asked, and then finds the same: a look at all that is
    installed takes some milliseconds, too much for each of a thousand services."""
    return cache(find)


def available(find: FindEntryPoints = find_entry_points) -> tuple[InstalledProvider, ...]:
    """Return the installed providers, by name."""
    found = {
        entry.name: InstalledProvider(
            name=entry.name,
            distribution=entry.dist.name if entry.dist else "",
            version=entry.dist.version if entry.dist else "",
        )
        for entry in find().entries
    }
    return tuple(found[name] for name in sorted(found))


def _entry_points(distribution: Distribution) -> tuple[EntryPoint, ...]:
    """Return a distribution's entry points of the group; raise HostError where it can't be read.

    Of the hundreds that bring none, no more is read than it takes to see that.
    """
    try:
        text = distribution.read_text("entry_points.txt") or ""
        if f"[{GROUP}]" not in text:
            return ()
        return tuple(distribution.entry_points.select(group=GROUP))
    except Exception as error:  # noqa: BLE001 - whatever somebody else's file makes of the parser
        raise HostError(f"its entry_points.txt can't be read ({type(error).__name__})") from None


def _name(distribution: Distribution) -> str:
    """Return a distribution's name, normalized; raise HostError where name or version are not to
    be had."""
    try:
        metadata = distribution.metadata
        name, version = metadata["Name"], metadata["Version"]
    except Exception as error:  # noqa: BLE001 - the same
        raise HostError(f"its METADATA can't be read ({type(error).__name__})") from None
    if not (name and version):
        raise HostError("it has no METADATA, or none with a name and a version")
    return re.sub(r"[-_.]+", "-", name).lower()


def _path(distribution: Distribution) -> str:
    """Return where its metadata are, which has no public name."""
    return str(getattr(distribution, "_path", distribution))


@cache
def _tell(unreadable: Unreadable) -> None:
    log.warning(
        "%s: no provider is taken from it: install that package anew, or remove this", unreadable
    )
