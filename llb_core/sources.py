"""From the configuration to its sources, over reloads too."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llb_core.config import Config, ProviderConfig, ServiceConfig
from llb_core.errors import ConfigurationError
from llb_core.model import Address, Endpoint
from llb_core.plugins import Loaded, LoadedProvider
from llb_core.provider import ProviderContext
from llb_core.source import Source

FIRST_ANSWER_LIMIT = 0.5
"""Seconds that the first turn waits for providers at most."""


async def start_together(sources: Collection[Source]) -> None:
    """Start sources, and give them a moment to answer: most do, and the first turn has it all."""
    for source in sources:
        source.start()
    until = time.monotonic() + FIRST_ANSWER_LIMIT
    while not all(each.is_ready or each.error for each in sources):
        if time.monotonic() > until:
            return
        await asyncio.sleep(0.005)  # One that fails tells nobody: there is no event to wait for.


def close_together(sources: Collection[Source], timeout: float) -> None:
    """Close sources at once: those that hang are left after `timeout` seconds, however many."""
    for source in sources:
        source.close(timeout=0)
    until = time.monotonic() + timeout
    for source in sources:
        source.join(max(0.0, until - time.monotonic()))


def make_sources(
    config: Config,
    providers: Loaded,
    *,
    on_change: Callable[[], None],
    previous: Iterable[Source] = (),
) -> list[Source]:
    """Return a source for each provider of each service, not yet started; `providers` are those
    that the configuration names, as `load_providers` returns them.

    Those of `previous` that would be made the same way are taken over as they are, with what they
    know, and the caller tells them the addresses that are the balancer's own from now on
    (`own_addresses`), once nothing can fail any more, and closes the others.
    """
    reusable = {source.origin: source for source in previous}
    ours = own_addresses(config)
    sources = []
    for service in config.services:
        for provider in service.providers:
            origin = _origin(config, service, provider)
            source = reusable.get(origin) or _make_source(
                config, service, provider.name, providers[provider.place], on_change, ours, origin
            )
            sources.append(source)
    return sources


def own_addresses(config: Config) -> dict[Address, str]:
    """Return the addresses that no backend can have, since they are the balancer's own, each with
    what it is."""
    vips = {
        key.endpoint.address: f"the address of service {service.service.name}"
        for service in config.services
        for key in service.service.keys
    }
    snat = dict.fromkeys(config.loadbalancer.snat_addresses, "loadbalancer.snat_addresses")
    return vips | snat


def refuse_own_backends(config: Config, previous: Iterable[Source]) -> None:
    """Raise ConfigurationError where a configuration makes an address the balancer's own that a
    provider named when it last answered, and that the same provider is to be asked for again.

    Taken over, its last good answer would go on with that backend, and no later one would pass.
    """
    lines = [
        f"{config.path}: services.{source.service}: provider {source.provider} names {endpoint}, "
        f"which would be the balancer's own ({what}): set another address, or have the provider "
        "name that backend no longer"
        for source, endpoint, what in _own_backends(config, previous)
    ]
    if lines:
        raise ConfigurationError("\n".join(lines))


def _own_backends(
    config: Config, previous: Iterable[Source]
) -> Iterator[tuple[Source, Endpoint, str]]:
    """Yield the first of each source."""
    ours = own_addresses(config)
    questions = {
        _question(config, service, provider)
        for service in config.services
        for provider in service.providers
    }
    for source in previous:
        if source.is_ready and isinstance(source.origin, _Origin):
            is_asked_again = source.origin.question in questions
            for backend in source.gather_backends() if is_asked_again else ():
                if what := ours.get(backend.endpoint.address):
                    yield source, backend.endpoint, what
                    break


@dataclass(frozen=True, slots=True)
class _Origin:
    """What a source was made from: what its provider is asked, and how the answer is taken."""

    question: Hashable
    taken: Hashable


def _origin(config: Config, service: ServiceConfig, provider: ProviderConfig) -> _Origin:
    return _Origin(
        _question(config, service, provider),
        (service.service.keys, service.guard, config.loadbalancer.backend_cidrs),
    )


def _question(config: Config, service: ServiceConfig, provider: ProviderConfig) -> Hashable:
    return config.base, service.service.name, provider.name, _digest(provider.options)


def _digest(options: Mapping[str, Any]) -> bytes:
    """Tell options apart without keeping them: there may be a secret among them."""
    return hashlib.blake2b(repr(sorted(options.items())).encode()).digest()


def _make_source(
    config: Config,
    service: ServiceConfig,
    name: str,
    loaded: LoadedProvider,
    on_change: Callable[[], None],
    ours: Mapping[Address, str],
    origin: object,
) -> Source:
    found, options = loaded
    keys = service.service.keys
    context = ProviderContext(service.service.name, config.base, keys[0].protocol)
    return Source(
        service.service.name,
        name,
        lambda: found(options, context),
        families=frozenset(key.endpoint.address.version for key in keys),
        networks=config.loadbalancer.backend_cidrs,
        ours=ours,
        on_change=on_change,
        guard=service.guard,
        origin=origin,
    )
