"""A balancer in memory: real sources, real planning, and maps that refuse what breaks a packet.

No root, no kernel: what a provider says is planned and installed as the daemon does it.
"""

from __future__ import annotations

import ipaddress
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from llb_core.balancer import LoadBalancer
from llb_core.core_loop import turn
from llb_core.guard import Guard
from llb_core.model import BackendMode, Endpoint, Network, Service, ServiceKey, Transport
from llb_core.provider import Provider, ProviderContext
from llb_core.report import Report
from llb_core.source import Source
from llb_core.testing.driven import BOTH_FAMILIES
from llb_core.testing.maps import MemoryMaps

_FIRST = {4: ipaddress.ip_address("203.0.113.0"), 6: ipaddress.ip_address("2001:db8::")}


class MemoryBalancer:
    """Services that are fed by providers, on maps in memory. A context: at its end all is closed.

    Each service has an address of each of the `families`. A second one on the same `maps`, which
    are by family, is a daemon that was started anew. Nothing is checked for health, so a backend
    takes connections as soon as it is registered.
    """

    def __init__(
        self,
        maps: Mapping[int, MemoryMaps] | None = None,
        *,
        families: frozenset[int] = BOTH_FAMILIES,
        base: Path = Path("/"),
        backend_cidrs: Sequence[Network] = (),
        guard: Guard | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.maps = maps or {family: MemoryMaps() for family in sorted(families)}
        self.sources: list[Source] = []
        self._base = base
        self._backend_cidrs = backend_cidrs
        self._guard = guard
        self._clock = clock
        self._services: dict[str, Service] = {}
        self._changed = threading.Event()
        self._llb = LoadBalancer(self.maps, ())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(
        self,
        provider: type[Provider[Any]] | Provider[Any],
        options: Mapping[str, Any] | None = None,
        *,
        service: str = "web",
        refresh: float | None = None,
    ) -> Source:
        """Ask a provider from now on: a class with its options as in llb.toml, or one ready made.

        `refresh` stands for the provider's own, in seconds.
        """

        def make() -> Provider[Any]:
            made = provider if isinstance(provider, Provider) else provider(read, context)
            made.closed.clear()  # One that is ready made was closed where it hung before.
            made.refresh = made.refresh if refresh is None else refresh
            return made

        if isinstance(provider, Provider):
            read = provider.options
        else:
            read = provider.Options.model_validate(dict(options or {}))
        context = ProviderContext(service, self._base)
        if service not in self._services:
            number = len(self._services) + 1
            keys = tuple(
                ServiceKey(Endpoint(_FIRST[family] + number, 80), Transport.TCP)
                for family in self.maps
            )
            self._services[service] = Service(service, keys, is_checked=False)
            self._llb.serve(self._services.values())
        source = Source(
            service,
            provider.name,
            make,
            families=frozenset(self.maps),
            networks=self._backend_cidrs,
            guard=self._guard,
            clock=self._clock,
            chance=lambda: 0.0,
            on_change=self._changed.set,
        )
        self.sources.append(source)
        source.start()
        return source

    def turn(self) -> Report:
        """Gather, register, commit: one round of the core loop."""
        return turn(self.sources, self._llb)

    def turn_until(
        self, condition: Callable[[], object], *, limit: float = 30.0, what: str = ""
    ) -> None:
        """Make turns until `condition` holds; raise AssertionError after `limit` seconds."""
        end = time.monotonic() + limit
        self.turn()
        while not condition():
            errors = "; ".join(each.error for each in self.sources if each.error)
            assert time.monotonic() < end, what or f"it is not so after {limit:g} s ({errors})"
            self._changed.wait(0.01)
            self._changed.clear()
            self.turn()

    def modes(self, service: str = "web") -> dict[Endpoint, BackendMode]:
        """Return what the classifier would do for each backend that is installed."""
        modes: dict[Endpoint, BackendMode] = {}
        for maps in self.maps.values():
            installed = maps.installed()
            slots = {slot for slot, each in installed.services.items() if each.name == service}
            modes |= {
                backend.endpoint: backend.mode
                for backend in installed.backends.values()
                if backend.service_slot in slots
            }
        return modes

    def active(self, service: str = "web") -> frozenset[Endpoint]:
        """Return the backends that take new connections."""
        modes = self.modes(service)
        return frozenset(each for each, mode in modes.items() if mode is BackendMode.ACTIVE)

    def close(self) -> None:
        """Stop asking; what is installed stays in `maps`."""
        for source in self.sources:
            source.close()
