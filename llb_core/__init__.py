"""LLB, a layer-4 load balancer: the names that authors of providers import, and no others."""

from llb_core.durations import Duration, parse_duration
from llb_core.errors import ConfigurationError, LLBError, NotReady, ProviderError
from llb_core.hookspecs import hookimpl
from llb_core.model import MAX_WEIGHT, Address, Backend, Endpoint, Network, Transport
from llb_core.provider import Provider, ProviderContext, ProviderOptions
from llb_core.validation import problems

__all__ = [
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
    "parse_duration",
    "problems",
]
