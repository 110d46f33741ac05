"""What is registered in a turn, service by service.

Most services are registered with what they were registered with in the turn before, and then are
the same tuple again: whoever compares two turns need not look into it. What is not here: what
becomes of it (`balancer`).
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from llb_core.model import Backend, BackendMode, Endpoint, InstalledBackend, Service
from llb_core.planning.parts import Part
from llb_core.planning.resolve import merge

log = logging.getLogger(__name__)

_NAMED = 3
"""Backends that a warning names before it counts."""

Parts = Mapping[int, Mapping[int, Part]]
"""What is installed, by address family and the slot of a service."""


Weights = Mapping[Endpoint, Sequence[int]]
"""Of backends whose weight a service's providers differ about: what each provider says."""


@dataclass(frozen=True, slots=True)
class _Registered:
    """What was said in a turn, what was remembered beside it, and what both came to."""

    said: list[Backend]
    remembered: tuple[Backend, ...]
    backends: tuple[Backend, ...]
    differing: Weights


class Drafts:
    """The draft of each service. `begin` comes first, in each turn."""

    def __init__(self) -> None:
        self._said: dict[str, list[Backend]] = {}
        self._answers: dict[str, list[Sequence[Backend]]] = {}
        self._answers_before: dict[str, list[Sequence[Backend]]] = {}
        self._kept: set[str] = set()
        self._remembered: dict[str, tuple[Backend, ...]] = {}
        self._before: dict[str, _Registered] = {}

    def begin(self, services: Iterable[str]) -> None:
        """Begin a new draft for these services, and forget all others."""
        self._said = {name: [] for name in services}
        self._answers_before, self._answers = self._answers, {name: [] for name in self._said}
        self._kept = set()

    def add(self, service: str, backend: Backend) -> None:
        """Put a backend into the draft of a service, if there is one."""
        said = self._said.get(service)
        if said is not None:
            said.append(backend)

    def add_again(self, service: str, answer: Sequence[Backend]) -> bool:
        """Put an answer into the draft of a service, if it was noted in the draft before; note it
        for the next one, and return whether it was."""
        said = self._said.get(service)
        if said is None:
            return False
        self._answers[service].append(answer)
        if not any(answer is each for each in self._answers_before.get(service, ())):
            return False
        said.extend(answer)
        return True

    def keep(self, service: str) -> None:
        """Have a service's installed backends taken for registered too, if it has a draft."""
        if service in self._said:
            self._kept.add(service)

    @property
    def kept(self) -> frozenset[str]:
        """The services of which what is installed is taken for registered."""
        return frozenset(self._kept)

    @property
    def differing(self) -> dict[str, Weights]:
        """Where the providers of a service differ, as of what was `registered` last."""
        return {name: each.differing for name, each in self._before.items() if each.differing}

    def registered(
        self, services: Mapping[str, Service], parts: Parts
    ) -> dict[str, tuple[Backend, ...]]:
        """Return the drafts, with what was installed before where a provider is still silent."""
        self._remembered = {
            name: self._remembered.get(name) or remembered(services[name], parts)
            for name in self._kept
        }
        self._before = {name: self._of(name, said) for name, said in self._said.items()}
        return {name: each.backends for name, each in self._before.items()}

    def _of(self, name: str, said: list[Backend]) -> _Registered:
        kept = self._remembered.get(name, ())
        before = self._before.get(name)
        if before is not None and before.said == said and before.remembered == kept:
            return before
        merged: dict[Endpoint, Backend] = {}
        differing: dict[Endpoint, list[int]] = {}
        for backend in said:
            known = merged.get(backend.endpoint)
            merged[backend.endpoint] = merge(known, backend) if known else backend
            if known and known.weight != backend.weight:
                differing[backend.endpoint] = []
        if differing:
            for backend in said:
                if backend.endpoint in differing:
                    differing[backend.endpoint].append(backend.weight)
            if before is None or before.differing != differing:
                _tell(name, differing)
        backends = (*merged.values(), *(each for each in kept if each.endpoint not in merged))
        return _Registered(said, kept, backends, differing)


def _tell(name: str, differing: Weights) -> None:
    words = [f"{each} ({' and '.join(map(str, said))})" for each, said in differing.items()]
    log.warning(
        "%s: providers differ about the weight of %s: what the first of them says counts",
        name,
        _few(words),
    )


def _few(names: Sequence[str]) -> str:
    more = [f"{len(names) - _NAMED} more"] if len(names) > _NAMED else []
    return ", ".join([*names[:_NAMED], *more])


def remembered(service: Service, parts: Parts) -> tuple[Backend, ...]:
    """Return a service's installed backends, found by its address, or by its name if that is new.

    Why one took no new connections is not remembered; so it drains until its provider speaks.
    """
    families = {key.endpoint.address.version for key in service.keys}
    found: list[InstalledBackend] = []
    for family in families & parts.keys():
        own = [part for part in parts[family].values() if part.service is not None]
        chosen = [each for each in own if each.service and each.service.key in service.keys]
        chosen = chosen or [
            each for each in own if each.service and each.service.name == service.name
        ]
        found += [backend for each in chosen for backend in each.backends.values()]
    return tuple(
        Backend(each.endpoint, each.weight, draining=each.mode is not BackendMode.ACTIVE)
        for each in found
        if each.mode is not BackendMode.RETIRED
    )
