"""Find providers among the installed distributions, and read their options.

Only the entry point that is asked for is imported, so a broken plugin harms nobody who doesn't use
it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from llb_core import hookspecs
from llb_core.config import Config, ProviderConfig
from llb_core.errors import ConfigurationError, told
from llb_core.provider import Provider
from llb_core.validation import problems

GROUP = "llb"
_PREFIX = "llb-provider-"

_STRANGERS = (Exception, SystemExit)
"""What somebody else's code may raise that is no reason for us to end."""

FindEntryPoints = Callable[[], Iterable[EntryPoint]]


@dataclass(frozen=True, slots=True)
class InstalledProvider:
    """A provider that is installed, without its having been imported."""

    name: str
    distribution: str
    version: str


def find_entry_points() -> Iterable[EntryPoint]:
    """Return the entry points of the group."""
    return entry_points(group=GROUP)


def once(find: FindEntryPoints = find_entry_points) -> FindEntryPoints:
    """Return what looks when it is first asked, and then finds the same: a look at all that is
    installed takes some milliseconds, too much for each of a thousand services."""
    return cache(lambda: tuple(find()))


def available(find: FindEntryPoints = find_entry_points) -> tuple[InstalledProvider, ...]:
    """Return the installed providers, by name. Imports none."""
    found = {
        entry.name: InstalledProvider(
            name=entry.name,
            distribution=entry.dist.name if entry.dist else "",
            version=entry.dist.version if entry.dist else "",
        )
        for entry in find()
    }
    return tuple(found[name] for name in sorted(found))


def provider_class(name: str, find: FindEntryPoints = find_entry_points) -> type[Provider[Any]]:
    """Import the provider of that name; raise ConfigurationError where there is none."""
    entries = [each for each in find() if each.name == name]
    entry = entries[0] if entries else None
    if len({each.value for each in entries}) > 1:
        origins = " and ".join(
            sorted(each.dist.name if each.dist else each.value for each in entries)
        )
        raise ConfigurationError(
            f'provider "{name}" is brought by {origins}: pip uninstall all but one of them'
        )
    if entry is None:
        raise ConfigurationError(
            f'provider "{name}" is not installed: pip install {_PREFIX}{name}' + _others(find)
        )
    source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
    try:
        module = entry.load()
    except _STRANGERS as error:
        raise ConfigurationError(
            f'provider "{name}" can\'t be imported from {source}: {told(error)}'
        ) from error
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name)
        found = manager.hook.llb_provider()
    except _STRANGERS as error:
        raise ConfigurationError(
            f'provider "{name}" brings no provider: llb_provider() of {source}: {told(error)}'
        ) from error
    if not (isinstance(found, type) and issubclass(found, Provider)):
        raise ConfigurationError(
            f'provider "{name}" brings no provider: llb_provider() of {source} must return a '
            "subclass of llb_core.Provider"
        )
    options: object = found.Options
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        raise ConfigurationError(
            f'provider "{name}" has no options that can be read: Options of {source} must be a '
            "subclass of llb_core.ProviderOptions"
        )
    return found


def read_options(config: Config, provider: ProviderConfig, options: type[BaseModel]) -> BaseModel:
    """Return a provider's own options; raise ConfigurationError with a line for each problem."""
    document: Mapping[str, Any] = dict(provider.options)
    try:
        return options.model_validate(document)
    except ValidationError as error:
        lines = problems(error, document, model=options)
        raise ConfigurationError(
            "\n".join(
                f"{config.path}: {provider.place}.{line} (an option of provider {provider.name})"
                for line in lines
            )
        ) from None
    except _STRANGERS as error:
        # Not as its cause: what it was given may hold a secret, and a traceback would show it.
        raise ConfigurationError(
            f"{config.path}: {provider.place}: provider {provider.name} fails over its options: "
            f"{type(error).__name__}"
        ) from None


def check_providers(config: Config, find: FindEntryPoints = find_entry_points) -> None:
    """Import every provider that the configuration names and read its options; ask none.

    Raises one ConfigurationError with a line for each problem.
    """
    lines: list[str] = []
    find = once(find)
    for service in config.services:
        for provider in service.providers:
            try:
                load_provider(config, provider, find)
            except ConfigurationError as error:
                lines.append(str(error))
    if lines:
        raise ConfigurationError("\n".join(lines))


def load_provider(
    config: Config, provider: ProviderConfig, find: FindEntryPoints = find_entry_points
) -> tuple[type[Provider[Any]], BaseModel]:
    """Return the class of a provider that the configuration names, and its options."""
    try:
        found = provider_class(provider.name, find)
    except ConfigurationError as error:
        raise ConfigurationError(f"{config.path}: {provider.place}.name: {error}") from error
    return found, read_options(config, provider, found.Options)


def _others(find: FindEntryPoints) -> str:
    names = ", ".join(each.name for each in available(find))
    return f" (installed: {names})" if names else ""
