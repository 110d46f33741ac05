"""LLB, a layer-4 load balancer: the names that authors of providers import, and no others.

Each is fetched from its module when it is asked for, so that a command that needs none of them
starts in a fraction of the time.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llb_core.answer import MAX_BACKENDS
    from llb_core.durations import Duration, parse_duration
    from llb_core.errors import ConfigurationError, LLBError, NotReady, ProviderError
    from llb_core.hookspecs import hookimpl
    from llb_core.model import MAX_WEIGHT, Address, Backend, Endpoint, Network, Transport
    from llb_core.provider import Provider, ProviderContext, ProviderOptions
    from llb_core.regular_file import open_regular
    from llb_core.validation import parse_toml, problems

__all__ = [
    "MAX_BACKENDS",
    "MAX_WEIGHT",
    "Address",
    "Backend",
    "ConfigurationError",
    "Duration",
    "Endpoint",
    "LLBError",
    "Network",
    "NotReady",
    "Provider",
    "ProviderContext",
    "ProviderError",
    "ProviderOptions",
    "Transport",
    "hookimpl",
    "open_regular",
    "parse_duration",
    "parse_toml",
    "problems",
]

_HOMES = {
    "answer": ("MAX_BACKENDS",),
    "durations": ("Duration", "parse_duration"),
    "errors": ("ConfigurationError", "LLBError", "NotReady", "ProviderError"),
    "hookspecs": ("hookimpl",),
    "model": ("MAX_WEIGHT", "Address", "Backend", "Endpoint", "Network", "Transport"),
    "provider": ("Provider", "ProviderContext", "ProviderOptions"),
    "regular_file": ("open_regular",),
    "validation": ("parse_toml", "problems"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Fetch a public name (PEP 562)."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
