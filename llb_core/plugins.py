"""Import providers that are installed (`installed`), and read their options.

Only the entry point that is asked for is imported, so a broken plugin harms nobody who doesn't use
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pluggy
from pydantic import BaseModel, ValidationError

from llb_core import hookspecs
from llb_core.config import Config, ProviderConfig, load
from llb_core.errors import ConfigurationError, told
from llb_core.installed import FindEntryPoints, available, find_entry_points, once
from llb_core.option_docs import OptionDoc, describe
from llb_core.provider import Provider
from llb_core.strangers import now_doing, within
from llb_core.validation import problems

_PREFIX = "llb-provider-"

LOAD_LIMIT = 30.0
"""Seconds that a whole configuration has to import its providers and read their options."""

LoadedProvider = tuple[type[Provider[Any]], BaseModel]
"""A provider that a configuration names: its class, and the options that stand there."""
Loaded = Mapping[str, LoadedProvider]
"""All of a configuration's, by their place in it."""


def provider_class(name: str, find: FindEntryPoints = find_entry_points) -> type[Provider[Any]]:
    """Import the provider of that name; raise ConfigurationError where there is none, whatever it
    raises, and where it takes longer than LOAD_LIMIT."""
    return within(LOAD_LIMIT, lambda: _import(name, find), f'importing provider "{name}"')


def described(
    name: str, limit: float, find: FindEntryPoints = find_entry_points
) -> tuple[OptionDoc, ...]:
    """Return the options of the provider of that name; raise ConfigurationError as its import does,
    and after `limit` seconds."""

    def _describe() -> tuple[OptionDoc, ...]:
        options = provider_class(name, find).Options
        try:
            return describe(options)
        except BaseException as error:
            raise ConfigurationError(
                f'provider "{name}" has no options that can be read: {told(error)}'
            ) from error

    return within(limit, _describe, f'importing provider "{name}"')


def _import(name: str, find: FindEntryPoints) -> type[Provider[Any]]:
    entry = _entry_point(name, find)
    source = f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value
    try:
        module = entry.load()
    except BaseException as error:
        raise ConfigurationError(
            f'provider "{name}" can\'t be imported from {source}: {told(error)}'
            f"{_if_not_found(entry, error)}"
        ) from error
    manager = pluggy.PluginManager(hookspecs.PROJECT)
    manager.add_hookspecs(hookspecs)
    try:
        manager.register(module, name)
        found = manager.hook.llb_provider()
    except BaseException as error:
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


def _if_not_found(entry: EntryPoint, error: BaseException) -> str:
    """Return what to do where the plugin's own module is not there: what makes one that is
    installed in editable mode importable, a .pth file, is read as Python starts, and not again."""
    whole = f"{entry.module}."
    if not isinstance(error, ModuleNotFoundError) or not whole.startswith(f"{error.name}."):
        return ""
    return ": restart the daemon if it was installed in editable mode meanwhile, or install it anew"


def _entry_point(name: str, find: FindEntryPoints) -> EntryPoint:
    found = find()
    entries = [each for each in found.entries if each.name == name]
    if len({each.value for each in entries}) > 1:
        origins = " and ".join(
            sorted(each.dist.name if each.dist else each.value for each in entries)
        )
        raise ConfigurationError(
            f'provider "{name}" is brought by {origins}: pip uninstall all but one of them'
        )
    if entries:
        return entries[0]
    others = ", ".join(each.name for each in available(lambda: found))
    installed = f" (installed: {others})" if others else ""
    if found.unreadable:
        unreadable = "; ".join(map(str, found.unreadable))
        raise ConfigurationError(
            f'provider "{name}" is not installed, or is in what can\'t be read: {unreadable}: '
            f"pip install --force-reinstall {_PREFIX}{name}{installed}"
        )
    raise ConfigurationError(
        f'provider "{name}" is not installed: pip install {_PREFIX}{name}{installed}'
    )


def read_options(config: Config, provider: ProviderConfig, options: type[BaseModel]) -> BaseModel:
    """Return a provider's own options; raise ConfigurationError with a line for each problem."""
    document: Mapping[str, Any] = dict(provider.options)
    now_doing(f"{config.path}: {provider.place}: reading the options of provider {provider.name}")
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
    except BaseException as error:  # noqa: BLE001 - somebody else's code, in a thread of ours
        # Not as its cause: what it was given may hold a secret, and a traceback would show it.
        raise ConfigurationError(
            f"{config.path}: {provider.place}: provider {provider.name} fails over its options: "
            f"{type(error).__name__}"
        ) from None


def load_providers(config: Config, find: FindEntryPoints = find_entry_points) -> Loaded:
    """Import every provider that the configuration names and read its options; ask none.

    Raises one ConfigurationError with a line for each problem; after LOAD_LIMIT, with the one of
    what it waits for.
    """
    doing = f"{config.path}: its providers"
    return within(LOAD_LIMIT, lambda: _load_providers(config, find), doing)


def _load_providers(config: Config, find: FindEntryPoints) -> Loaded:
    loaded: dict[str, LoadedProvider] = {}
    lines: list[str] = []
    find = once(find)
    for service in config.services:
        for provider in service.providers:
            try:
                loaded[provider.place] = load_provider(config, provider, find)
            except ConfigurationError as error:
                lines.append(str(error))
    if lines:
        raise ConfigurationError("\n".join(lines))
    return loaded


def load_provider(
    config: Config, provider: ProviderConfig, find: FindEntryPoints = find_entry_points
) -> LoadedProvider:
    """Return the class of a provider that the configuration names, and its options; raise
    ConfigurationError, within LOAD_LIMIT."""
    doing = f'{config.path}: {provider.place}.name: importing provider "{provider.name}"'
    return within(LOAD_LIMIT, lambda: _load_provider(config, provider, find), doing)


def _load_provider(
    config: Config, provider: ProviderConfig, find: FindEntryPoints
) -> LoadedProvider:
    try:
        found = _import(provider.name, find)
    except ConfigurationError as error:
        raise ConfigurationError(f"{config.path}: {provider.place}.name: {error}") from error
    return found, read_options(config, provider, found.Options)


def load_whole(path: Path) -> tuple[Config, Loaded]:
    """Read the configuration, its providers and their options, within LOAD_LIMIT; touch nothing."""
    config = within(LOAD_LIMIT, lambda: load(path), f"{path}: reading it")
    return config, load_providers(config)
