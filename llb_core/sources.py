"""From the configuration to its sources, over reloads too."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from llb_core.config import Config, ProviderConfig, ServiceConfig
from llb_core.model import Address
from llb_core.plugins import Loaded, LoadedProvider
from llb_core.provider import ProviderContext
from llb_core.source import Source


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


def _origin(config: Config, service: ServiceConfig, provider: ProviderConfig) -> object:
    return (
        config.base,
        service.service.name,
        service.service.keys,
        service.guard,
        config.loadbalancer.backend_cidrs,
        provider.name,
        _digest(provider.options),
    )


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
